"""A fuzz of the HTTP front: seeded bytes to nixfront, and the same bytes to a stock registry that says what is right.

A case is a request of a real client with some mutations. Some keep it HTTP: then nixfront's answer has the class of status
that the registry's has. The others may break it: then nixfront may be stricter. A number and a seed make a case again.

    tests/fuzz --minutes 10 --seed 7          the whole run, which prints its figures
    tests/fuzz --seed 7 --only 1234           one case: its bytes and both answers
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.support import handmade
from tests.support.counts import plain_counts
from tests.support.front import PACKAGES
from tests.support.fuzz_cases import BLOB, IMAGE, Case, case
from tests.support.processes import run
from tests.support.servers import FROM_CHECKOUT, Server, nixfront, stock_registry

AT_ONCE = 24  # most of them wait for an end that comes by a time-out
_BATCH = 50  # cases between two looks
_PATIENCE = 90.0  # seconds after which a connection counts as stuck: much more than any answer takes
_QUIET = 1.0  # seconds in which neither server says a word to a request that is not whole
#: What may not grow, and by how much it differs from one look to the next.
_NOISE = {"process_resident_memory_bytes": 16 << 20, "process_open_fds": 16, "nixfront_tasks": 16}


@dataclass
class Report:
    """What happened. `wrong`: what may never be; `samples`: memory, descriptors and tasks after each batch."""

    seed: int
    cases: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)


class Fuzz:
    """A nixfront, the registry behind it, and the oracle: a registry with the same images."""

    def __init__(self, front: Server, behind: Server, oracle: Server, seed: int) -> None:
        self.report = Report(seed)
        self._front, self._behind, self._oracle = front, behind, oracle
        self._twice: set[int] = set()

    async def batch(self, numbers: range) -> None:
        """Send these cases, then look at everything."""
        room = asyncio.Semaphore(AT_ONCE)
        cases = [case(self.report.seed, number) for number in numbers]

        async def one(each: Case) -> None:
            async with room:
                # A machine that is busy may have let a time-out pass: what is wrong is wrong twice.
                if problem(each, *await self.answers(each)):
                    self._twice.add(each.number)
                    ours, right = await self.answers(each)
                    if found := problem(each, ours, right):
                        self.report.wrong.append(
                            f"case {each.number}: {found}: {ours} instead of {right}: {each.pieces[0][:90]!r}"
                        )

        await asyncio.gather(*(one(each) for each in cases))
        await asyncio.to_thread(self._count_requests, cases)
        await self._look()
        self.report.cases += len(cases)

    async def answers(self, each: Case) -> tuple[int | None, int | None]:
        """The status of the first answer of nixfront and of the oracle; 0: closed without one; None: it waits for more."""
        ours = asyncio.create_task(_status(self._front.host, each.pieces))
        right = asyncio.create_task(_status(self._oracle.host, each.pieces))
        try:
            done, _ = await asyncio.wait((right,), timeout=_QUIET)
            await asyncio.wait((ours,), timeout=_PATIENCE if done else _QUIET)
            status = ours.result() if ours.done() else None
            self.report.answers[
                f"{'http' if each.is_http else 'odd'} {status if status is None else status // 100}"
            ] += 1
            return status, right.result() if right.done() else None
        finally:
            for task in (ours, right):
                task.cancel()
            await asyncio.gather(ours, right, return_exceptions=True)

    def _count_requests(self, cases: list[Case]) -> None:
        """Each request of a client is at most one of the registry's, and no body is a request."""
        behind, oracle = (_requests(server) for server in (self._behind, self._oracle))
        for each in cases:
            seen, right = behind[each.token], oracle[each.token]
            if seen > max((1 + (each.number in self._twice)) * each.requests, right):
                self.report.wrong.append(
                    f"case {each.number}: {seen} requests reached the registry, {right} the oracle"
                )
            if behind[f"inner/{each.number:09}"] > oracle[f"inner/{each.number:09}"]:
                self.report.wrong.append(f"case {each.number}: a request in a body reached the registry")

    async def _look(self) -> None:
        """nixfront answers others, has nothing odd in its log; what it has in use goes to the samples."""
        async with (
            aiohttp.ClientSession(self._front.url) as session,
            session.get(f"/v2/marker/blobs/{BLOB}") as blob,
        ):
            if (blob.status, await blob.read()) != (200, IMAGE.layers[0]):
                self.report.wrong.append(f"after case {self.report.cases}: a blob is {blob.status}")
        counts = await plain_counts(self._front.url)
        self.report.samples.append({name: counts[name] for name in _NOISE})
        log = await asyncio.to_thread(self._front.process.log_text)
        odd = [
            line
            for line in log.splitlines()
            if re.search(r"^Traceback| (error|critical) | does not answer", line)
        ]
        self.report.wrong += [
            f"in the log: {line[:300]}"
            for line in dict.fromkeys(odd)
            if f"in the log: {line[:300]}" not in self.report.wrong
        ]


