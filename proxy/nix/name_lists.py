"""The attribute names of package sets, for search and suggestions, and what packages say of themselves.

Each revision has a file for either; a list costs Nix many seconds.
"""

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cachetools import LRUCache, TTLCache

from proxy.core.errors import EvaluationFailed, NixfrontError, ProcessFailed
from proxy.core.model import PackageSet, canonical_json, sha256_hex
from proxy.nix.output import last_lines, read_json
from proxy.nix.runner import Expressions
from proxy.tools.files import keep_newest, write_whole
from proxy.tools.flight import SingleFlight

_log = logging.getLogger(__name__)
_NAME_LISTS = 8  # lists of names in memory
_DESCRIPTIONS = 2  # revisions of which the descriptions are in memory
_NAME_FILES = 64  # lists of names on disk, of up to some megabytes each
_SUGGESTION_SECONDS = 2.0  # how long an error message waits for better suggestions
_UNLISTED_SECONDS = 600.0  # for so long nixfront does not try again to list a set that Nix could not list
_SET_OF_PACKAGES = re.compile(r".*Packages")
_LISTED_SETS = 100  # how many sets are listed one by one, where Nix cannot list them together


class NameLists:
    """The lists of names, in memory and in `folder`."""

    def __init__(self, expressions: Expressions, folder: Path) -> None:
        self._expressions = expressions
        self._folder = folder
        self._name_lists: LRUCache[str, tuple[str, ...]] = LRUCache(_NAME_LISTS)
        self._unlisted: TTLCache[str, str] = TTLCache(
            _NAME_LISTS, _UNLISTED_SECONDS
        )  # why Nix cannot list a set
        self._listing: SingleFlight[str, tuple[str, ...]] = SingleFlight()
        self._descriptions: LRUCache[str, Mapping[str, str]] = LRUCache(_DESCRIPTIONS)
        self._describing: SingleFlight[str, Mapping[str, str]] = SingleFlight()

    async def names(self, package_set: PackageSet) -> tuple[str, ...]:
        """Every attribute name of this revision, sorted (shape: `nix/names.nix`). Raises `EvaluationFailed`."""
        key = self._key(package_set)
        if (failure := self._unlisted.get(key)) is not None:
            raise EvaluationFailed(failure)
        names = self._name_lists.get(key)
        return names or await self._listing.run(key, lambda: self._read_or_list(key, package_set))

    async def names_soon(self, package_set: PackageSet) -> Sequence[str]:
        """The names, if Nix lists them within a moment, else nothing. The listing goes on for the next question."""
        try:
            return await asyncio.wait_for(self.names(package_set), _SUGGESTION_SECONDS)
        except TimeoutError:
            return ()
        except NixfrontError as error:  # the names only improve another error's message
            _log.warning("no list of names set=%s error=%s", package_set.name, error)
            return ()

    async def descriptions_soon(self, package_set: PackageSet) -> Mapping[str, str]:
        """What the packages say of themselves, by name, if Nix reads it within a moment, else nothing.

        The reading goes on for the next question. A set that Nix cannot read has no descriptions.
        """
        key = self._key(package_set)
        if (texts := self._descriptions.get(key)) is not None:
            return texts
        with suppress(TimeoutError):
            flight = self._describing.run(key, lambda: self._read_or_describe(key, package_set))
            return await asyncio.wait_for(flight, _SUGGESTION_SECONDS)
        return {}

    async def close(self) -> None:
        """Stop listing names."""
        await self._listing.close()
        await self._describing.close()

    def _key(self, package_set: PackageSet) -> str:
        """The key of this revision, for the system of the evaluator."""
        parts = [package_set.name, package_set.source, package_set.revision, self._expressions.system]
        return sha256_hex(canonical_json(parts))

    async def _read_or_describe(self, key: str, package_set: PackageSet) -> Mapping[str, str]:
        file = self._folder / f"descriptions-{key[:32]}.json"
        texts = await asyncio.to_thread(_read_texts, file)
        if texts is None:
            question = {**self._expressions.question(package_set), "look": "descriptions"}
            try:
                output = await self._expressions.evaluate("names.nix", package_set, question)
                texts = dict(await asyncio.to_thread(read_json, output))
                await asyncio.to_thread(write_whole, file, canonical_json(texts))
                await asyncio.to_thread(keep_newest, self._folder, "descriptions-*.json", _NAME_FILES)
            except NixfrontError as error:  # a list of names does without them
                _log.warning("no descriptions set=%s error=%s", package_set.name, error)
                texts = {}
        self._descriptions[key] = texts
        return texts

    async def _read_or_list(self, key: str, package_set: PackageSet) -> tuple[str, ...]:
        file = self._folder / f"names-{key[:32]}.json"
        names = await asyncio.to_thread(_read, file)
        if names is None:
            try:
                names = tuple(sorted(await self._list(package_set)))
            except EvaluationFailed as error:
                self._unlisted[key] = str(error)
                raise
            await asyncio.to_thread(write_whole, file, canonical_json(list(names)))
            await asyncio.to_thread(keep_newest, self._folder, "names-*.json", _NAME_FILES)
        self._name_lists[key] = names
        return names

    async def _list(self, package_set: PackageSet) -> list[str]:
        question = self._expressions.question(package_set)

        async def listed(look: str) -> list[str]:
            output = await self._expressions.evaluate("names.nix", package_set, {**question, "look": look})
            return [str(name) for name in await asyncio.to_thread(read_json, output)]

        with suppress(ProcessFailed):
            return await listed("all")
        try:
            names = await listed("none")
        except ProcessFailed as error:
            reason = last_lines(error.tail)
            raise EvaluationFailed(f"Nix cannot list package set {package_set.name}: {reason}") from error
        for name in [name for name in names if _SET_OF_PACKAGES.fullmatch(name)][:_LISTED_SETS]:
            with suppress(ProcessFailed):  # the set that aborts, or another like it
                names += await listed(name)
        return names


def _read(file: Path) -> tuple[str, ...] | None:
    """The names in a file; None where it has no list of names."""
    try:
        names = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _read_texts(file: Path) -> dict[str, str] | None:
    """The descriptions in a file; None where it has none."""
    try:
        texts = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        return None
    return texts
