"""One run for all who ask at once: tasks and resources shared by key. It knows no images.

Looking up and inserting happen with no `await` between them, so two callers cannot both start. A task belongs to the
owner of the `SingleFlight`, not to a caller: callers come and go (each waits behind a shield), the task runs to
its end, and its result or its error reaches all who still wait.
"""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs one task for each key at a time."""

    def __init__(
        self,
        failures: MutableMapping[K, Exception] | None = None,
        remember: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        """`failures` keeps the errors that `remember` approves of, for as long as that mapping keeps anything."""
        self._tasks: dict[K, asyncio.Task[V]] = {}
        self._failures = failures
        self._remember = remember

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """The result of `work` for this key: of the run that is under way, or of a new one.

        Raises what `work` raised, or what it raised a short while ago where that is remembered.
        """
        if self._failures is not None and (error := self._failures.get(key)) is not None:
            raise copy.copy(error)
        task = self._tasks.get(key) or self._start(key, work)
        return await asyncio.shield(task)

    async def settle(self, keys: Iterable[K]) -> None:
        """Wait until nothing is under way for these keys, whatever becomes of it."""
        await asyncio.gather(
            *(self._tasks[key] for key in keys if key in self._tasks), return_exceptions=True
        )

    @property
    def keys(self) -> tuple[K, ...]:
        """What is under way now."""
        return tuple(self._tasks)

    async def close(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: K, work: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        async def guarded() -> V:
            return await work()

        task = asyncio.create_task(guarded())
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: K, task: asyncio.Task[V]) -> None:
        del self._tasks[key]
        if task.cancelled():
            return
        error = task.exception()  # read, so that nobody is told that it never was
        if isinstance(error, Exception) and self._failures is not None and self._remember(error):
            # A copy has no traceback and no cause: those would keep alive whatever the frames held.
            self._failures[key] = copy.copy(error)


@dataclass(slots=True)
class _Held(Generic[V]):
    stack: AsyncExitStack
    opening: asyncio.Task[V]
    holders: int = field(default=0)


class Shared(Generic[K, V]):
    """Resources shared by key: opened for the first holder, closed after the last."""

    def __init__(self) -> None:
        """Nothing is open."""
        self._held: dict[K, _Held[V]] = {}

    @asynccontextmanager
    async def hold(self, key: K, opener: Callable[[], AbstractAsyncContextManager[V]]) -> AsyncIterator[V]:
        """The resource of this key, kept open at least until this context ends. Raises what opening it raised."""
        held = self._held.get(key)
        if held is None:
            stack = AsyncExitStack()
            held = _Held(stack, asyncio.create_task(stack.enter_async_context(opener())))
            self._held[key] = held
        held.holders += 1
        try:
            yield await asyncio.shield(held.opening)
        finally:
            held.holders -= 1
            if held.holders == 0:
                del self._held[key]
                await self._close(held)

    @staticmethod
    async def _close(held: _Held[V]) -> None:
        held.opening.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await held.opening  # its error, if any, has reached the holders
        await held.stack.aclose()