def grown(samples: Sequence[Mapping[str, float]]) -> list[str]:
    """What is more in the last third than in the second, by more than noise. Raises `ValueError` for too few samples."""
    third = len(samples) // 3
    if not third:
        raise ValueError(f"{len(samples)} samples say nothing about growth")
    found = []
    for name, noise in _NOISE.items():
        early = min(sample[name] for sample in samples[third : 2 * third])
        late = min(sample[name] for sample in samples[2 * third :])
        if late > early * 1.05 + noise:
            found.append(f"{name} grew from {early:.0f} to {late:.0f}")
    return found


def problem(each: Case, ours: int | None, right: int | None) -> str:
    """What may not be in these two answers; empty if all is well."""
    if ours is None and right is not None:
        return "no answer and no end"
    # 505 is a refusal. Where a stock registry hangs up without an answer, nobody knows whether it would have been an error.
    if ours and ours >= 500 and ours != 505 and (right is None or 0 < right < 500):
        return "an error of ours"
    # The list of tags of a name that nobody has pulled is empty for us; a stock registry has no such name.
    if (ours, right) == (200, 404) and each.first_path.endswith(b"/tags/list"):
        return ""
    if each.is_http and ours is not None and right and right < 500 and ours // 100 != right // 100:
        return "another class of status"
    return ""


async def _status(host: str, pieces: tuple[bytes, ...]) -> int:
    """The status of the first final answer, 0 if there is none before the end."""
    reader, writer = await asyncio.open_connection(*host.split(":"))
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                received += chunk
                while match := re.match(rb"HTTP/1\.\d 1\d\d .*?\r\n\r\n", received, re.DOTALL):
                    received = received[match.end() :]
                if match := re.match(rb"HTTP/1\.\d ([2-9]\d\d) .*?\r\n\r\n", received, re.DOTALL):
                    return int(match[1])
        match = re.match(rb"HTTP/1\.\d ([2-9]\d\d) ", received)
        return int(match[1]) if match else 0
    finally:
        writer.close()


def _requests(server: Server) -> Counter[str]:
    """How often each token is in the target of a request that a registry has logged."""
    lines = re.findall(r'^\S+ - - \[[^]]*\] "\S+ (.*) HTTP/', server.process.log_text(), re.MULTILINE)
    return Counter(token for line in lines for token in re.findall(r"fuzz\d+|inner/\d+", line))


@contextlib.asynccontextmanager
async def fuzz(folder: Path, seed: int) -> AsyncIterator[Fuzz]:
    """All three servers, with data in `folder`. No name may be built: Nix has tests of its own."""
    settings = {
        "nix": {"store": str(folder / "store")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "access": {"repositories": ["nothing"]},
        "http": {"head_seconds": 8, "body_seconds": 8},
        "answers": {"seconds": 0},
    }
    async with contextlib.AsyncExitStack() as stack:
        registries = []
        for name in ("behind", "oracle"):
            (folder / name).mkdir()
            registries.append(await stack.enter_async_context(stock_registry(folder / name)))
            for repository in ("kept", "marker"):
                await handmade.push(registries[-1].url, repository, "v1", IMAGE)
        settings["registry"] = {"url": registries[0].url}
        front = await stack.enter_async_context(nixfront(folder, settings=settings, command=FROM_CHECKOUT))
        yield Fuzz(front, registries[0], registries[1], seed)


def batches(count: int) -> Iterator[range]:
    """So many cases, in batches."""
    return (range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH))


async def _main(seed: int, minutes: float, only: int | None) -> int:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        async with fuzz(folder, seed) as running:
            if only is not None:
                each = case(seed, only)
                sys.stdout.write(f"{each}\n{await running.answers(each)}\n")
                return 0
            began = time.monotonic()
            for numbers in batches(1 << 30):
                await running.batch(numbers)
                if time.monotonic() - began > minutes * 60:
                    break
            report = running.report
            report.seconds = round(time.monotonic() - began)
            wrong = [*report.wrong, *grown(report.samples)]
            document = {
                **vars(report),
                "samples": report.samples[:: max(1, len(report.samples) // 10)],
                "wrong": wrong,
            }
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
            return 1 if wrong else 0
    finally:
        await run(("rm", "-rf", str(folder)))


def main() -> int:
    """The command `tests/fuzz`."""
    parser = argparse.ArgumentParser(prog="tests/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=20261129)
    parser.add_argument("--only", type=int, help="the number of one case")
    arguments = parser.parse_args()
    os.environ["NIX_CONFIG"] = "substituters =\n"
    return asyncio.run(_main(arguments.seed, arguments.minutes, arguments.only))


if __name__ == "__main__":
    raise SystemExit(main())
