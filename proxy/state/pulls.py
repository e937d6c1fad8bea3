"""When each image was last pulled, and how often.

Collected in memory and written to the state every half a minute, which is enough for `prune`.
"""

import asyncio
import time
from collections.abc import Callable

from cachetools import LRUCache

from proxy.state import State

_EVERY = 30.0  # seconds
_MOST = 10_000  # images in memory; if more are pulled in half a minute, the oldest are skipped


class Pulls:
    """The pulls of one application."""

    def __init__(self, state: State, now: Callable[[], float] = time.time) -> None:
        """`now` is in seconds since the epoch."""
        self._state = state
        self._now = now
        self._pulls: LRUCache[tuple[str, str], tuple[float, int]] = LRUCache(_MOST)
        self._writing: asyncio.Task[None] | None = None

    def pulled(self, repository: str, digest: str, times: int) -> None:
        """Note that a client just got this manifest; or, with 0 `times`, asked for its digest."""
        _, before = self._pulls.get((repository, digest), (0.0, 0))
        self._pulls[repository, digest] = self._now(), before + times
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_later())

    async def close(self) -> None:
        """Write the rest."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._write()

    async def _write_later(self) -> None:
        await asyncio.sleep(_EVERY)
        await self._write()

    async def _write(self) -> None:
        pulls = dict(self._pulls)
        self._pulls.clear()
        if pulls:
            await self._state.record_pulls(pulls)
