"""What an image would be, for people who compose one: its packages, and what of it is here already. Nothing is built.

The evaluation is the restricted one of a pull; it is bounded in number, and what it said is kept for a while.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cachetools import TTLCache

from proxy.core.model import ImageRequest, Package
from proxy.image import layering
from proxy.image.layer_table import NO_TABLE, LayerTable
from proxy.image.manifest import Compression
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import PackageSets
from proxy.nix.store import NixStore
from proxy.pipeline.packing import CODECS
from proxy.state import State, layer_key
from proxy.tools.flight import SingleFlight

_KEPT = 600.0  # seconds
_AT_ONCE = 2
_WAITING = 16  # questions that may wait for their turn


@dataclass(frozen=True, slots=True)
class Preview:
    """`size`: bytes of the closure, unpacked; 0 while nobody knows. `layers`, and how many of them are known to be packed.

    `in_store`: whether Nix has all of it, so that nothing needs to be built or fetched.
    """

    packages: tuple[Package, ...]
    revision: str
    in_store: bool
    size: int = 0
    layers: int = 0
    layers_here: int = 0
    bytes_here: int = 0


class Previews:
    """The previews of one application."""

    def __init__(
        self,
        sets: PackageSets,
        evaluator: Evaluator,
        store: NixStore,
        state: State,
        *,
        always: Sequence[str],
        most_layers: int,
        compression: Compression,
        tables: Mapping[str, LayerTable],
    ) -> None:
        """The options are those of `pipeline`."""
        self._sets = sets
        self._evaluator = evaluator
        self._store = store
        self._state = state
        self._always = always
        self._most_layers = most_layers
        self._codec = CODECS[compression]
        self._tables = tables
        self._known: TTLCache[tuple[str, str], Preview] = TTLCache(512, _KEPT)
        self._asking: SingleFlight[tuple[str, str], Preview] = SingleFlight()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._names_listed: SingleFlight[str, tuple[str, ...]] = SingleFlight()

    async def attributes(self, package_set: str, patience: float) -> tuple[str, ...] | None:
        """The names of a set; None where listing them takes longer (it goes on). Raises a `NixfrontError`."""
        try:
            return await asyncio.wait_for(
                self._names_listed.run(package_set, lambda: self._listed(package_set)), patience
            )
        except TimeoutError:
            return None

    async def of(self, request: ImageRequest) -> Preview | None:
        """The preview of this image; None where too many ask at this moment. Raises a `NixfrontError`."""
        key = (request.repository, request.tag)
        known = self._known.get(key)
        if known is not None and known.in_store:
            return known
        if key not in self._asking.keys and len(self._asking.keys) >= _WAITING:
            return None
        return await self._asking.run(key, lambda: self._ask(key, request))

    async def close(self) -> None:
        """End what is being asked."""
        await self._asking.close()
        await self._names_listed.close()

    async def _listed(self, package_set: str) -> tuple[str, ...]:
        return await self._evaluator.names(await self._sets.resolve(package_set, "latest"))

    async def _ask(self, key: tuple[str, str], request: ImageRequest) -> Preview:
        async with self._slots:
            package_set = await self._sets.resolve(request.package_set, request.tag)
            found = await self._evaluator.evaluate(
                package_set,
                sorted(request.attributes),
                [name for name in self._always if name not in request.attributes],
                request.preset.system,
            )
            packages = tuple(found.values())
            asked = tuple(found[name] for name in request.attributes)
            closure = await self._store.closure(packages)
            if closure is None:
                size = await self._store.to_fetch(package_set, packages) if package_set.substitutes else 0
                preview = Preview(asked, package_set.revision, in_store=False, size=size)
            else:
                plans = layering.plan(
                    closure, self._most_layers - 1, self._tables.get(request.package_set, NO_TABLE)
                )
                keys = [layer_key(plan, self._codec) for plan in plans]
                here = [layer for layer, _ in (await self._state.recall(keys, request.repository)).values()]
                preview = Preview(
                    asked,
                    package_set.revision,
                    in_store=True,
                    size=sum(info.nar_size for info in closure.paths),
                    layers=len(plans) + 1,  # and the root
                    layers_here=len(here),
                    bytes_here=sum(layer.size for layer in here),
                )
        self._known[key] = preview
        return preview
