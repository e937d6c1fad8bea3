"""Between a `State` and a store that may be gone: its errors end here, and writes wait for its return.

The log gets a line when the store goes and one when it is back. Meanwhile only a task of ours asks it, once a second,
because a store that hangs must not delay every pull. The number of waiting writes has a limit: the oldest are dropped
first, since everything in them can be made again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from proxy.core.errors import StateUnavailable

_log = logging.getLogger(__name__)
_MOST_WAITING = 4096  # writes
_PAUSE = 1.0  # seconds between two attempts to reach a store that is gone

T = TypeVar("T")
U = TypeVar("U")
Call = Callable[[], Awaitable[object]]


class WriteBehind:
    """The reads and writes of one store."""

    def __init__(self, name: str, foreign: tuple[type[Exception], ...], probe: Call) -> None:
        """`foreign` are the exceptions of a store that is out of order; `probe` writes something to find out.

        `name` is for the log, and has no password in it.
        """
        self._name = name
        self._foreign = foreign
        self._probe = probe
        self._waiting: deque[Call] = deque(maxlen=_MOST_WAITING)
        self._looking: asyncio.Task[None] | None = None

    async def read(self, call: Callable[[], Awaitable[T]], default: U) -> T | U:
        """The result of the call, or `default` while the store is gone."""
        if self._looking is not None:
            return default
        try:
            return await call()
        except self._foreign as error:
            self._go(error)
            return default

    async def write(self, call: Call) -> None:
        """Do the call, now or when the store is back; it may happen more than once."""
        if self._looking is None:
            try:
                await call()
            except self._foreign as error:
                self._go(error)
            else:
                return
        self._waiting.append(call)

    async def check(self, call: Call) -> None:
        """Raises `StateUnavailable` if the call fails."""
        try:
            await call()
        except self._foreign as error:
            raise StateUnavailable(f"{self._name} does not answer: {error}") from error

    async def close(self) -> None:
        """Stop to look whether the store is back; waiting writes are lost."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _go(self, error: Exception) -> None:
        if self._looking is None:  # another call may have failed at the same time
            _log.warning("state gone, going on without it store=%s error=%s", self._name, error)
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            if await self._answers() and await self._flush():
                break
        self._looking = None
        _log.warning("state back store=%s", self._name)

    async def _flush(self) -> bool:
        """Do the waiting writes, in order; False if the store went away again."""
        while self._waiting:
            call = self._waiting[0]
            try:
                await call()
            except self._foreign as error:
                if not await self._answers():
                    return False
                _log.warning("state refuses a write, which is lost store=%s error=%s", self._name, error)
            if self._waiting and self._waiting[0] is call:  # else it was dropped meanwhile
                self._waiting.popleft()
        return True

    async def _answers(self) -> bool:
        try:
            await self._probe()
        except self._foreign:
            return False
        return True
