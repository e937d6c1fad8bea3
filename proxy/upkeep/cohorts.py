"""Which packages need which store paths -> the table of groups that layers follow (`popularity`).

The paths that exactly the same packages need are a *cohort*: whatever an image asks for, it holds a cohort whole or
not at all, so a layer of it is never stored twice. Cohorts as they are make many small layers, though, and some
that are too large: a new version of one path moves its whole layer. Hence:

- A large path is a group of its own, whatever its cohort.
- A small group is merged with one that it is nested in (whoever needs the one needs the other too), if the two are
  nearly always together. An image then holds the whole or the one part that is the same for all who have not the
  whole, and no third thing, so what a merger can cost is known beforehand: that part, stored once more. Pairs that
  cost least for what they save are merged first, until a small share of all bytes is spent. Nearly always, because
  a layer that comes in two kinds also splits dockerd's chains that go on after it.

Pure: no IO, no clock; every order is total, so equal facts make equal bytes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from proxy.image.layer_table import LayerTable, names_of

_LARGE = 8 << 20  # bytes
_SMALL = 256 << 10  # bytes
_TOGETHER = 0.9  # of the images of the one, as many have the other too
_SPENT = 0.01  # of all bytes, at most so many are stored twice for mergers


class _Group:
    """Paths, and the bytes of them by who needs them: a set of images as the bits of an integer, widest first."""

    def __init__(self, paths: Sequence[str], parts: Mapping[int, int]) -> None:
        self.paths = tuple(sorted(paths))
        self.parts = dict(sorted(parts.items(), key=lambda part: (-part[0].bit_count(), part[0])))
        self.sets = tuple(self.parts)
        self.bytes = sum(parts.values())
        self.most, self.least = self.sets[0].bit_count(), self.sets[-1].bit_count()

    @property
    def stored(self) -> int:
        """The bytes of all that images can hold of it: the widest part, that and the next, and so on."""
        total = held = 0
        for part in self.parts.values():
            held += part
            total += held
        return total

    @property
    def nested(self) -> bool:
        return all(inner & outer == inner for outer, inner in zip(self.sets, self.sets[1:], strict=False))

    def with_(self, other: "_Group") -> "_Group":
        parts = dict(self.parts)
        for images, size in other.parts.items():
            parts[images] = parts.get(images, 0) + size
        return _Group((*self.paths, *other.paths), parts)


def table(images: Sequence[Collection[str]], sizes: Mapping[str, int], source: str) -> LayerTable:
    """The table of a set. `images`: the store paths that each of its packages, alone, would bring into an image.

    `sizes`: in bytes, of every path in them; `source`: what to tell people about where it is from.
    """
    needed: dict[str, int] = defaultdict(int)
    for number, paths in enumerate(sorted(map(sorted, images))):
        for path in paths:
            needed[path] |= 1 << number
    groups = _merged(_first(needed, sizes), _SPENT * sum(sizes[path] for path in needed))
    numbers = {path: number for number, group in enumerate(groups) for path in group.paths}
    return LayerTable(_named(needed, numbers), source)


def _first(needed: Mapping[str, int], sizes: Mapping[str, int]) -> list[_Group]:
    """Cohorts, and large paths alone."""
    cohorts: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path, images in needed.items():
        cohorts[images, path if sizes[path] >= _LARGE else ""].append(path)
    return [
        _Group(paths, {images: sum(sizes[path] for path in paths)}) for (images, _), paths in cohorts.items()
    ]


def _merged(groups: Sequence[_Group], left: float) -> list[_Group]:
    """Groups after all mergers that may be and that `left` bytes pay for, in a total order."""
    current = {group.paths: group for group in groups}
    while True:
        gone: set[tuple[str, ...]] = set()
        for _, cost, one, other in sorted(_mergers(current)):
            if cost <= left and one not in gone and other not in gone:
                left -= cost
                gone |= {one, other}
                both = current.pop(one).with_(current.pop(other))
                current[both.paths] = both
        if not gone:
            return sorted(current.values(), key=lambda group: (-group.most, group.paths))


def _mergers(
    groups: Mapping[tuple[str, ...], _Group],
) -> Iterator[tuple[tuple[float, int], int, tuple[str, ...], tuple[str, ...]]]:
    """Pairs that may be merged: (rank, cost in bytes, the one, the other)."""
    by_image: dict[int, list[_Group]] = defaultdict(list)
    for group in groups.values():
        for image in _bits(group.sets[0]):
            by_image[image].append(group)
    for inner in groups.values():
        # Whoever has `inner` has what it is nested in: one image of it, the emptiest, knows all candidates.
        image = min(_bits(inner.sets[-1]), key=lambda image: (len(by_image[image]), image))
        for outer in by_image[image]:
            if outer is inner or outer.sets[-1] & inner.sets[-1] != inner.sets[-1]:
                continue
            if outer.sets[-1] == inner.sets[-1] and outer.paths > inner.paths:
                continue  # seen from the other side too
            if min(inner.bytes, outer.bytes) > _SMALL:
                continue
            if min(inner.least, outer.least) < _TOGETHER * max(inner.most, outer.most):
                continue
            both = inner.with_(outer)
            if both.nested:
                cost = both.stored - inner.stored - outer.stored
                yield (cost / inner.least, both.bytes), cost, inner.paths, outer.paths


def _named(needed: Mapping[str, int], numbers: Mapping[str, int]) -> dict[str, int]:
    """Groups by the widest name that tells a path from those of other groups; the path that most need goes first."""
    named: dict[str, int] = {}
    wanted: dict[str, set[int]] = defaultdict(set)
    for path in needed:
        for key in names_of(path):
            wanted[key].add(numbers[path])
    ordered = sorted(needed, key=lambda path: (-needed[path].bit_count(), path.partition("-")[2], path))
    for path in ordered:
        named.setdefault(names_of(path)[-1], numbers[path])
    for path in ordered:
        if LayerTable(named).group(path) != numbers[path]:
            own = [key for key in names_of(path) if wanted[key] == {numbers[path]}]
            if own:  # else the very same name stands for two things: they go together
                named[own[-1]] = numbers[path]
    return named


def _bits(value: int) -> Iterator[int]:
    """The places of the ones in a number, lowest first."""
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1
        value ^= lowest
