"""The builds of all machines that share a state: each machine writes its own, and reads those of the others.

A machine reads the state only when somebody looks at builds, and caches what it read for a moment. A pull never waits
for that. While the state is gone, a machine shows its own builds alone; it writes their records when the state is back.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from proxy.builds.build import Build, from_record, to_record
from proxy.state import MOST_BUILDS, State

_PAUSE = 1.0  # seconds between two writes of the phases
_FRESH = 2.0  # seconds for which a reading is cached
_MOST_READ = 100  # builds
_REPORTS_LOST = 3  # a machine that misses so many reports in a row is dead


class SharedBuilds:
    """Writes the builds of one machine to the state, and reads the newest builds of all machines from it."""

    def __init__(self, state: State, clock: Callable[[], float], *, report_seconds: float) -> None:
        """`clock` gives seconds since 1970. A running build is reported at least every `report_seconds`."""
        self._state = state
        self._clock = clock
        self._report_seconds = report_seconds
        self._newest: tuple[Build, ...] = ()
        self._reading: asyncio.Task[None] | None = None
        self._read_until = 0.0
        self._running: dict[str, Build] = {}
        self._reported: dict[str, float] = {}
        self._unwritten: dict[str, Build] = {}
        self._urgent = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    @property
    def newest(self) -> tuple[Build, ...]:
        """The newest builds in the state as of the last reading, newest first; ours may be among them."""
        return self._newest

    def report(self, build: Build) -> None:
        """Write the record of this build of ours: at once when it starts or ends, else within a second."""
        if build.ended or build.id not in self._running:
            self._urgent.set()
        if build.ended:
            self._running.pop(build.id, None)
            self._reported.pop(build.id, None)
        else:
            self._running[build.id] = build
        self._unwritten[build.id] = build
        while len(self._unwritten) > MOST_BUILDS:
            del self._unwritten[next(iter(self._unwritten))]
        if self._writing is None:
            self._writing = asyncio.create_task(self._keep_writing())

    async def refresh(self) -> None:
        """Read the state, unless that was done a moment ago."""
        if self._reading is None or (self._reading.done() and time.monotonic() >= self._read_until):
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)

    async def close(self) -> None:
        """Write what is left."""
        tasks = [task for task in (self._writing, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._write()

    async def _read(self) -> None:
        try:
            records = await self._state.builds(_MOST_READ)
            since = self._clock() - _REPORTS_LOST * self._report_seconds
            self._newest = tuple(from_record(record, since) for record in records)
        finally:
            self._read_until = time.monotonic() + _FRESH

    async def _keep_writing(self) -> None:
        while True:
            self._urgent.clear()
            await self._write()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE if self._running or self._unwritten else None):
                    await self._urgent.wait()

    async def _write(self) -> None:
        now = self._clock()
        for identity, build in self._running.items():
            if now - self._reported.get(identity, 0.0) >= self._report_seconds:
                self._unwritten.setdefault(identity, build)
        for identity, build in list(self._unwritten.items()):
            if not await self._state.record_build(to_record(build, now)):
                return  # the state is gone; `_keep_writing` tries again
            if self._unwritten.get(identity) is build:
                del self._unwritten[identity]
            if identity in self._running:
                self._reported[identity] = now
