"""A queue for turns: a few run at once, clients share them fairly, and the queue has an end.

A piece of work waits by its `Ticket`, in the name of all clients that want it. `_call` alone decides what is next, with no
`await` in it: work of the client with the fewest turns now. Of equal clients it takes the one whose last turn began the longest
ago, and of its work what has waited longest. A client never has more than its share at once, so a client with very many
requests cannot keep the others out.

Nor can it fill the queue: at the limit the newest work of whoever has most of it waiting leaves. The weight of a ticket is how
much waits for that of its clients for whom least waits. So two clients that fill the queue together leave it for a third one,
and nobody who joins the work of a crowd leaves with the crowd.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

from cachetools import LRUCache

from proxy.core.errors import Busy

_RETRY_AFTER = 30  # seconds
_MOST_CLIENTS = 8192  # whose last turn is remembered


class Ticket:
    """A piece of work in the queue. `clients` want it, each for a number of requests; they may change at any time."""

    def __init__(self, *clients: str) -> None:
        self.clients = Counter(clients)

    def leave(self, client: str) -> None:
        """One request of this client wants it no more."""
        self.clients[client] -= 1
        self.clients += Counter()  # drops what is not above 0


class FairQueue:
    """The queue of one kind of work."""

    def __init__(self, at_once: int, *, share: int, most_waiting: int, waiting_share: int) -> None:
        """`at_once` turns run at once, at most `share` of them for one client.

        At most `most_waiting` tickets wait, at most `waiting_share` of them for one client alone.
        """
        self._free = at_once
        self._share = share
        self._most_waiting = most_waiting
        self._waiting_share = waiting_share
        self._running: Counter[str] = Counter()
        self._waiting: dict[Ticket, asyncio.Future[str]] = {}
        self._turns = 0
        self._last_turn: LRUCache[str, int] = LRUCache(_MOST_CLIENTS)

    @property
    def running(self) -> int:
        """How many turns are in use now."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many tickets wait for a turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, ticket: Ticket) -> AsyncIterator[bool]:
        """A turn for this ticket, as long as the context lasts; whether it had to wait for it.

        Raises `Busy` if too many wait already, or if others need the place while it waits.
        """
        client, waited = await self._wait(ticket)
        try:
            yield waited
        finally:
            self._end(client)

    async def _wait(self, ticket: Ticket) -> tuple[str, bool]:
        """The client that has the turn, and whether it had to wait."""
        turn = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._call()
        if turn.done():
            return turn.result(), False
        self._make_room(ticket)
        try:
            return await turn, True
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.pop(ticket, None)
            elif turn.exception() is None:  # the turn came at the very moment in which its client went away
                self._end(turn.result())
            raise

    def _make_room(self, ticket: Ticket) -> None:
        """Send work away if this ticket, the newest, is one too many."""
        loads = Counter(client for other in self._waiting for client in other.clients)

        def weight(other: Ticket) -> float:
            return min((loads[client] for client in other.clients), default=inf)

        if len(self._waiting) > self._most_waiting:
            heaviest = max(reversed(self._waiting), key=weight)  # of equals the newest
            self._send_away(
                heaviest,
                f"this host has {self._most_waiting} builds waiting already (builds.queue); try again in a while",
            )
        elif weight(ticket) > self._waiting_share:
            self._send_away(
                ticket,
                f"this host has {self._waiting_share} builds waiting for you already (builds.queue_share); "
                "try again in a while",
            )

    def _send_away(self, ticket: Ticket, message: str) -> None:
        turn = self._waiting.pop(ticket)
        if not turn.done():  # its task may have been cancelled a moment ago
            turn.set_exception(Busy(message, retry_after=_RETRY_AFTER))

    def _end(self, client: str) -> None:
        self._free += 1
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._call()

    def _call(self) -> None:
        """Give every free turn to the work that is next."""
        while self._free:
            candidates = [
                (self._running[client], self._last_turn.get(client, 0), number, client, ticket)
                for number, (ticket, turn) in enumerate(self._waiting.items())
                for client in ticket.clients
                if not turn.done() and self._running[client] < self._share
            ]
            if not candidates:
                return
            *_, client, ticket = min(candidates, key=lambda candidate: candidate[:3])
            self._free -= 1
            self._turns += 1
            self._last_turn[client] = self._turns
            self._running[client] += 1
            self._waiting.pop(ticket).set_result(client)
