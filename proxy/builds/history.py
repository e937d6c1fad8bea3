"""What became of each build, for all who share the state: told by events, written behind them."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from proxy.core.events import BuildEnded, BuildStarted, Event, Sink
from proxy.state import BuildRecord, State

_LONGEST_ERROR = 2000


class History:
    """The builds of one machine."""

    def __init__(self, state: State, machine: str, now: Callable[[], float] = time.time) -> None:
        """`now` is in seconds since the epoch."""
        self._state = state
        self._machine = machine
        self._now = now
        self._running: dict[tuple[str, str], BuildRecord] = {}
        self._unwritten: asyncio.Queue[BuildRecord] = asyncio.Queue()
        self._writing = asyncio.create_task(self._write())

    def hearing(self, sink: Sink) -> Sink:
        """A sink before this one."""

        def hear(event: Event) -> None:
            self._hear(event)
            sink(event)

        return hear

    async def close(self) -> None:
        """Write what is left."""
        await self._unwritten.join()
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)

    def _hear(self, event: Event) -> None:
        if isinstance(event, BuildStarted):
            build = BuildRecord(secrets.token_hex(8), event.repository, event.tag, self._machine, self._now())
            self._running[event.repository, event.tag] = build
            self._unwritten.put_nowait(build)
        elif isinstance(event, BuildEnded):
            started = self._running.pop((event.repository, event.tag), None)
            if started is not None:
                error = event.error[:_LONGEST_ERROR]
                self._unwritten.put_nowait(
                    replace(started, ended=self._now(), digest=event.digest, error=error)
                )

    async def _write(self) -> None:
        while True:
            build = await self._unwritten.get()
            try:
                await self._state.record_build(build)
            finally:
                self._unwritten.task_done()
