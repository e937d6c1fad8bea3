"""A queue for turns: a few run at once, clients share them fairly, and the queue has an end.

`_call` alone decides who is next, with no `await` in it: the waiting client that has the fewest turns now, and of
equal clients the one that has waited longest. A client never has more than its share at once, so a client with very many
requests cannot keep the others out.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.core.errors import Busy

_RETRY_AFTER = 30  # seconds


class FairQueue:
    """The queue of one kind of work."""

    def __init__(self, at_once: int, *, share: int, most_waiting: int) -> None:
        """`at_once` turns run at once, at most `share` of them for one client; at most `most_waiting` requests wait."""
        self._free = at_once
        self._share = share
        self._most_waiting = most_waiting
        self._running: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @property
    def running(self) -> int:
        """How many turns are in use now."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many requests wait for a turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[bool]:
        """A turn of this client, as long as the context lasts; whether it had to wait for it.

        Raises `Busy` if too many wait already.
        """
        waited = await self._wait(client)
        try:
            yield waited
        finally:
            self._end(client)

    async def _wait(self, client: str) -> bool:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((client, turn))
        self._call()
        if turn.done():
            return False
        if len(self._waiting) > self._most_waiting:
            self._waiting.remove((client, turn))
            raise Busy(
                f"this host has {self._most_waiting} builds waiting already (builds.queue); try again in a while",
                retry_after=_RETRY_AFTER,
            )
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((client, turn))
            else:  # the turn came at the very moment in which its client went away
                self._end(client)
            raise
        return True

    def _end(self, client: str) -> None:
        self._free += 1
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._call()

    def _call(self) -> None:
        """Give every free turn to the client that is next."""
        while self._free:
            candidates = [
                (self._running[client], number)
                for number, (client, _) in enumerate(self._waiting)
                if self._running[client] < self._share
            ]
            if not candidates:
                return
            client, turn = self._waiting.pop(min(candidates)[1])
            self._free -= 1
            self._running[client] += 1
            turn.set_result(None)
