"""Tasks and resources that callers share by key: one run for all callers of a moment.

Lookup and insertion happen with no `await` between them, so two callers cannot both start a task. A task belongs to the
owner of the `SingleFlight` and not to a caller. Callers come and go (each one waits behind a shield); the task runs to
its end, and its result or its error reaches all callers that still wait.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs one task for each key at a time."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}
        self._dropped: set[asyncio.Task[V]] = set()
        self._callers: Counter[K] = Counter()

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """The result of `work` for this key: of the run that is under way, or of a new one. Raises what `work` raised."""
        task = self._tasks.get(key) or self._start(key, work)
        self._callers[key] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._callers[key] -= 1
            if not self._callers[key]:
                del self._callers[key]

    async def settle(self, keys: Iterable[K]) -> None:
        """Wait until no task of these keys runs; their errors are not raised."""
        if tasks := [self._tasks[key] for key in keys if key in self._tasks]:
            await asyncio.wait(tasks)

    async def abandon(self, keys: Iterable[K]) -> None:
        """Cancel the tasks of these keys that no caller waits for, then `settle`."""
        keys = list(keys)
        for key in keys:
            if key in self._tasks and not self._callers[key]:
                self._tasks[key].cancel()
        await self.settle(keys)

    def drop(self, key: K) -> None:
        """Cancel the task of this key. The next caller with the key starts another one at once."""
        if (task := self._tasks.pop(key, None)) is not None:
            task.cancel()
            self._dropped.add(task)

    @property
    def keys(self) -> tuple[K, ...]:
        """The keys whose tasks run now."""
        return tuple(self._tasks)

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        tasks = [*self._tasks.values(), *self._dropped]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: K, work: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        async def guarded() -> V:
            return await work()

        task = asyncio.create_task(guarded())
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._end(key, done))
        return task

    def _end(self, key: K, task: asyncio.Task[V]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        self._dropped.discard(task)
        if not task.cancelled():
            task.exception()  # read here, so that asyncio does not log it if no caller waits any more


@dataclass(slots=True)
class _Resource(Generic[V]):
    stack: AsyncExitStack
    opening: asyncio.Task[V]
    holders: int = field(default=0)


class Shared(Generic[K, V]):
    """Resources shared by key: opened for the first holder, closed after the last."""

    def __init__(self) -> None:
        self._resources: dict[K, _Resource[V]] = {}

    @asynccontextmanager
    async def hold(self, key: K, opener: Callable[[], AbstractAsyncContextManager[V]]) -> AsyncIterator[V]:
        """The resource of this key, open at least until this context ends. Raises what its opener raises."""
        resource = self._resources.get(key)
        if resource is None:
            stack = AsyncExitStack()
            resource = _Resource(stack, asyncio.create_task(stack.enter_async_context(opener())))
            self._resources[key] = resource
        resource.holders += 1
        try:
            yield await asyncio.shield(resource.opening)
        finally:
            resource.holders -= 1
            if resource.holders == 0:
                del self._resources[key]
                await self._close(resource)

    @staticmethod
    async def _close(resource: _Resource[V]) -> None:
        resource.opening.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await resource.opening  # its error, if any, has reached the holders
        await resource.stack.aclose()
