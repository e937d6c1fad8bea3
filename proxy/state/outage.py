"""Between `State` and a store that may be gone: its errors end here, and what could not be written waits for its return.

One line in the log when it goes and one when it is back. Meanwhile nobody asks it but a task of ours, once a second: a
store that hangs must not hold up every pull. What waits is bounded: the oldest is given up first, as everything in it
can be made again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from proxy.core.errors import StateUnavailable

_log = logging.getLogger(__name__)
_MOST_WAITING = 4096  # writes
_PAUSE = 1.0  # seconds between two questions to a store that is gone

T = TypeVar("T")
U = TypeVar("U")
Call = Callable[[], Awaitable[object]]


class WriteBehind:
    """The border of one store."""

    def __init__(self, name: str, foreign: tuple[type[Exception], ...], probe: Call) -> None:
        """`foreign` are the exceptions of a store that is out of order; `probe` writes something, and raises one then.

        `name` is for the log, and holds no password.
        """
        self._name = name
        self._foreign = foreign
        self._probe = probe
        self._waiting: deque[Call] = deque(maxlen=_MOST_WAITING)
        self._looking: asyncio.Task[None] | None = None

    async def read(self, ask: Callable[[], Awaitable[T]], unknown: U) -> T | U:
        """What the store answers, or `unknown` while it is gone."""
        if self._looking is not None:
            return unknown
        try:
            return await ask()
        except self._foreign as error:
            self._is_gone(error)
            return unknown

    async def write(self, tell: Call) -> None:
        """Tell the store, now or when it is back; `tell` may be called more than once."""
        if self._looking is None:
            try:
                await tell()
            except self._foreign as error:
                self._is_gone(error)
            else:
                return
        self._waiting.append(tell)

    async def check(self, ask: Call) -> None:
        """Raises `StateUnavailable` if this question is not answered."""
        try:
            await ask()
        except self._foreign as error:
            raise StateUnavailable(f"{self._name} does not answer: {error}") from error

    async def close(self) -> None:
        """Stop looking whether it is back."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _is_gone(self, error: Exception) -> None:
        if self._looking is None:  # another call may have met it at the same time
            _log.warning("state gone, going on without it store=%s error=%s", self._name, error)
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            if await self._answers() and await self._told():
                break
        self._looking = None
        _log.warning("state back store=%s", self._name)

    async def _told(self) -> bool:
        """Tell the store what waits, in order; whether it listened to the end."""
        while self._waiting:
            tell = self._waiting[0]
            try:
                await tell()
            except self._foreign as error:
                if not await self._answers():
                    return False
                _log.warning("state refuses what it was to be told store=%s error=%s", self._name, error)
            if self._waiting and self._waiting[0] is tell:  # else it was given up meanwhile
                self._waiting.popleft()
        return True

    async def _answers(self) -> bool:
        try:
            await self._probe()
        except self._foreign:
            return False
        return True
