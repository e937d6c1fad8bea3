"""Closure -> layers. A pure function with a total order: same closure and table, same plan; no IO, no clock, no set order.

**Membership.** Two images share a layer only if it holds the same paths in both, so the layer of a path must not
depend on the other packages of the image. A table (`layer_table`) puts names of a package set into groups: paths that the
same packages of the set need come together. A path that is in no group is a layer of its own. If that makes more
layers than the budget allows, the large ones stay as they are ("large" is a power of two, so that images of about the
same size agree on it). The small ones go to a fixed number of buckets by a hash of their group or name, so that one more
of them changes one bucket. While an image keeps to the budget, another package in it changes only the layers of groups
that it brings a path of; a new version of a leaf changes its own group alone.

**Order.** dockerd keys a layer by the whole chain of layers before it: after the first difference it pulls everything
again, whatever it has. So the most bytes have to come before the first difference. The order is a walk of the
references. It takes the path with the largest closure of those that are left, and before each path those that it
needs, again the largest closure first. An image whose largest part is clang then begins with the chain that clang alone
has, that chain begins with the chain of the largest part of clang, and so on; the differences are small and come last.
The size of a closure is a fact of its path, so all images that have the path agree on it, and no table is needed.
Popularity as a further weight brings nothing: the largest packages need the popular ones anyway.

**Results** (`tests/bench/layering`: 240 requests to the big demo set of 2.6 GB, medians of five seeds; GB of
layers in the registry / pulled again by a dockerd that pulls all of them in order; layers of an image, median and most):
one layer per path without a budget 2.62 / 28.8, 31, 262; dockerTools' popularity contest 6.73 / 28.8, 31, 99; Nixery's
dominators 12.0 / 18.9, 10, 83; size cohorts 3.41 / 28.4, 31, 99; this layering without a table 2.69 / 5.1, 31, 99, and
with a table 2.63 / 3.6, 19, 65. A new version of a leaf changes one layer, of 22 MB in the mean (20 MB are the leaves).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from heapq import heapify, heappop, heapreplace
from operator import or_

from proxy.core.model import Closure, LayerPlan, PathInfo, sha256_hex
from proxy.image.layer_table import NO_TABLE, LayerTable, names_of

_BUCKETS = 8

#: A layer in the making: a group of the table, or a path that is in no group.
_Unit = int | str


def plan(closure: Closure, budget: int, table: LayerTable = NO_TABLE) -> tuple[LayerPlan, ...]:
    """The layers of the closure's paths in their final order, at most `budget` of them, each path in exactly one."""
    units = _units(_in_order(closure.paths), budget, table)
    return tuple(LayerPlan(tuple(sorted(info.path for info in unit))) for unit in units)


def _units(ordered: Sequence[PathInfo], budget: int, table: LayerTable) -> Iterable[Sequence[PathInfo]]:
    """At most `budget` layers, each at the place of its first path; then the buckets, if the budget needs any."""
    units: dict[_Unit, list[PathInfo]] = {}
    for info in ordered:
        group = table.group(info.path)
        units.setdefault(info.path if group is None else group, []).append(info)
    if len(units) <= budget:
        return units.values()
    buckets = max(1, min(_BUCKETS, budget // 2))
    sizes = {unit: sum(info.nar_size for info in paths) for unit, paths in units.items()}
    threshold = _threshold(list(sizes.values()), budget - buckets)
    small: list[list[PathInfo]] = [[] for _ in range(buckets)]
    for unit, paths in units.items():
        if sizes[unit] < threshold:
            small[_bucket(unit, buckets)].extend(paths)
    large = [paths for unit, paths in units.items() if sizes[unit] >= threshold]
    return large + [bucket for bucket in small if bucket]


def _bucket(unit: _Unit, buckets: int) -> int:
    """The bucket of a unit, the same for later versions of it."""
    name = names_of(unit)[-1] if isinstance(unit, str) else f"group {unit}"
    return int(sha256_hex(name.encode())[:8], 16) % buckets


def _threshold(sizes: Sequence[int], most: int) -> int:
    """The smallest power of two that at most `most` of the sizes reach, in bytes."""
    threshold = 1
    while sum(size >= threshold for size in sizes) > most:
        threshold *= 2
    return threshold


def _in_order(paths: Sequence[PathInfo]) -> list[PathInfo]:
    """The paths, each after those that it needs: the largest closure first, and the same order inside a closure."""
    infos = {info.path: info for info in paths}
    reach, weights = _closures(paths)
    number = {info.path: index for index, info in enumerate(paths)}
    done: dict[str, PathInfo] = {}
    done_bits = 0  # the numbers of the paths in `done`, as bits
    left = [(-weights[path], _name(path)) for path in infos]
    heapify(left)
    while left:
        weight, (name, path) = left[0]
        if path in done:
            heappop(left)
            continue
        rest = sum(paths[index].nar_size for index in _bits(reach[path] & ~done_bits))
        if rest < -weight:  # the rest of a closure only shrinks, so the other paths can wait for their turn
            heapreplace(left, (-rest, (name, path)))
            continue
        for info in _walk(path, infos, weights, done):
            done[info.path] = info
            done_bits |= 1 << number[info.path]
    return list(done.values())


def _walk(
    start: str, infos: Mapping[str, PathInfo], weights: Mapping[str, int], done: Collection[str]
) -> Iterator[PathInfo]:
    """The path and all that it needs, without those in `done`: each after its own needs, the largest closure first."""
    visited: set[str] = set()
    stack = [start]
    while stack:
        path = stack[-1]
        if path in visited or path in done:
            stack.pop()
            if path not in done:
                yield infos[path]
        else:
            visited.add(path)
            needs = [ref for ref in infos[path].references if ref not in visited and ref not in done]
            stack += sorted(sorted(needs, key=_name, reverse=True), key=lambda ref: weights[ref])


def _name(path: str) -> tuple[str, str]:
    """A sort key: the name after the hash comes first, so that a new version mostly keeps its place."""
    return path.rpartition("/")[2].partition("-")[2], path


def _closures(paths: Sequence[PathInfo]) -> tuple[dict[str, int], dict[str, int]]:
    """For each path its closure, as the numbers of paths (bits of an integer), and the closure's size in bytes.

    Both are facts of the path alone, equal in every image.
    """
    number = {info.path: index for index, info in enumerate(paths)}
    infos = {info.path: info for info in paths}
    reach: dict[str, int] = {}
    weights: dict[str, int] = {}
    for start in infos:
        stack = [start]
        while stack:
            path = stack[-1]
            references = infos[path].references
            missing = [ref for ref in references if ref not in reach]
            if path in reach or missing:
                stack.pop() if path in reach else stack.extend(missing)
                continue
            stack.pop()
            largest = max(references, key=lambda ref: weights[ref], default=None)
            bits = reduce(or_, (reach[ref] for ref in references), 0)
            beyond = bits & ~reach[largest] if largest else 0
            reach[path] = bits | 1 << number[path]
            weights[path] = infos[path].nar_size + (weights[largest] if largest else 0)
            weights[path] += sum(paths[index].nar_size for index in _bits(beyond))
    return reach, weights


def _bits(value: int) -> Iterator[int]:
    """The places of the ones in a number, lowest first."""
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1
        value ^= lowest
