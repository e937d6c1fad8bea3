"""When each image was last pulled: gathered in memory, told to the state now and then, as nobody prunes by the minute."""

import asyncio
import time
from collections.abc import Callable

from cachetools import LRUCache

from proxy.state import State

_EVERY = 30.0  # seconds
_MOST = 10_000  # images that are gathered; of more than that in half a minute the oldest are passed over


class Pulls:
    """The pulls of one application."""

    def __init__(self, state: State, now: Callable[[], float] = time.time) -> None:
        """`now` is in seconds since the epoch."""
        self._state = state
        self._now = now
        self._gathered: LRUCache[tuple[str, str], float] = LRUCache(_MOST)
        self._telling: asyncio.Task[None] | None = None

    def pulled(self, repository: str, digest: str) -> None:
        """The registry has just given out this manifest."""
        self._gathered[repository, digest] = self._now()
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_later())

    async def close(self) -> None:
        """Tell what is left."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._tell()

    async def _tell_later(self) -> None:
        await asyncio.sleep(_EVERY)
        await self._tell()

    async def _tell(self) -> None:
        gathered = dict(self._gathered)
        self._gathered.clear()
        if gathered:
            await self._state.record_pulls(gathered)
