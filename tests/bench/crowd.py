"""Many who ask for images that are not there: how much is done, by how many processes, and what others notice of it.

A pull is what comes before the layers: the manifest, held until it is there, and the configuration. Each measurement
starts a nixfront and a registry that know nothing; the packages are realised before. Those who notice are clients of
another image, which is there: one asks for its manifest a hundred times a second, as another one asks a server that does
nothing else at the same time (`asking`).
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy.core import names
from proxy.core.model import EVERY_MANIFEST_TYPE
from tests.bench.bench import Bench, most_memory
from tests.bench.cold import IMAGES
from tests.bench.load import percentile
from tests.bench.result import Measure, Result, result
from tests.support.servers import Server

_CLIENTS = 100
_DISTINCT = 50
_WARM = "hello"
_NOTICED = f"/v2/{_WARM}/manifests/latest"


def _rounds(bench: Bench) -> int:
    return 2 if bench.quick else bench.rounds


async def _one_image(bench: Bench) -> Sequence[Result]:
    alone: list[float] = []
    together: list[float] = []
    image = IMAGES["medium"][0]
    await bench.set(image)
    for number in range(_rounds(bench)):
        async with bench.scratch() as folder:
            for clients, seconds in ((1, alone), (_CLIENTS, together)):
                async with _served(bench, folder / f"{clients}-{number}") as front:
                    started = time.perf_counter()
                    await asyncio.gather(*(_pull(front, image) for _ in range(clients)))
                    seconds.append(time.perf_counter() - started)
                    assert await _builds(front) == 1, "one build, however many ask"
    return [result(f"concurrent/{_CLIENTS}", together, alone, unit="s")]


@dataclass(frozen=True, slots=True)
class _Noticed:
    """Of some builds: their seconds, the p99 of others, and of a bare server; the most bytes of memory and child processes."""

    seconds: float
    p99: float
    bare: float
    memory: int
    processes: int


async def _many_images(bench: Bench) -> Sequence[Result]:
    chosen = await bench.set()
    sizes = {
        spelled: sum(info.nar_size for info in chosen.closure(name))
        for name in chosen.packages
        if (spelled := names.spelled(name)) is not None
    }
    images = sorted(sizes, key=lambda name: (sizes[name], name))[:_DISTINCT]
    idle: list[float] = []
    one: list[_Noticed] = []
    many: list[_Noticed] = []
    for number in range(_rounds(bench)):
        async with bench.scratch() as folder, _served(bench, folder / str(number)) as front:
            await _pull(front, _WARM)
            idle.append(await _idle(front))
            one.append(await _notice(front, [IMAGES["small"][0]]))
            many.append(await _notice(front, images))
    name = f"concurrent/{_DISTINCT}-distinct"
    return [
        result(name, [them.p99 for them in many], idle, unit="ms"),
        result(f"{name}-bare", [them.bare for them in many], idle, unit="ms"),
        result(f"{name}-time", [them.seconds for them in many], [them.seconds for them in one], unit="s"),
        result(
            f"{name}-memory",
            [them.memory / 1e6 for them in many],
            [them.memory / 1e6 for them in one],
            unit="MB",
        ),
        result(
            f"{name}-processes",
            [them.processes for them in many],
            [them.processes for them in one],
            unit="children",
        ),
    ]


async def _notice(front: Server, images: Sequence[str]) -> _Noticed:
    async with _bare() as bare, _asking(front.host, _NOTICED) as one, _asking(bare, "/") as other:
        started = time.perf_counter()
        pulls: asyncio.Future[object] = asyncio.ensure_future(_all(front, images))
        watch = asyncio.create_task(_most_children(front.process.pid, pulls))
        await pulls
        seconds = time.perf_counter() - started
        memory = most_memory(front.process.pid)
        return _Noticed(seconds, await _p99(one), await _p99(other), memory, await watch)


async def _idle(front: Server) -> float:
    async with _asking(front.host, _NOTICED) as client:
        await asyncio.sleep(3)
        return await _p99(client)


@asynccontextmanager
async def _served(bench: Bench, folder: Path) -> AsyncIterator[Server]:
    async with (
        bench.registry(folder / "registry") as registry,
        bench.front(folder / "front", registry, log={"requests": "false"}) as front,
    ):
        yield front


async def _pull(front: Server, image: str) -> None:
    """Manifest and configuration of an image."""
    path = f"{front.url}/v2/{image}"
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(timeout=timeout, headers={"Accept": EVERY_MANIFEST_TYPE}) as session:
        async with session.get(f"{path}/manifests/latest") as answer:
            text = await answer.text()
            assert answer.status == 200, f"{image}: {answer.status} {text}"
        async with session.get(f"{path}/blobs/{json.loads(text)['config']['digest']}") as answer:
            assert answer.status == 200
            await answer.read()


async def _all(front: Server, images: Sequence[str]) -> None:
    await asyncio.gather(*(_pull(front, image) for image in images))


async def _builds(front: Server) -> int:
    """How many builds have ended."""
    async with aiohttp.ClientSession() as session, session.get(f"{front.url}/metrics") as answer:
        text = await answer.text()
    return sum(int(float(n)) for n in re.findall(r"^nixfront_builds_total\{.*\} (\S+)$", text, re.MULTILINE))


@asynccontextmanager
async def _asking(host: str, path: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client that asks for this until `_p99` wants to know how that went."""
    async with _process(host, path, EVERY_MANIFEST_TYPE) as (process, _):
        yield process


async def _p99(client: asyncio.subprocess.Process) -> float:
    """Of the ms that its answers took."""
    times, _ = await client.communicate(b"")  # and no more: it ends
    return percentile(json.loads(times), 99)


@asynccontextmanager
async def _bare() -> AsyncIterator[str]:
    """The host of a server that does nothing but answer."""
    async with _process() as (_, host):
        yield host


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process of `asking`, and the first line that it prints."""
    pipe = asyncio.subprocess.PIPE
    argv = (sys.executable, "-m", "tests.bench.asking", *arguments)
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, start_new_session=True)
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _most_children(pid: int, until: asyncio.Future[object]) -> int:
    """How many processes it had below it at most, looked at fifty times a second."""
    most = 0
    while not until.done():
        most = max(most, await asyncio.to_thread(_children, pid))
        await asyncio.sleep(0.02)
    return most


def _children(pid: int) -> int:
    below: set[int] = {pid}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return len(below) - 1


_NAME = f"concurrent/{_DISTINCT}-distinct"
MEASURES = (
    Measure((f"concurrent/{_CLIENTS}",), _one_image),
    Measure((_NAME, f"{_NAME}-bare", f"{_NAME}-time", f"{_NAME}-memory", f"{_NAME}-processes"), _many_images),
)
