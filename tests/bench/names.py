"""A hundred thousand names: reading a channel's list, searching it, and the suggestions for a name that is not there.

The list has the shape and size of nixpkgs' own, and comes from a server on this host. Searches and suggestions run as nixfront
runs them, in a thread beside an event loop. A clock on that loop says how late it was at most: the baseline is the same clock
while nothing else runs. Other programs do not count: neither the time when the loop waits for a processor, nor that when this process
has none.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.cli.host import loop_pauses
from proxy.core.errors import PackageUnknown
from proxy.core.model import Policy
from proxy.nix.name_lists.channel import ChannelLists
from proxy.nix.package_results import read_packages
from proxy.registry.endpoint import client_session
from proxy.tools import name_file
from proxy.tools.name_index import NameIndex
from proxy.web.search import matches
from proxy.web.search.matches import Question
from tests.bench.bench import Bench
from tests.bench.result import Measure, Result, result
from tests.support import many_names
from tests.support.processes import succeed

_TEXTS = ("git", "numpy", "rg", "terminal editor", "nosuchthing", "lib", "e")
_UNKNOWN = ("helo", "nosuch", "numpy", "pyhton3", "rg", "mongosch", "some-longer-name")
_TICK = 0.001  # seconds between two looks of the clock
_READ = """
import os, sys
from pathlib import Path
from proxy.tools import name_file
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
before = resident()
index = name_file.read(Path(sys.argv[1]))
print(resident() - before)
"""


async def _measure(bench: Bench) -> Sequence[Result]:
    listed = await asyncio.to_thread(many_names.names)
    body = await asyncio.to_thread(many_names.channel_list, listed)
    fetches: list[float] = []
    memory: list[float] = []
    searches: list[float] = []
    unknowns: list[float] = []
    lates: list[float] = []
    idle: list[float] = []
    loop_pauses.shorten()
    async with bench.scratch() as folder:
        await _fetch(body, folder / "list", fetches, 1 if bench.quick else 3)
        for _ in range(bench.rounds):
            memory.append(await _memory(folder / "list") / 1e6)
            index = await asyncio.to_thread(name_file.read, folder / "list")
            assert index is not None
            assert len(index) == len(listed)
            level = await asyncio.to_thread(NameIndex, listed)
            idle.append(await _lateness(lambda: asyncio.sleep(0.5)))
            lates.append(await _lateness(partial(_ask, index, level, searches, unknowns)))
            del index, level
    return [
        result("names/fetch", fetches, unit="s"),
        result("names/memory", memory, unit="MB"),
        result("names/search", searches, unit="ms"),
        result("names/unknown", unknowns, unit="ms"),
        result("names/loop-late", lates, idle, unit="ms"),
    ]


async def _fetch(body: bytes, file: Path, seconds: list[float], rounds: int) -> None:
    """Fetch the list from a server, as from a channel."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    app = web.Application()
    app.router.add_get("/packages.json.br", answer)
    async with TestServer(app) as server, client_session() as session:
        for _ in range(rounds):
            started = time.perf_counter()
            await ChannelLists(session).fetch(str(server.make_url("/packages.json.br")), file)
            seconds.append(time.perf_counter() - started)


async def _ask(index: NameIndex, level: NameIndex, searches: list[float], unknowns: list[float]) -> None:
    """Every question once, each in a thread; append the milliseconds of a processor."""
    for text in _TEXTS:
        question = Question(text, "", text, 25)
        searches.append(await _timed(partial(matches.packages, index, {}, question, Policy())))
    for name in _UNKNOWN:
        missing = {"kind": "missing", "typed": name, "at": "", "part": name, "names": level}
        unknowns.append(await _timed(partial(_refused, missing, index)))


def _refused(missing: dict[str, object], index: NameIndex) -> None:
    try:
        read_packages([missing], "nixpkgs", index)
    except PackageUnknown:
        return
    raise AssertionError("the name is not there")


async def _timed(work: Callable[[], object]) -> float:
    """The milliseconds of a processor that this takes, which other programs do not change much."""

    def run() -> float:
        started = time.thread_time()
        work()
        return (time.thread_time() - started) * 1e3

    return await asyncio.to_thread(run)


async def _lateness(work: Callable[[], Awaitable[None]]) -> float:
    """By how many milliseconds the event loop was late at most while this ran, as far as this process is to blame."""
    latest = 0.0

    async def look() -> None:
        nonlocal latest
        while True:
            due, computed, waited = time.perf_counter() + _TICK, time.process_time(), _waited()
            await asyncio.sleep(_TICK)
            late = time.perf_counter() - due - (_waited() - waited)
            latest = max(latest, min(late, time.process_time() - computed))

    clock = asyncio.create_task(look())
    await work()
    clock.cancel()
    return latest * 1e3


def _waited() -> float:
    """The seconds that this thread has waited for a processor so far."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def _memory(file: Path) -> int:
    """The bytes that the list takes in a process of its own, which has no memory from before to use again."""
    return int(await succeed((sys.executable, "-c", _READ, str(file))))


MEASURES = (
    Measure(("names/fetch", "names/memory", "names/search", "names/unknown", "names/loop-late"), _measure),
)
