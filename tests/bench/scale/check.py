"""One point of the model against real processes: three of them, before one registry and one Redis, under a stream of requests.

First one nixfront alone shows what a build and a manifest cost. The model adds these costs up for the stream; then three processes
serve it. The packages are those of the tests: small ones, which Nix builds.
"""

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import combinations
from pathlib import Path

import aiohttp
from redis import asyncio as redis_client

from proxy.core.model import EVERY_MANIFEST_TYPE
from tests.bench.bench import Bench
from tests.bench.result import Measure, Result, result
from tests.bench.scale import SEED, zipf
from tests.support.front import PACKAGES
from tests.support.processes import free_port
from tests.support.servers import Server, nixfront, redis

_PROCESSES = 3
_CLIENTS = 12
_PARTS = ("alpha", "beta", "hello", "git", "getent", "gnugrep", "findutils")
#: The names that alone cost a build, and those of the stream.
_TRIED = ("hello/getent", "git/gnugrep", "alpha/findutils", "beta/getent")
_NAMES = tuple("/".join(pair) for pair in combinations(_PARTS, 2) if "/".join(pair) not in _TRIED)
_REQUESTS = 3000
# The packages are built by the host's shell, which a sandbox hides.
_SEEN = "extra-sandbox-paths = /bin /usr /lib /lib64"
_BUILDERS = {"NIX_CONFIG": "\n".join((os.environ.get("NIX_CONFIG", ""), "substituters =", _SEEN))}


async def _measure(bench: Bench) -> Sequence[Result]:
    requests = _REQUESTS // 3 if bench.quick else _REQUESTS
    draw = random.Random(SEED)
    wanted = draw.choices(_NAMES, weights=zipf(len(_NAMES)), k=requests)
    async with bench.scratch() as folder, AsyncExitStack() as stack:
        alone, _ = await _started(stack, bench, folder / "alone", 1)
        await _pull(alone, ["hello"])  # the first build of a process costs more
        before = _seconds(alone)
        await _pull(alone, _TRIED)
        built = _seconds(alone)
        await _pull(alone, [*_TRIED] * (requests // len(_TRIED)))
        build = (built - before) / len(_TRIED)
        often = [*_TRIED] * (requests // len(_TRIED))
        warm = _seconds(alone)
        manifest = (warm - built) / len(often)
        await _pull(
            alone, often, {"Authorization": "Basic bmFtZTp3b3Jk"}
        )  # the answer cache has nothing for a login
        uncached = (_seconds(alone) - warm) / len(often)

        three, state = await _started(stack, bench, folder / "three", _PROCESSES)
        for process in three:
            await _pull([process], ["hello"])
        before, empty = _seconds(three), await _used(state)
        await _pull(three, wanted)
        spent, used = _seconds(three) - before, await _used(state) - empty
        made = sum(await asyncio.gather(*map(_builds, three))) - 1  # less the one of `hello`
    expected = len(set(wanted)) * build + requests * manifest
    return [
        result("scale/processors", [spent], [expected], unit="s"),
        result("scale/builds", [made], [len(set(wanted))], unit="builds"),
        result("scale/build", [build], unit="s"),
        result("scale/manifest", [manifest * 1e3], unit="ms"),
        result("scale/uncached", [uncached * 1e3], unit="ms"),
        result("scale/state", [used / made / 1e3], unit="kB"),
    ]


async def _started(stack: AsyncExitStack, bench: Bench, folder: Path, count: int) -> tuple[list[Server], str]:
    """So many processes with a registry and a Redis of their own, and the address of this Redis."""
    registry = await stack.enter_async_context(bench.registry(folder / "registry"))
    port = free_port()
    state = f"redis://127.0.0.1:{port}/0"
    await stack.enter_async_context(redis(folder / "redis", port))
    fronts = []
    for number in range(count):
        at = folder / str(number)
        settings: dict[str, object] = {
            "registry": {"url": registry.url},
            "state": {"url": state},
            "nix": {"store": str(at / "store")},
            "packages": {"kind": "path", "path": str(PACKAGES)},
        }
        fronts.append(await stack.enter_async_context(nixfront(at, settings=settings, env=_BUILDERS)))
    return fronts, state


async def _used(state: str) -> float:
    """The bytes of memory that a Redis uses."""
    async with redis_client.from_url(state) as client:
        return float((await client.info("memory"))["used_memory"])


async def _pull(
    fronts: Sequence[Server], names: Sequence[str], headers: Mapping[str, str] | None = None
) -> None:
    """The manifests of these names, from one process after the other, by a few clients at once."""
    pending = list(enumerate(names))[::-1]

    async def client(session: aiohttp.ClientSession) -> None:
        while pending:
            number, name = pending.pop()
            url = f"{fronts[number % len(fronts)].url}/v2/{name}/manifests/latest"
            async with session.get(url, headers={"Accept": EVERY_MANIFEST_TYPE, **(headers or {})}) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(_CLIENTS)))


async def _builds(front: Server) -> int:
    """How many images this process made."""
    log = await asyncio.to_thread(front.process.log_text)
    return log.count(" done image=")


def _seconds(fronts: Sequence[Server]) -> float:
    """The seconds of a processor that these processes and their children took so far."""
    ticks = 0
    for front in fronts:
        fields = (
            Path(f"/proc/{front.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        )
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


_NAMES_OF_LINES = ("processors", "builds", "build", "manifest", "uncached", "state")
MEASURES = (Measure(tuple(f"scale/{name}" for name in _NAMES_OF_LINES), _measure),)
