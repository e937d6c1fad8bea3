"""Turn "which image needs which store paths" into the table of groups that layers follow (`image.layer_table`).

Paths that exactly the same images need are a *cohort*. An image holds a cohort whole or not at all, so the registry never
stores a layer of it twice. But plain cohorts make many small layers, and some that are too large, since a new version of one
path replaces its whole layer. Hence:

- A large path is a group of its own.
- A small group merges with a group that contains it (every image that needs one needs the other too), if the two are
  nearly always together. An image then holds the whole group, or the one part that all other images have. So the cost of a
  merger is clear beforehand: the registry stores that part once more. The pairs with the least cost for their benefit merge
  first, until a small share of all bytes is spent. "Nearly always", because a layer with two variants also splits
  dockerd's chains of the layers after it.

Pure: no IO and no clock. Every order is total, so equal facts make equal bytes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from proxy.image.layer_table import LayerTable, names_of

_LARGE = 8 << 20  # bytes
_SMALL = 256 << 10  # bytes
_TOGETHER = 0.9  # a merger needs this share of images with one group to have the other too
_BUDGET = 0.01  # the share of all bytes that mergers may make the registry store twice


class _Group:
    """Paths, and their bytes by the set of images that needs them. A set is the bits of an integer; the widest is first."""

    def __init__(self, paths: Sequence[str], parts: Mapping[int, int]) -> None:
        self.paths = tuple(sorted(paths))
        self.parts = dict(sorted(parts.items(), key=lambda part: (-part[0].bit_count(), part[0])))
        self.sets = tuple(self.parts)
        self.bytes = sum(parts.values())
        self.most, self.least = self.sets[0].bit_count(), self.sets[-1].bit_count()

    @property
    def stored(self) -> int:
        """The bytes of all variants in the registry: the widest part, that one with the next, and so on."""
        total = variant = 0
        for part in self.parts.values():
            variant += part
            total += variant
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
    """The table for these images, each the store paths that one package alone brings into an image.

    `sizes`: the bytes of every path. `source`: tells people where the table comes from.
    """
    needed: dict[str, int] = defaultdict(int)
    for number, paths in enumerate(sorted(map(sorted, images))):
        for path in paths:
            needed[path] |= 1 << number
    groups = _merge(_cohorts(needed, sizes), _BUDGET * sum(sizes[path] for path in needed))
    numbers = {path: number for number, group in enumerate(groups) for path in group.paths}
    return LayerTable(_by_name(needed, numbers), source)


def _cohorts(needed: Mapping[str, int], sizes: Mapping[str, int]) -> list[_Group]:
    """Cohorts, with each large path in a group of its own."""
    cohorts: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path, images in needed.items():
        cohorts[images, path if sizes[path] >= _LARGE else ""].append(path)
    return [
        _Group(paths, {images: sum(sizes[path] for path in paths)}) for (images, _), paths in cohorts.items()
    ]


def _merge(groups: Sequence[_Group], budget: float) -> list[_Group]:
    """The groups after all mergers that are allowed and that the `budget`, in bytes, pays for."""
    current = {group.paths: group for group in groups}
    while True:
        gone: set[tuple[str, ...]] = set()
        for _, cost, one, other in sorted(_mergers(current)):
            if cost <= budget and one not in gone and other not in gone:
                budget -= cost
                gone |= {one, other}
                both = current.pop(one).with_(current.pop(other))
                current[both.paths] = both
        if not gone:
            return sorted(current.values(), key=lambda group: (-group.most, group.paths))


def _mergers(
    groups: Mapping[tuple[str, ...], _Group],
) -> Iterator[tuple[tuple[float, int], int, tuple[str, ...], tuple[str, ...]]]:
    """Pairs that may merge: (rank, cost in bytes, the paths of one, the paths of the other)."""
    by_image: dict[int, list[_Group]] = defaultdict(list)
    for group in groups.values():
        for image in _bits(group.sets[0]):
            by_image[image].append(group)
    for inner in groups.values():
        # Every image with `inner` has the groups that contain it, so the image with the fewest groups has all candidates.
        image = min(_bits(inner.sets[-1]), key=lambda image: (len(by_image[image]), image))
        for outer in by_image[image]:
            if outer is inner or outer.sets[-1] & inner.sets[-1] != inner.sets[-1]:
                continue
            if outer.sets[-1] == inner.sets[-1] and outer.paths > inner.paths:
                continue  # the loop meets this pair from the other side too
            if min(inner.bytes, outer.bytes) > _SMALL:
                continue
            if min(inner.least, outer.least) < _TOGETHER * max(inner.most, outer.most):
                continue
            both = inner.with_(outer)
            if both.nested:
                cost = both.stored - inner.stored - outer.stored
                yield (cost / inner.least, both.bytes), cost, inner.paths, outer.paths


def _by_name(needed: Mapping[str, int], numbers: Mapping[str, int]) -> dict[str, int]:
    """The number of each group by name: the widest name that separates its paths from those of other groups.

    The path that most images need chooses first.
    """
    by_name: dict[str, int] = {}
    claims: dict[str, set[int]] = defaultdict(set)
    for path in needed:
        for key in names_of(path):
            claims[key].add(numbers[path])
    ordered = sorted(needed, key=lambda path: (-needed[path].bit_count(), path.partition("-")[2], path))
    for path in ordered:
        by_name.setdefault(names_of(path)[-1], numbers[path])
    for path in ordered:
        if LayerTable(by_name).group(path) != numbers[path]:
            own = [key for key in names_of(path) if claims[key] == {numbers[path]}]
            if own:  # else two paths have the very same name, and they stay in one group
                by_name[own[-1]] = numbers[path]
    return by_name


def _bits(value: int) -> Iterator[int]:
    """The positions of the one bits, lowest first."""
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1
        value ^= lowest
