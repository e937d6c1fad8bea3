"""Between `State` and a store that may be gone: its errors end here, and what could not be written waits for its return.

One line in the log when it goes and one when it is back; meanwhile it is asked once a second, as a store that hangs must
not hold up every pull. What waits is bounded: the oldest is given up first, as everything in it can be made again.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from proxy.errors import StateUnavailable

_log = logging.getLogger(__name__)
_MOST_WAITING = 4096  # writes
_PAUSE = 1.0  # seconds between two questions to a store that is gone

T = TypeVar("T")
U = TypeVar("U")


class Border:
    """The border of one store; `foreign` are the exceptions that it raises when it is out of order."""

    def __init__(self, name: str, foreign: tuple[type[Exception], ...]) -> None:
        """`name` is for the log, and holds no password."""
        self._name = name
        self._foreign = foreign
        self._waiting: deque[Callable[[], Awaitable[object]]] = deque(maxlen=_MOST_WAITING)
        self._gone = False
        self._ask_again = 0.0

    async def read(self, ask: Callable[[], Awaitable[T]], unknown: U) -> T | U:
        """What the store answers, or `unknown` while it is gone."""
        if self._pausing:
            return unknown
        try:
            found = await ask()
        except self._foreign as error:
            self._is_gone(error)
            return unknown
        await self._is_back()
        return found

    async def write(self, tell: Callable[[], Awaitable[object]]) -> None:
        """Tell the store, now or when it is back; `tell` may be called more than once."""
        if self._pausing:
            self._waiting.append(tell)
            return
        try:
            await tell()
        except self._foreign as error:
            self._is_gone(error)
            self._waiting.append(tell)
        else:
            await self._is_back()

    async def check(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Raises `StateUnavailable` if this question is not answered."""
        try:
            await ask()
        except self._foreign as error:
            raise StateUnavailable(f"{self._name} does not answer: {error}") from error

    @property
    def _pausing(self) -> bool:
        return self._gone and time.monotonic() < self._ask_again

    def _is_gone(self, error: Exception) -> None:
        if not self._gone:
            _log.warning("state gone, going on without it store=%s error=%s", self._name, error)
        self._gone = True
        self._ask_again = time.monotonic() + _PAUSE

    async def _is_back(self) -> None:
        """After a success: tell it what waited, in order, as far as it listens."""
        if not self._gone:
            return
        self._gone = False
        _log.warning("state back store=%s waiting=%d", self._name, len(self._waiting))
        with contextlib.suppress(IndexError):  # emptied by another, at the same time
            while not self._gone:
                tell = self._waiting.popleft()
                try:
                    await tell()
                except self._foreign as error:
                    self._waiting.appendleft(tell)
                    self._is_gone(error)
