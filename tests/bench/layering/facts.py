"""A package set as the laboratory sees it: sizes and references alone; and what it looks like a revision later."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

from proxy.core.model import PathInfo, sha256_hex
from tests.bench.big_set import BigSet

#: What is in every image, and what `shell` stands for.
ALWAYS = ("cacert", "iana-etc")
SHELL = ("bashInteractive", "coreutils", "moreutils", "nano")
_LIBRARY = 5  # so many dependents at least
_OTHERS = 3  # so many packages more get a new version


@dataclass(frozen=True, slots=True)
class Image:
    """The closure of a request, sorted by path, and the paths that were asked for."""

    paths: tuple[PathInfo, ...]
    roots: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(info.nar_size for info in self.paths)


@dataclass(frozen=True)
class Facts:
    """`paths` by store path, `attributes`: the store path of each."""

    paths: Mapping[str, PathInfo]
    attributes: Mapping[str, str]

    def image(self, attributes: Iterable[str]) -> Image:
        """What an image of these packages holds, with what is in every image."""
        roots = tuple(dict.fromkeys(self.attributes[name] for name in (*attributes, *ALWAYS)))
        found = self.closure(roots)
        return Image(tuple(self.paths[path] for path in sorted(found)), roots)

    def closure(self, roots: Iterable[str]) -> frozenset[str]:
        return frozenset().union(*(self._closures[root] for root in roots))

    @cached_property
    def _closures(self) -> dict[str, frozenset[str]]:
        return {path: frozenset(_reached(path, self.paths)) for path in self.paths}

    @cached_property
    def dependents(self) -> dict[str, frozenset[str]]:
        """For each path, those that have it in their closure, itself among them."""
        found: dict[str, set[str]] = {path: set() for path in self.paths}
        for path, closure in self._closures.items():
            for needed in closure:
                found[needed].add(path)
        return {path: frozenset(some) for path, some in found.items()}

    @property
    def leaves(self) -> list[str]:
        """The packages that nothing else of the set needs, sorted."""
        asked = set(self.attributes.values())
        return sorted(path for path in asked if self.dependents[path] == {path})

    def single_images(self) -> list[frozenset[str]]:
        """The store paths of the image of each package alone."""
        return [
            self.closure([path, *map(self.attributes.__getitem__, ALWAYS)])
            for path in self.attributes.values()
        ]

    def updated(self, changed: Iterable[str], random: Random) -> "Facts":
        """The set once these paths have new versions, of about the same size: they and all that need them are new."""
        versions = set(changed)
        moved = set().union(*(self.dependents[path] for path in versions))
        names = {path: _renamed(path, path in versions, path in moved) for path in sorted(self.paths)}
        sizes = {path: self.paths[path].nar_size for path in names}
        for path in sorted(versions):
            sizes[path] = round(sizes[path] * random.uniform(0.97, 1.03))
        infos = [
            PathInfo(
                names[path], sizes[path], tuple(sorted(names[ref] for ref in self.paths[path].references))
            )
            for path in names
        ]
        attributes = {name: names[path] for name, path in self.attributes.items()}
        return replace(self, paths={info.path: info for info in infos}, attributes=attributes)

    def second_revision(self, random: Random) -> "Facts":
        """The set after some packages, a leaf and a library among them, got new versions."""
        libraries = [
            path
            for path in sorted(self.paths)
            if _LIBRARY <= len(self.dependents[path]) < len(self.paths) / 4
        ]
        others = random.sample(sorted(self.paths), _OTHERS)
        rare = [path for path in others if len(self.dependents[path]) < len(self.paths) / 4]
        return self.updated([random.choice(self.leaves), random.choice(libraries), *rare], random)


def of(big: BigSet) -> Facts:
    """The facts of the realised set."""
    paths = {info.path: info for closure in big.closures.values() for info in closure.paths}
    outputs = {name: package.outputs[0][1] for name, package in big.packages.items()}
    return Facts(dict(sorted(paths.items())), dict(sorted(outputs.items())))


def _reached(start: str, paths: Mapping[str, PathInfo]) -> set[str]:
    found, pending = {start}, [start]
    while pending:
        new = [ref for ref in paths[pending.pop()].references if ref not in found]
        found.update(new)
        pending += new
    return found


def _renamed(path: str, version: bool, moved: bool) -> str:
    if not moved:
        return path
    name = path.rpartition("/")[2].partition("-")[2] + (".1" if version else "")
    return f"/nix/store/{sha256_hex(path.encode())[:32]}-{name}"


def requests(facts: Facts, seed: int, count: int = 240, draw: int = 0) -> Sequence[tuple[str, ...]]:
    """What people ask for: 1 to 6 packages each, few of them often and most rarely (by Zipf's law), some with `shell`.

    Another `draw` of the same seed has other requests, but what is often asked for stays the same.
    """
    random = Random(seed)
    names = sorted(set(facts.attributes) - {*SHELL, *ALWAYS})
    random.shuffle(names)
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    random = Random(f"{seed} {draw}")
    asked = []
    for _ in range(count):
        number = random.choices(range(1, 7), (30, 25, 18, 12, 9, 6))[0]
        chosen: dict[str, None] = {}
        while len(chosen) < number:
            chosen.update(dict.fromkeys(random.choices(names, weights)))
        asked.append((*(SHELL if random.random() < 0.3 else ()), *chosen))
    return asked
