"""Closure -> layers. A pure function with a total order: same closure and table, same plan; no IO, no clock, no set order.

**Membership.** Two images share a layer only if it holds the same paths in both, so where a path goes must not
depend on what else was asked for. A table (`popularity`) says of each name of a package set which group it is in:
paths that the same packages of the set need, and so nearly always come together. A path that no table knows is a
layer of its own. Where that makes more layers than the budget has, the table's coarser levels are tried, each made
of whole groups of the one before; a level depends on the closure's size class alone. What is still too much is gathered:
large units keep their own layer ("large" is a power of two, so that images of about the same size agree on it),
small ones go to a fixed number of buckets by a hash of their name, so that one more changes one bucket.

**Order.** dockerd keys a layer by the whole chain of layers before it: after the first difference it pulls everything
again, whatever it has. So the most bytes have to come before the first difference. The order is a walk of the
graph that takes the path with the largest closure first and, before each path, those that it needs, again the largest
closure first. An image whose largest part is clang then begins with the very chain that clang alone has, that one
with the chain of the largest part of clang, and so on; what differs is at the end and small. The sizes of closures
are facts of the paths, so all images that have a path agree on it, and no table is needed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_

from proxy.model import Closure, LayerPlan, PathInfo, sha256_hex
from proxy.popularity import NO_TABLE, Table, keys

_BUCKETS = 24

#: A layer before it is one: a group of the table, or the name of a path that the table does not know.
_Unit = int | str


def plan(closure: Closure, budget: int, table: Table = NO_TABLE) -> tuple[LayerPlan, ...]:
    """The layers of the closure's paths in their final order, at most `budget` of them, each path in exactly one."""
    units = _units(_in_order(closure.paths), budget, table)
    return tuple(LayerPlan(tuple(sorted(info.path for info in unit))) for unit in units)


def _units(ordered: Sequence[PathInfo], budget: int, table: Table) -> Iterable[Sequence[PathInfo]]:
    """At most `budget` layers, by the finest level that allows it, each at the place of its first path."""
    groups = {info.path: table.group(info.path) for info in ordered}
    units: dict[_Unit, list[PathInfo]] = {}
    for level in range(len(table.levels) + 1):
        units = {}
        for info in ordered:
            group = groups[info.path]
            units.setdefault(info.path if group is None else table.at(level, group), []).append(info)
        if len(units) <= budget:
            return units.values()
    return _gathered(units, budget)


def _gathered(units: Mapping[_Unit, Sequence[PathInfo]], budget: int) -> list[Sequence[PathInfo]]:
    """At most `budget` layers: large units as they are, then small ones, gathered in buckets."""
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
    name = keys(unit)[-1] if isinstance(unit, str) else f"group {unit}"
    return int(sha256_hex(name.encode())[:8], 16) % buckets


def _threshold(sizes: Sequence[int], most: int) -> int:
    """The smallest power of two that at most `most` of the sizes reach, in bytes."""
    threshold = 1
    while sum(size >= threshold for size in sizes) > most:
        threshold *= 2
    return threshold


def _in_order(paths: Sequence[PathInfo]) -> list[PathInfo]:
    """The paths, each after those that it needs; of several, the one with the largest closure first."""
    weights = _closure_sizes(paths)
    infos = {info.path: info for info in paths}

    def heaviest_last(some: Iterable[str]) -> list[str]:
        return sorted(sorted(some, key=_name, reverse=True), key=lambda path: weights[path])

    done: dict[str, PathInfo] = {}
    opened: set[str] = set()
    pending = heaviest_last(infos)
    while pending:
        path = pending[-1]
        if path in opened:
            pending.pop()
            done.setdefault(path, infos[path])
        else:
            opened.add(path)
            pending += heaviest_last(ref for ref in infos[path].references if ref not in opened)
    return list(done.values())


def _name(path: str) -> tuple[str, str]:
    """Orders paths by what is after their hash, so that new versions keep their places as far as they can."""
    return path.rpartition("/")[2].partition("-")[2], path


def _closure_sizes(paths: Sequence[PathInfo]) -> dict[str, int]:
    """The bytes of each path and all that it needs: a fact of the path alone, equal in every image."""
    number = {info.path: index for index, info in enumerate(paths)}
    infos = {info.path: info for info in paths}
    reach: dict[str, int] = {}  # a set of paths, as the bits of an integer
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
    return weights


def _bits(value: int) -> Iterator[int]:
    """The places of the ones in a number, lowest first."""
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1
        value ^= lowest
