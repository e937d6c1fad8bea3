"""The attribute names of package sets, for search and suggestions, and what packages say of themselves.

A channel of nixpkgs publishes such a list; for other sets Nix makes it, which takes many seconds. Every list has a file.
"""

import asyncio
import codecs
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import TLRUCache, TTLCache

from proxy.core.errors import EvaluationFailed, NixfrontError, PackageSetUnavailable, ProcessFailed
from proxy.core.facts import PackageFacts
from proxy.core.model import PackageSet, canonical_json, sha256_hex
from proxy.nix.name_lists.channel import ChannelLists
from proxy.nix.output import last_lines
from proxy.nix.runner import Expressions
from proxy.tools import name_file
from proxy.tools.files import keep_newest
from proxy.tools.flight import SingleFlight
from proxy.tools.json_members import members
from proxy.tools.name_index import NO_NAMES, NameIndex

_log = logging.getLogger(__name__)
_LISTS = 4  # lists in memory, of some thirty megabytes for a hundred thousand packages
_FILES = 16  # lists of either kind on disk, of up to twenty megabytes each
#: A list of a channel that is older is fetched anew, and no other one stays in memory for longer.
_LIST_SECONDS = 86400.0
SOON = 2.0  # seconds that an error message or a search waits for something better
_UNLISTED_SECONDS = 600.0  # for so long nixfront does not try again to list a set that could not be listed
_MOST_UNLISTED = 64
_SET_OF_PACKAGES = re.compile(r".*Packages")
_LISTED_SETS = 100  # how many sets are listed one by one, where Nix cannot list them together
_PIECE = 1 << 18  # bytes of what Nix prints that are decoded in one step


@dataclass(frozen=True, slots=True)
class _Kept:
    """A list in memory, and how long it stays there."""

    index: NameIndex
    seconds: float


