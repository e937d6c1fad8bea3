"""The table of all strategies, for people. `--quick` takes two seeds instead of five."""

import asyncio
import sys
from collections.abc import Iterable
from statistics import fmean, median

from tests.bench import big_set
from tests.bench.layering.facts import of
from tests.bench.layering.lines import compared


def main(quick: bool) -> None:
    facts = of(asyncio.run(big_set.big_set(big_set.folder())))
    rounds = [compared(facts, seed) for seed in range(1, 3 if quick else 6)]
    size = sum(info.nar_size for info in facts.paths.values())
    print(
        f"{len(facts.attributes)} packages, {len(facts.paths)} store paths, {size / 1e9:.2f} GB, {len(rounds)} seeds\n"
    )
    print(
        "| strategy | stored, GB | pulled again, GB | two revisions | layers, median (most) | under 100 kB |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name in rounds[0]:
        first, both = zip(*(outcomes[name] for outcomes in rounds), strict=True)
        print(
            f"| {name} | {_giga(one.stored for one in first)} | {_giga(one.repulled for one in first)} "
            f"| {_giga(one.stored for one in both)} / {_giga(one.repulled for one in both)} "
            f"| {median(one.median for one in first):g} ({max(max(one.layers) for one in first)}) "
            f"| {fmean(fmean(one.small) for one in first):.1f} |"
        )


def _giga(sizes: Iterable[int]) -> str:
    return f"{median(sizes) / 1e9:.2f}"


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
