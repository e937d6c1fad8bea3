"""Closure -> layers. A pure function with a total order: same closure and table, same plan; no IO, no clock, no set order.

**Membership.** Two images share a layer only if it holds the same paths in both, so where a path goes must not
depend on what else was asked for. A table (`popularity`) says of each name of a package set which group it is in:
paths that the same packages of the set need, and so come together. A path that no table knows is a layer of its
own. Where that makes more layers than the budget has, large ones stay as they are ("large" is a power of two, so that
images of about the same size agree on it), and small ones go to a fixed number of buckets by a hash of their group
or name: one more of them changes one bucket. So while an image keeps to the budget, another package in it moves the layers
of groups that it brings a path of, and no other; a leaf's new version moves its own group alone.

**Order.** dockerd keys a layer by the whole chain of layers before it: after the first difference it pulls everything
again, whatever it has. So the most bytes have to come before the first difference. The order is a walk of the
references that takes, of what is left, the path with the largest closure first, and before each path what it needs,
again the largest closure first. An image whose largest part is clang then begins with the very chain that clang alone
has, that one with the chain of the largest part of clang, and so on; what differs is at the end and small. The
sizes of closures are facts of the paths, so all images that have a path agree on it, and no table is needed.
Weighing by popularity as well was tried and brought nothing: what is popular is needed by the largest anyway.

**What it comes to** (`tests/bench/layering`: 240 requests to the big demo set of 2.6 GB, medians of five seeds; GB of
layers in the registry / pulled again by a dockerd that pulls all of them in order; layers of an image, median and most):
one layer per path without a budget 2.62 / 28.8, 31, 262; dockerTools' popularity contest 6.73 / 28.8, 31, 99; Nixery's
dominators 12.0 / 18.9, 10, 83; size cohorts 3.41 / 28.4, 31, 99; this one without a table 2.69 / 5.1, 31, 99, and
with one 2.63 / 3.6, 19, 65. A leaf's new version moves one layer, of 22 MB in the mean (20 MB are the leaves).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from heapq import heapify, heappop, heapreplace
from operator import or_

from proxy.core.model import Closure, LayerPlan, PathInfo, sha256_hex
from proxy.image.layer_table import NO_TABLE, LayerTable, names_of

_BUCKETS = 8

#: A layer before it is one: a group of the table, or the name of a path that the table does not know.
_Unit = int | str


def plan(closure: Closure, budget: int, table: LayerTable = NO_TABLE) -> tuple[LayerPlan, ...]:
    """The layers of the closure's paths in their final order, at most `budget` of them, each path in exactly one."""
    units = _units(_in_order(closure.paths), budget, table)
    return tuple(LayerPlan(tuple(sorted(info.path for info in unit))) for unit in units)


def _units(ordered: Sequence[PathInfo], budget: int, table: LayerTable) -> Iterable[Sequence[PathInfo]]:
    """At most `budget` layers, each at the place of its first path; then the buckets, where there have to be any."""
    units: dict[_Unit, list[PathInfo]] = {}
    for info in ordered:
        group = table.group(info.path)
        units.setdefault(info.path if group is None else group, []).append(info)
    if len(units) <= budget:
        return units.values()
    buckets = max(1, min(_BUCKETS, budget // 2))
    sizes = {unit: sum(info.nar_size for info in paths) for unit, paths in units.items()}
    threshold = _threshold(list(sizes.values()), budget - buckets)
    gathered: list[list[PathInfo]] = [[] for _ in range(buckets)]
    for unit, paths in units.items():
        if sizes[unit] < threshold:
            gathered[_bucket(unit, buckets)].extend(paths)
    large = [paths for unit, paths in units.items() if sizes[unit] >= threshold]
    return large + [bucket for bucket in gathered if bucket]


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
    """The paths, each after those that it needs: of what is left the largest closure first, and so inside it."""
    infos = {info.path: info for info in paths}
    reach, weights = _closures(paths)
    number = {info.path: index for index, info in enumerate(paths)}
    done: dict[str, PathInfo] = {}
    held = 0  # the numbers of those that are done, as bits
    left = [(-weights[path], _name(path)) for path in infos]
    heapify(left)
    while left:
        weight, (name, path) = left[0]
        if path in done:
            heappop(left)
            continue
        rest = sum(paths[index].nar_size for index in _bits(reach[path] & ~held))
        if rest < -weight:  # what is left of a closure only becomes less: the others may be looked at later
            heapreplace(left, (-rest, (name, path)))
            continue
        for found in _walk(path, infos, weights, done):
            done[found.path] = found
            held |= 1 << number[found.path]
    return list(done.values())


def _walk(
    start: str, infos: Mapping[str, PathInfo], weights: Mapping[str, int], done: Collection[str]
) -> Iterator[PathInfo]:
    """What a path needs that is not done, and the path: each after its own needs, the largest closure first."""
    opened: set[str] = set()
    stack = [start]
    while stack:
        path = stack[-1]
        if path in opened or path in done:
            stack.pop()
            if path not in done:
                yield infos[path]
        else:
            opened.add(path)
            needs = [ref for ref in infos[path].references if ref not in opened and ref not in done]
            stack += sorted(sorted(needs, key=_name, reverse=True), key=lambda ref: weights[ref])


def _name(path: str) -> tuple[str, str]:
    """Orders paths by what is after their hash, so that new versions keep their places as far as they can."""
    return path.rpartition("/")[2].partition("-")[2], path


def _closures(paths: Sequence[PathInfo]) -> tuple[dict[str, int], dict[str, int]]:
    """Of each path, itself and all that it needs: their numbers, as the bits of an integer, and their bytes.

    Facts of the path alone, equal in every image.
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
