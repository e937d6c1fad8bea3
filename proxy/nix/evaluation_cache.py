"""What evaluations said before: the packages of a revision, and the names at its levels. A revision never changes.

A level is a set of attributes inside a package set: "" is the package set itself, `python3Packages` a set in it. Levels say
which names the set lacks; without them each wrong name would cost an evaluation.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache, TTLCache

from proxy.core.names import attribute_path
from proxy.tools.name_index import NO_NAMES, NameIndex

_PACKAGES = 10_000  # packages in the cache, of about a kilobyte each
_MOST_NAMES = 200_000  # in all levels together, of about 200 bytes each
_MOST_LEVELS = 64
_MOST_PREFIXES = 4096
_IMAGE_FILES = 64  # lists of named images, of one file and revision each
_IMAGE_SECONDS = 30.0


#: One result of `nix/default.nix`, of the kind `package`; None for an optional attribute that the set lacks.
Result = Mapping[str, Any] | None


class PackageCache:
    """Results of evaluations, by question (set, system, policy and kind of attribute, as JSON) and name as typed."""

    def __init__(self, most: int = _PACKAGES) -> None:
        self._results: LRUCache[tuple[bytes, str], Result] = LRUCache(most)

    def recall(self, question: bytes, names: Iterable[str]) -> dict[str, Result]:
        """The results of those names that the cache has."""
        return {name: self._results[question, name] for name in names if (question, name) in self._results}

    def store(
        self, question: bytes, results: Sequence[Mapping[str, Any]], optional: Iterable[str] = ()
    ) -> None:
        """Keep the packages among these results, and which of the `optional` names the set lacks."""
        by_name = {result["typed"]: result for result in results}
        for name in optional:
            self._results[question, name] = by_name.get(name)
        for name, result in by_name.items():
            if result["kind"] == "package":
                self._results[question, name] = result

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()


@dataclass(frozen=True, slots=True)
class Level:
    """The attributes of one level. Making one of a hundred thousand names takes a while, so it is made in a thread."""

    index: NameIndex
    folded: frozenset[str]

    @classmethod
    def of(cls, names: Sequence[str]) -> "Level":
        """The level of these names; `folded` has them in lowercase."""
        return cls(NameIndex(names), frozenset(map(_folded, names)))

    def matches(self, part: str) -> bool:
        """Whether a part of a name may mean one of the attributes, as in `nix/resolve.nix`."""
        written = [part, f"_{part}"] if part[:1].isdigit() else [part]
        return any(_folded(text) in self.folded for text in written)


class Levels:
    """The levels that evaluations shipped, by question (set, system, policy) and attribute; the oldest give way."""

    def __init__(self, most_names: int = _MOST_NAMES) -> None:
        self._levels: LRUCache[tuple[bytes, str], Level] = LRUCache(most_names, getsizeof=_size)
        # The attribute that the parts in front of a wrong name mean.
        self._attributes: LRUCache[tuple[bytes, tuple[str, ...]], str] = LRUCache(_MOST_PREFIXES)

    def store(
        self, question: bytes, levels: Mapping[str, Level], results: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Keep these levels, by attribute, and the attributes that these results name.

        A level that is too large for the cache is not kept.
        """
        for result in results:
            if result["kind"] == "missing":
                front = attribute_path(result["typed"])[: result["depth"]]
                self._attributes[question, front] = result["at"]
        for at, level in levels.items():
            if _size(level) <= self._levels.maxsize:
                self._levels[question, at] = level

    def listed(self, question: bytes) -> list[str]:
        """The attributes of the levels that the cache has for this question."""
        return [at for key, at in self._levels if key == question]

    def names(self, question: bytes, at: str) -> NameIndex:
        """The attributes of a level; empty if the cache lacks it."""
        level = self._levels.get((question, at))
        return level.index if level else NO_NAMES

    def missing(self, question: bytes, typed: str) -> Mapping[str, Any] | None:
        """A result of kind `missing` for a name that the set certainly lacks; None where only Nix can say."""
        parts = attribute_path(typed)
        for depth in reversed(range(len(parts))):
            at = self._attributes.get((question, parts[:depth])) if depth else ""
            level = self._levels.get((question, at)) if at is not None else None
            if level is not None:
                fits = level.matches(parts[depth])
                return None if fits else {"kind": "missing", "typed": typed, "at": at, "part": parts[depth]}
        return None


class ImageNames:
    """The names of the images in a file, by question about the file; for a short time, as the file may change."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._levels: TTLCache[bytes, Level] = TTLCache(_IMAGE_FILES, _IMAGE_SECONDS, timer)

    def store(self, question: bytes, names: Sequence[str]) -> None:
        """Keep all names of a file."""
        self._levels[question] = Level.of(names)

    def missing(self, question: bytes, typed: str) -> Mapping[str, Any] | None:
        """A result of kind `missing` for an image that the file lacks; None where only Nix can say."""
        level = self._levels.get(question)
        if level is None or level.matches(typed):
            return None
        return {"kind": "missing", "part": typed, "names": list(level.index)}


def _size(level: Level) -> float:
    """In names; no level is smaller than its share of the most levels."""
    return max(len(level.index), _MOST_NAMES // _MOST_LEVELS)


def _folded(name: str) -> str:
    """In lowercase as `nix/resolve.nix` writes it: the letters of ASCII alone."""
    return name.lower() if name.isascii() else "".join(c.lower() if c.isascii() else c for c in name)
