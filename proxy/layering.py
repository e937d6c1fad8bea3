"""Closure -> layers. A pure function with a total order: same closure, same plan; no IO, no clock, no set order.

Why it is as it is. Two images share a layer only if the layer holds the same paths in both, so where a path goes
must not depend on what else was asked for. While the closure fits the budget, every path is a layer of its own:
the ceiling of sharing. Above it, large paths keep their own layer, and the small ones are gathered in a fixed number
of buckets; the bucket of a path is a hash of its package name *without* hash and version. A further small path in
another image therefore changes one bucket, not all, and a new version stays in the bucket of the old.
"Large" is a power of two, so that images of about the same size agree on it.

Layers come in one global order: paths that need little first (libc before git), so that images agree on a common
beginning as far as they can; dockerd keys a layer by the whole chain before it.
"""

import re
from collections.abc import Sequence

from proxy.model import Closure, LayerPlan, PathInfo, sha256_hex

_BUCKETS = 24
_VERSION = re.compile(r"-[0-9].*$")


def plan(closure: Closure, budget: int) -> tuple[LayerPlan, ...]:
    """The layers of the closure's paths in their final order, at most `budget` of them, each path in exactly one."""
    depth = _depths(closure.paths)
    ordered = sorted(closure.paths, key=lambda info: (depth[info.path], info.path))
    if len(ordered) <= budget:
        return tuple(LayerPlan((info.path,)) for info in ordered)

    buckets = max(1, min(_BUCKETS, budget // 2))
    threshold = _threshold([info.nar_size for info in ordered], budget - buckets)
    gathered: list[list[str]] = [[] for _ in range(buckets)]
    alone: list[LayerPlan] = []
    for info in ordered:
        if info.nar_size >= threshold:
            alone.append(LayerPlan((info.path,)))
        else:
            gathered[_bucket(info.path, buckets)].append(info.path)
    return tuple(alone) + tuple(LayerPlan(tuple(sorted(paths))) for paths in gathered if paths)


def package_name(path: str) -> str:
    """The part of a store path that outlives a new version: `/nix/store/<hash>-git-2.39.5-doc` -> `git`."""
    name = path.rpartition("/")[2].partition("-")[2]
    return _VERSION.sub("", name)


def _bucket(path: str, buckets: int) -> int:
    return int(sha256_hex(package_name(path).encode())[:8], 16) % buckets


def _threshold(sizes: Sequence[int], most: int) -> int:
    """The smallest power of two that at most `most` of the sizes reach, in bytes."""
    threshold = 1
    while sum(size >= threshold for size in sizes) > most:
        threshold *= 2
    return threshold


def _depths(paths: Sequence[PathInfo]) -> dict[str, int]:
    """How many paths each path needs, itself included: a fact of the path alone, equal in every image."""
    index = {info.path: number for number, info in enumerate(paths)}
    references = {info.path: info.references for info in paths}
    reach: dict[str, int] = {}  # a set of paths, as the bits of an integer
    for start in index:
        stack = [start]
        while stack:
            path = stack[-1]
            if path in reach:
                stack.pop()
                continue
            missing = [ref for ref in references[path] if ref not in reach]
            if missing:
                stack.extend(missing)
                continue
            bits = 1 << index[path]
            for ref in references[path]:
                bits |= reach[ref]
            reach[path] = bits
            stack.pop()
    return {path: bits.bit_count() for path, bits in reach.items()}