class NameLists:
    """The lists of names, in memory and in `folder`."""

    def __init__(self, expressions: Expressions, folder: Path, channels: ChannelLists | None = None) -> None:
        """Without `channels` Nix makes every list."""
        self._expressions = expressions
        self._folder = folder
        self._channels = channels
        self._lists: TLRUCache[str, _Kept] = TLRUCache(_LISTS, lambda _key, kept, now: now + kept.seconds)
        self._unlisted: TTLCache[str, str] = TTLCache(_MOST_UNLISTED, _UNLISTED_SECONDS)  # and why
        self._flights: SingleFlight[str, NameIndex] = SingleFlight()

    async def index(self, package_set: PackageSet) -> NameIndex:
        """Every attribute name of this revision, in their order (shape: `nix/names.nix`). Raises `EvaluationFailed`.

        A channel's own list is that of its newest revision. It is fetched anew after a day, as soon as the channel answers.
        """
        if package_set.listing and self._channels is not None:
            with suppress(PackageSetUnavailable):
                return await self._of_channel(self._channels, package_set.listing)
        key = self._key(package_set)
        if (failure := self._unlisted.get(key)) is not None:
            raise EvaluationFailed(failure)
        index = self._recall(f"facts-{key}") or self._recall(f"names-{key}")
        return index or await self._flights.run(
            f"names-{key}", lambda: self._read_or_list(f"names-{key}", package_set)
        )

    async def index_soon(self, package_set: PackageSet) -> NameIndex:
        """The index, if it is there within a moment, else an empty one. The listing goes on for the next question."""
        try:
            return await asyncio.wait_for(self.index(package_set), SOON)
        except TimeoutError:
            return NO_NAMES
        except NixfrontError as error:  # the names only improve another error's message
            _log.warning("no list of names set=%s error=%s", package_set.name, error)
            return NO_NAMES

    async def facts_soon(self, package_set: PackageSet, patience: float = SOON) -> NameIndex:
        """The index, with what the packages say of themselves if that is read within `patience`. Raises as `index` does.

        The reading goes on for the next question. A set that Nix cannot read has names alone.
        """
        index = await self.index(package_set)
        if index.has_facts:
            return index
        key = f"facts-{self._key(package_set)}"
        with suppress(TimeoutError):
            flight = self._flights.run(key, lambda: self._read_or_describe(key, package_set, index))
            return await asyncio.wait_for(flight, patience)
        return index

    async def close(self) -> None:
        """Stop listing names."""
        await self._flights.close()

    def _key(self, package_set: PackageSet) -> str:
        """The key of this revision, for the system of the evaluator."""
        parts = [package_set.name, package_set.source, package_set.revision, self._expressions.system]
        return sha256_hex(canonical_json(parts))[:32]

    async def _of_channel(self, channels: ChannelLists, address: str) -> NameIndex:
        """The list at this address. Raises `PackageSetUnavailable`."""
        key = f"channel-{sha256_hex(address.encode())[:32]}"
        if (failure := self._unlisted.get(key)) is not None:
            raise PackageSetUnavailable(failure)
        return self._recall(key) or await self._flights.run(
            key, lambda: self._read_or_fetch(channels, address, key)
        )

    async def _read_or_fetch(self, channels: ChannelLists, address: str, key: str) -> NameIndex:
        file = self._file(key)
        index = await asyncio.to_thread(name_file.read, file)
        if index is not None and (age := await asyncio.to_thread(_age, file)) < _LIST_SECONDS:
            return await self._keep(key, index, _LIST_SECONDS - age)
        try:
            return await self._keep(key, await channels.fetch(address, file))
        except PackageSetUnavailable as error:
            _log.warning("no list of a channel error=%s", error)
            if index is None:
                self._unlisted[key] = str(error)
                raise
            return await self._keep(key, index, _UNLISTED_SECONDS)

    async def _read_or_list(self, key: str, package_set: PackageSet) -> NameIndex:
        file = self._file(key)
        index = await asyncio.to_thread(name_file.read, file)
        if index is None:
            try:
                names = await self._list(package_set)
            except EvaluationFailed as error:
                self._unlisted[self._key(package_set)] = str(error)
                raise
            index = await asyncio.to_thread(name_file.write, file, map(PackageFacts, names))
        return await self._keep(key, index)

    async def _read_or_describe(self, key: str, package_set: PackageSet, index: NameIndex) -> NameIndex:
        file = self._file(key)
        described = await asyncio.to_thread(name_file.read, file)
        if described is None:
            try:
                facts = await self._look("facts", package_set)
            except NixfrontError as error:  # a list of names does without them
                _log.warning("no descriptions set=%s error=%s", package_set.name, error)
                return await self._keep(key, index)
            described = await asyncio.to_thread(
                name_file.write, file, (_facts(name, facts.get(name)) for name in index)
            )
        return await self._keep(key, described)

    def _recall(self, key: str) -> NameIndex | None:
        kept = self._lists.get(key)
        return None if kept is None else kept.index

    async def _keep(self, key: str, index: NameIndex, seconds: float = _LIST_SECONDS) -> NameIndex:
        self._lists[key] = _Kept(index, seconds)
        pattern = f"{key.partition('-')[0]}-*.tsv"
        await asyncio.to_thread(keep_newest, self._folder, pattern, _FILES)
        return index

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.tsv"

    async def _look(self, look: str, package_set: PackageSet) -> Mapping[str, Any]:
        """What `nix/names.nix` answers. Raises `ProcessFailed`."""
        question = {**self._expressions.question(package_set), "look": look}
        output = await self._expressions.evaluate("names.nix", package_set, question)
        return await asyncio.to_thread(lambda: dict(members(_texts(output))))

    async def _list(self, package_set: PackageSet) -> list[str]:
        with suppress(ProcessFailed):
            return list(await self._look("all", package_set))
        try:
            names = list(await self._look("none", package_set))
        except ProcessFailed as error:
            reason = last_lines(error.tail)
            raise EvaluationFailed(f"Nix cannot list package set {package_set.name}: {reason}") from error
        for name in [name for name in names if _SET_OF_PACKAGES.fullmatch(name)][:_LISTED_SETS]:
            with suppress(ProcessFailed):  # the set that aborts, or another like it
                names += await self._look(name, package_set)
        return names


def _texts(output: bytes) -> Iterator[str]:
    """What Nix prints, piece by piece. Texts of a package set may hold bytes that are no UTF-8."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    return (decode(output[start : start + _PIECE]) for start in range(0, len(output), _PIECE))


def _facts(name: str, fields: Any) -> PackageFacts:
    """The facts in an answer of `nix/names.nix`; None where it says nothing."""
    version, description, license_name, program = fields or ("", "", "", "")
    return PackageFacts(name, version, description, license_name, program)


def _age(file: Path) -> float:
    """Seconds since the file was written, by a clock that may have been put back since."""
    return max(0.0, time.time() - file.stat().st_mtime)
