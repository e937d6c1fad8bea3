"""Measure the lines that the user names, print each as soon as it is there, and a table of them at the end."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

from proxy.core.errors import NixfrontError
from tests.bench import attest, big_set, caches, cold, crowd, layering, names, platforms, serving
from tests.bench.bench import Bench
from tests.bench.result import Measure, Result, table
from tests.bench.scale import check

#: Every measure, in the order in which they are made: each module has its `MEASURES`.
MEASURES: tuple[Measure, ...] = (
    *cold.MEASURES,
    *platforms.MEASURES,
    *caches.MEASURES,
    *layering.MEASURES,
    *serving.MEASURES,
    *crowd.MEASURES,
    *names.MEASURES,
    *attest.MEASURES,
    *check.MEASURES,
)


def main() -> int:
    """The exit code: 1 if a name fits nothing, or if something could not be measured."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description="One JSON object for each line.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and nothing that takes long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines into this file too")
    parser.add_argument("--list", action="store_true", help="print the names of all lines, and measure none")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the start of a line's name; default: all")
    arguments = parser.parse_args()
    every = [name for measure in MEASURES for name in measure.names]
    if arguments.list:
        print("\n".join(every))
        return 0
    for prefix in arguments.names:
        if not any(name.startswith(prefix) for name in every):
            print(f"no line starts with {prefix}; there are {', '.join(every)}", file=sys.stderr)
            return 1
    with arguments.json.open("w") if arguments.json else nullcontext() as file:
        try:
            asyncio.run(_run(Bench(big_set.folder(), arguments.quick), arguments.names, file))
        except NixfrontError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


async def _run(bench: Bench, prefixes: Sequence[str], file: TextIO | None) -> None:
    done: list[Result] = []
    for measure in MEASURES:
        wanted = [name for name in measure.names if not prefixes or name.startswith(tuple(prefixes))]
        if not wanted:
            continue
        for result in await measure.run(bench):
            if result.name in wanted:
                done.append(result)
                print(result.line, flush=True)
                if file is not None:
                    file.write(result.line + "\n")
                    file.flush()
    print(table(done), file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
