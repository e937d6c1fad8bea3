"""How others put store paths into layers, written from what they say about it; and ours.

- One layer for each path, however many: the ceiling of sharing. No engine takes so many layers.
- dockerTools' popularity contest: paths by how often they stand in the tree that the closure unfolds to, each way to a
  path counted at its depth; the most popular are layers, the last layer is all the rest.
- Nixery's dominators: an edge from the image to all that is popular in the whole set, and to all whose closure is
  above 100 MB; what the image then directly dominates is a layer with all that is beneath it in the tree of
  dominators; layers of the lowest size x popularity are merged, two at a time, until they fit; the highest come first.
  Popular, there, is what at least 100 packages of nixpkgs refer to. How many of this small set that would be is
  anybody's guess, so the threshold is a parameter here.
- Size cohorts, of nixpkgs since 2025 and of nix2container: the largest paths are primaries, one after another; the
  others are grouped by the primaries that need them; as many primaries as the budget of layers allows.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial

from proxy.core.model import Closure
from proxy.image import layering
from proxy.image.layer_table import NO_TABLE, LayerTable
from proxy.upkeep import cohorts
from tests.bench.layering.facts import Facts, Image, requests

BUDGET = 99  # and the root layer
_ROOT = ""

Strategy = Callable[[Image], Sequence[Sequence[str]]]


def one_per_path(image: Image) -> list[list[str]]:
    """In the order of dockerTools, without its budget."""
    return [[path] for path in _contest(image)]


def popularity_contest(image: Image) -> list[list[str]]:
    ordered = _contest(image)
    alone, rest = ordered[: BUDGET - 1], ordered[BUDGET - 1 :]
    return [*([path] for path in alone), *([rest] if rest else [])]


def _contest(image: Image) -> list[str]:
    references = {info.path: info.references for info in image.paths}
    below: dict[str, Counter[str]] = {}

    def count(paths: Sequence[str]) -> Counter[str]:
        score: Counter[str] = Counter()
        for path in paths:
            score[path] += 1
            for needed, times in below[path].items():
                score[needed] += times + 1
        return score

    for path in _needs_first(references):
        below[path] = count(references[path])
    needed = {ref for refs in references.values() for ref in refs}
    scores = count([path for path in references if path not in needed])
    return sorted(references, key=lambda path: (-scores[path], path.partition("-")[2], path))


def _needs_first(references: Mapping[str, Sequence[str]]) -> Iterator[str]:
    done: set[str] = set()
    for start in references:
        stack = [start]
        while stack:
            missing = [ref for ref in references[stack[-1]] if ref not in done]
            if missing:
                stack += missing
            elif (path := stack.pop()) not in done:
                done.add(path)
                yield path


def dominators(facts: Facts, popular: int) -> Strategy:
    """Nixery's; `popular`: so many paths of the set refer to a popular one."""
    referred = Counter(ref for info in facts.paths.values() for ref in info.references)
    return partial(_dominated, {path.partition("-")[2]: times for path, times in referred.items()}, popular)


def _dominated(referred: Mapping[str, int], popular: int, image: Image) -> list[list[str]]:
    sizes = {info.path: info.nar_size for info in image.paths}
    popularity = {path: referred.get(path.partition("-")[2], 1) for path in sizes}
    popularity.update({path: 500_000 for path in sizes if "-nss-cacert-" in path or "-iana-etc-" in path})
    graph: dict[str, set[str]] = {info.path: set(info.references) for info in image.paths}
    closures = _closures({path: sorted(refs) for path, refs in graph.items()})
    graph[_ROOT] = set(image.roots)
    for path in sizes:
        if popularity[path] >= popular or sum(sizes[needed] for needed in closures[path]) > 100_000_000:
            graph[_ROOT].add(path)
    children = defaultdict(list)
    for path, dominator in sorted(_immediate_dominators(graph).items()):
        children[dominator].append(path)
    layers = []
    for top in children[_ROOT]:
        paths = [top]
        for path in paths:  # it grows meanwhile
            paths += children[path]
        layers.append((popularity[top] * sum(sizes[path] for path in paths), sorted(paths)))
    layers.sort()
    while len(layers) > BUDGET:
        (rating, paths), (other, more) = layers[:2]
        layers[:2] = [(rating + other, sorted([*paths, *more]))]
    return [paths for _, paths in sorted(layers, reverse=True)]


def _closures(references: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for path in _needs_first(references):
        found[path] = frozenset([path]).union(*(found[ref] for ref in references[path]))
    return found


def _immediate_dominators(graph: Mapping[str, set[str]]) -> dict[str, str]:
    """Of each vertex but the root: the last that every way from the root leads through (Cooper, Harvey, Kennedy)."""
    order = list(_needs_first({path: sorted(refs) for path, refs in graph.items()}))
    order.reverse()  # from the root on: whatever leads to a vertex comes before it
    rank = {path: number for number, path in enumerate(order)}
    leading = defaultdict(list)
    for path in order:
        for ref in graph[path]:
            leading[ref].append(path)
    found = {_ROOT: _ROOT}
    for path in order:
        for other in sorted(leading[path], key=rank.__getitem__):
            here = found.setdefault(path, other)
            while here != other:
                if rank[here] > rank[other]:
                    here = found[here]
                else:
                    other = found[other]
            found[path] = here
    del found[_ROOT]
    return found


def size_cohorts(image: Image) -> list[list[str]]:
    closures = _closures({info.path: info.references for info in image.paths})
    primaries: dict[str, tuple[str, ...]] = {info.path: () for info in image.paths}
    for info in sorted(image.paths, key=lambda info: (-info.nar_size, info.path)):
        further = dict(primaries)
        for path in closures[info.path]:
            further[path] = (*further[path], info.path)
        if len(set(further.values())) > BUDGET:
            break
        primaries = further
    return _grouped(primaries)


def _grouped(keys: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Paths by their key, what most primaries need first."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for path in sorted(keys, key=lambda path: (-len(keys[path]), keys[path], path)):
        groups[keys[path]].append(path)
    return list(groups.values())


def table_of(facts: Facts) -> LayerTable:
    """The table that `nixfront popularity` makes of the realised set."""
    sizes = {path: info.nar_size for path, info in facts.paths.items()}
    return cohorts.table(facts.single_images(), sizes, "laboratory")


def served_table(facts: Facts, seed: int) -> LayerTable:
    """The table that it makes of images served: those of another draw from the same frequencies."""
    sizes = {path: info.nar_size for path, info in facts.paths.items()}
    served = {
        frozenset(info.path for info in facts.image(names).paths) for names in requests(facts, seed, draw=1)
    }
    return cohorts.table(sorted(served, key=sorted), sizes, "laboratory")


def ours(table: LayerTable = NO_TABLE, budget: int = BUDGET) -> Strategy:
    def strategy(image: Image) -> list[tuple[str, ...]]:
        return [layer.paths for layer in layering.plan(Closure((), image.paths), budget, table)]

    return strategy
