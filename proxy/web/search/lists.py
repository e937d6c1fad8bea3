"""The names of package sets for searches: a set is listed once for all who wait for it, and few searches run at once."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from cachetools import LRUCache

from proxy.core import names
from proxy.core.model import Policy
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import PackageSets
from proxy.tools.flight import SingleFlight
from proxy.tools.name_index import NO_NAMES, NameIndex
from proxy.web.access import Access
from proxy.web.search.matches import may_be_pulled

_MOST_JUDGED = 4  # package sets, whose lists stay in memory
_AT_ONCE = 2  # searches; each takes a processor for some hundredths of a second
_T = TypeVar("_T")


class SetLists:
    """The lists of one application."""

    def __init__(self, sets: PackageSets, evaluator: Evaluator, access: Access, policy: Policy) -> None:
        """`access` and `policy` hide names from lists; licences are judged when a package is built."""
        self._sets = sets
        self._evaluator = evaluator
        self._access = access
        self._policy = policy
        self._listing: SingleFlight[str, NameIndex] = SingleFlight()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._offers: LRUCache[str, tuple[NameIndex, bytes]] = LRUCache(_MOST_JUDGED)

    async def index(self, package_set: str, patience: float) -> NameIndex | None:
        """The packages of a set; None if the list is not ready within `patience` seconds. Raises a `NixfrontError`."""
        try:
            return await asyncio.wait_for(
                self._listing.run(package_set, lambda: self._list(package_set)), patience
            )
        except TimeoutError:
            return None

    async def search(self, work: Callable[[], _T]) -> _T:
        """The result of a search, which takes a thread and its turn."""
        async with self._slots:
            return await asyncio.to_thread(work)

    async def find(self, package_set: str, index: NameIndex | None, text: str) -> list[int]:
        """The positions of the packages that the text fits and that this host makes, best first."""
        if index is None:
            return []
        offer = await self._offer(package_set, index)
        return await self.search(partial(find, text, index, offer))

    async def alike(self, package_set: str, index: NameIndex | None, text: str) -> list[str]:
        """At most three names that are like the text, of packages that this host makes."""
        if index is None or not text:
            return []
        alike = await self.search(lambda: index.close(text))
        return [name for name in alike if self._makes(package_set, name)]

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._listing.close()

    async def _list(self, package_set: str) -> NameIndex:
        return await self._evaluator.facts_soon(await self._sets.resolve(package_set, "latest"))

    async def _offer(self, package_set: str, index: NameIndex) -> bytes:
        """For each name of the index, whether this host makes it: judged once, as an index may have a hundred thousand."""
        last, offer = self._offers.get(package_set, (NO_NAMES, b""))
        if last is not index:
            offer = await self.search(lambda: bytes(self._makes(package_set, name) for name in index))
            self._offers[package_set] = index, offer
        return offer

    def _makes(self, package_set: str, attribute: str) -> bool:
        spelled = names.spelled(attribute)
        path = f"{package_set}/{spelled}" if package_set else spelled
        # A name that no path can spell may have an alias.
        return may_be_pulled(attribute, self._policy) and (path is None or self._access.makes(path))


def find(text: str, index: NameIndex, offer: bytes) -> list[int]:
    """The positions of the offered packages that the text fits, best first; without a text all of them, in their order."""
    positions = index.search(text) if text else range(len(index))
    return [position for position in positions if offer[position]]
