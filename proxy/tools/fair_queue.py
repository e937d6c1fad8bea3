"""Turns: so many at once, fair between clients, and no endless queue. It knows no builds.

Who is next is decided in one place with no `await` in it: of those who wait, the client that has the fewest turns now, and of
equals the one that has waited longest. A client never has more than its share at once, so one that asks for very much
cannot keep the others out.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.core.errors import Busy

_RETRY_AFTER = 30  # seconds


class FairQueue:
    """Turns of one kind."""

    def __init__(self, at_once: int, *, share: int, most_waiting: int) -> None:
        """`at_once` turns, of which one client has at most `share`; `most_waiting` may wait for one."""
        self._free = at_once
        self._share = share
        self._most_waiting = most_waiting
        self._running: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @property
    def running(self) -> int:
        """How many have their turn now."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """A turn of this client, as long as the context lasts. Raises `Busy` where too many wait already."""
        await self._wait(client)
        try:
            yield
        finally:
            self._ended(client)

    async def _wait(self, client: str) -> None:
        come = asyncio.get_running_loop().create_future()
        self._waiting.append((client, come))
        self._call()
        if not come.done() and len(self._waiting) > self._most_waiting:
            self._waiting.remove((client, come))
            raise Busy(
                f"this host has {self._most_waiting} builds waiting already (builds.queue); try again in a while",
                retry_after=_RETRY_AFTER,
            )
        try:
            await come
        except asyncio.CancelledError:
            if come.cancelled():
                self._waiting.remove((client, come))
            else:  # it came at the very moment in which its owner went
                self._ended(client)
            raise

    def _ended(self, client: str) -> None:
        self._free += 1
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._call()

    def _call(self) -> None:
        """Give every turn that is free to who is next."""
        while self._free:
            able = [
                (self._running[client], number)
                for number, (client, _) in enumerate(self._waiting)
                if self._running[client] < self._share
            ]
            if not able:
                return
            client, come = self._waiting.pop(min(able)[1])
            self._free -= 1
            self._running[client] += 1
            come.set_result(None)
