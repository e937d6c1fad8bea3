"""Who builds what, and when: one build for each tag on all machines, and no more at once than this host bears.

    flight (all who ask this machine) -> queue (this machine's turns) -> lease (all machines) -> pipeline

A machine that does not get the lease gives its turn back and looks now and then: for the tag, for the error that the
other met, or for a lease that nobody prolongs any more because its holder is dead. The lease keeps work from being done
twice and nothing else: two who build the same image make the same bytes.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from proxy.core import errors
from proxy.core.errors import NixfrontError, Stopping
from proxy.core.model import ImageRequest
from proxy.pipeline.build import Pipeline
from proxy.registry.client import Registry
from proxy.state import Failure, State, TagRecord
from proxy.tools.fair_queue import FairQueue
from proxy.tools.flight import SingleFlight

_log = logging.getLogger(__name__)
_LOOK = 0.5  # seconds between two looks whether another machine is done
_OURSELVES = ""  # the client in whose name tags are refreshed


class Coordinator:
    """The builds of one machine."""

    def __init__(
        self,
        pipeline: Pipeline,
        registry: Registry,
        state: State,
        queue: FairQueue,
        *,
        machine: str,
        lease_seconds: float,
        failure_seconds: float,
    ) -> None:
        """`machine` holds the leases: a name that no other has, and that it has again after a crash."""
        self._pipeline = pipeline
        self._registry = registry
        self._state = state
        self._queue = queue
        self._machine = machine
        self._lease_seconds = lease_seconds
        self._failure_seconds = failure_seconds
        self._flights: SingleFlight[str, None] = SingleFlight()
        self._stopping = False

    async def ensure(self, request: ImageRequest, client: str = "") -> None:
        """The registry has the tag when this returns; a tag that it has already is left as it is.

        Goes on when the caller is cancelled. `client`: in the queue, each gets a share. Raises a `NixfrontError`.
        """
        key = _key(request)
        await self._run(key, lambda: self._make(key, request, client))

    async def refresh(self, request: ImageRequest, record: TagRecord) -> None:
        """The tag names what it means now, if it is still ours. Raises a `NixfrontError`."""
        key = f"refresh {request.repository}:{request.tag}"
        await self._run(key, lambda: self._renew(key, request, record))

    async def drain(self, seconds: float) -> None:
        """Start nothing new, and let what is under way end, for so long at most.

        What is broken off then is not lost: what it has realised and sent is there for the next pull.
        """
        self._stopping = True
        if not self._flights.keys:
            return
        _log.info("stopping, waiting for builds=%d seconds=%.0f", len(self._flights.keys), seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._flights.settle(self._flights.keys)), seconds)
        for key in self._flights.keys:
            _log.warning("build broken off, the next pull goes on with it image=%s", key)
        await self._flights.close()

    async def close(self) -> None:
        """Cancel the builds that are under way."""
        await self._flights.close()
        await self._pipeline.close()

    async def _run(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        if self._stopping and key not in self._flights.keys:
            raise Stopping("nixfront is being stopped and starts no build; try again in a moment")
        try:
            await self._flights.run(key, work)
        except asyncio.CancelledError as error:
            caller = asyncio.current_task()
            if self._stopping and caller is not None and not caller.cancelling():
                raise Stopping(
                    "nixfront is being stopped; what was built so far is kept, try again"
                ) from error
            raise

    async def is_new(self, request: ImageRequest) -> bool:
        """Whether `ensure` would begin a build: none is under way, none has just failed, and the tag is not there."""
        key = _key(request)
        return (
            key not in self._flights.keys
            and await self._state.recall_failure(key) is None
            and await self._registry.manifest_digest(request.repository, request.tag) is None
            and key not in self._flights.keys
        )

    async def _make(self, key: str, request: ImageRequest, client: str) -> None:
        async def done() -> bool:
            await self._raise_known(key)
            return await self._registry.manifest_digest(request.repository, request.tag) is not None

        await self._raise_known(key)
        await self._alone(key, client, lambda: self._pipeline.ensure(request), done)

    async def _renew(self, key: str, request: ImageRequest, record: TagRecord) -> None:
        async def done() -> bool:
            await self._raise_known(key)
            now = await self._state.recall_tag(record.repository, record.tag)
            return now is None or now.checked > record.checked

        await self._alone(key, _OURSELVES, lambda: self._pipeline.refresh(request, record), done)

    async def _alone(
        self,
        key: str,
        client: str,
        work: Callable[[], Awaitable[None]],
        done: Callable[[], Awaitable[bool]],
    ) -> None:
        """Work under the lease of this key, unless another machine has `done` it meanwhile."""
        while True:
            async with self._queue.turn(client):
                if await self._state.take(key, self._machine, self._lease_seconds):
                    async with self._prolonged(key):
                        return await self._told(key, work)
            await asyncio.sleep(_LOOK)
            if await done():
                return None

    async def _told(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Work; an error that another machine would meet too is told to all."""
        try:
            await work()
        except NixfrontError as error:
            if error.lasting:
                failure = Failure(type(error).__name__, str(error))
                await self._state.record_failure(key, failure, self._failure_seconds)
            raise

    async def _raise_known(self, key: str) -> None:
        failure = await self._state.recall_failure(key)
        if failure is not None:
            raise errors.from_record(failure.kind, failure.message)

    @asynccontextmanager
    async def _prolonged(self, key: str) -> AsyncIterator[None]:
        """The lease that was just taken, kept until the context ends."""

        async def prolong() -> None:
            while True:
                await asyncio.sleep(self._lease_seconds / 3)
                if not await self._state.take(key, self._machine, self._lease_seconds):
                    _log.warning("another machine took over what this one is building image=%s", key)

        prolonging = asyncio.create_task(prolong())
        try:
            yield
        finally:
            prolonging.cancel()
            await asyncio.gather(prolonging, return_exceptions=True)
            await self._state.release(key, self._machine)


def _key(request: ImageRequest) -> str:
    return f"{request.repository}:{request.tag}"
