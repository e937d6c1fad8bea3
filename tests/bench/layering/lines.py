"""The lines `layering/*`, and the table of all strategies: `python -m tests.bench.layering`.

Facts are those of the big set, the table is made of its first revision. A round is a seed: the same set, other
requests, other frequencies, another second revision.
"""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from statistics import fmean

from tests.bench.bench import Bench
from tests.bench.layering import strategies
from tests.bench.layering.facts import Facts, Image, of, requests
from tests.bench.layering.judge import Outcome, outcome
from tests.bench.layering.strategies import Strategy
from tests.bench.result import Measure, Result, result

_POPULAR = (100, 50, 20, 10, 5, 2, 1)  # thresholds of Nixery's that are tried: 100 is the one it has
_GIGA = 1e9
_MEGA = 1e6

NAMES = (
    "layering/stored",
    "layering/stored-two-revisions",
    "layering/repulled",
    "layering/repulled-two-revisions",
    "layering/repulled-tuned",
    "layering/layers-median",
    "layering/layers-max",
    "layering/small-layers",
    "layering/leaf-update",
    "layering/leaf-update-layers",
    "layering/no-table-stored",
    "layering/no-table-repulled",
)


def seeds(bench: Bench) -> range:
    """The rounds."""
    return range(1, 1 + (2 if bench.quick else bench.rounds))


def workload(facts: Facts, seed: int) -> tuple[list[Image], list[Image]]:
    """The images that are asked for, in order: those of the set as it is, and the same a revision later."""
    asked = requests(facts, seed)
    second = facts.second_revision(Random(seed))
    return [facts.image(names) for names in asked], [second.image(names) for names in asked]


async def _measure(bench: Bench) -> Sequence[Result]:
    facts = of(await bench.set())
    return await asyncio.to_thread(measure, facts, seeds(bench))


def measure(facts: Facts, rounds: Sequence[int]) -> list[Result]:
    """All lines."""
    values: dict[str, list[float]] = {name: [] for name in NAMES}
    baselines: dict[str, list[float]] = {name: [] for name in NAMES}

    def note(name: str, value: float, baseline: float) -> None:
        values[f"layering/{name}"].append(value)
        baselines[f"layering/{name}"].append(baseline)

    ours = strategies.ours(strategies.table_of(facts))
    nixery = {popular: strategies.dominators(facts, popular) for popular in _POPULAR}
    for seed in rounds:
        first, second = workload(facts, seed)
        ceiling = outcome(first, strategies.one_per_path)
        our, bare = outcome(first, ours), outcome(first, strategies.ours())
        theirs = {popular: outcome(first, strategy).repulled for popular, strategy in nixery.items()}
        note("stored", our.stored / _GIGA, ceiling.stored / _GIGA)
        note("repulled", our.repulled / _GIGA, theirs[100] / _GIGA)
        note("repulled-tuned", our.repulled / _GIGA, min(theirs.values()) / _GIGA)
        note("layers-median", our.median, ceiling.median)
        note("layers-max", max(our.layers), strategies.BUDGET)
        note("small-layers", fmean(our.small), fmean(ceiling.small))
        note("no-table-stored", bare.stored / _GIGA, ceiling.stored / _GIGA)
        note("no-table-repulled", bare.repulled / _GIGA, theirs[100] / _GIGA)
        our, their = outcome([*first, *second], ours), outcome([*first, *second], nixery[100])
        note("stored-two-revisions", our.stored / _GIGA, our.distinct / _GIGA)
        note("repulled-two-revisions", our.repulled / _GIGA, their.repulled / _GIGA)
        moved, alone, layers = leaf_updates(facts, ours, Random(seed))
        note("leaf-update", fmean(moved) / _MEGA, fmean(alone) / _MEGA)
        note("leaf-update-layers", max(layers), 1)
    units = {
        "layers-median": "layers",
        "layers-max": "layers",
        "small-layers": "layers",
        "leaf-update-layers": "layers",
    }
    units["leaf-update"] = "MB"
    return [
        result(name, values[name], baselines[name], unit=units.get(name.partition("/")[2], "GB"))
        for name in NAMES
    ]


def leaf_updates(facts: Facts, strategy: Strategy, random: Random) -> tuple[list[int], list[int], list[int]]:
    """For each leaf, what its new version costs: bytes of new layers, those of the leaf itself, number of new layers."""
    moved, alone, layers = [], [], []
    for leaf in facts.leaves:
        (name,) = [name for name, path in facts.attributes.items() if path == leaf][:1]
        later = facts.updated([leaf], random)
        before, after = facts.image([name]), later.image([name])
        known = {tuple(sorted(layer)) for layer in strategy(before)}
        new = [layer for layer in strategy(after) if tuple(sorted(layer)) not in known]
        moved.append(sum(later.paths[path].nar_size for layer in new for path in layer))
        alone.append(later.paths[later.attributes[name]].nar_size)
        layers.append(len(new))
    return moved, alone, layers


def compared(facts: Facts, seed: int) -> Mapping[str, tuple[Outcome, Outcome]]:
    """What each strategy comes to: over the workload, and over it and its second revision."""
    first, second = workload(facts, seed)
    others: dict[str, Strategy] = {
        "one per path, no budget": strategies.one_per_path,
        "popularity contest": strategies.popularity_contest,
        **{f"dominators, popular from {n} on": strategies.dominators(facts, n) for n in (100, 20, 5)},
        "size cohorts": strategies.size_cohorts,
        "ours, no table": strategies.ours(),
        "ours, table of other images served": strategies.ours(strategies.served_table(facts, seed)),
        "ours": strategies.ours(strategies.table_of(facts)),
    }
    return {name: (outcome(first, one), outcome([*first, *second], one)) for name, one in others.items()}


MEASURES = (Measure(NAMES, _measure),)
