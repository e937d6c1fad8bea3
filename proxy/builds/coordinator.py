"""Who builds what, and when: one build for each tag on all machines, and no more builds at once than this host bears.

    flight (all clients of this machine) -> look -> queue (this machine's turns) -> lease (all machines) -> pipeline

The look (`is_new`, or the first step of a flight) asks the registry for the tag under every media type, because a
client's own request may name too few of them.
It is repeated only after a wait, in the queue or for a lease, in which another machine may have built the image.

A build that has its turn and its lease outlives its clients. One that still waits for either ends with the last `Visit`:
whoever asks for much and goes away holds no place in the queue.

A machine that does not get the lease gives its turn back and looks now and then: for the tag, for the error that the
other machine recorded, or for a lease that nobody prolongs any more because its holder is dead. The lease saves work and
does nothing else: two machines that build the same image make the same bytes.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from proxy.core import errors
from proxy.core.errors import NixfrontError, Stopping
from proxy.core.model import ImageRequest
from proxy.pipeline.build import Pipeline
from proxy.pipeline.destination import Destination
from proxy.state import Failure, State, TagRecord
from proxy.tools.fair_queue import FairQueue, Ticket
from proxy.tools.flight import SingleFlight

_log = logging.getLogger(__name__)
_LOOK = 0.5  # seconds between two looks whether another machine is done
_OURSELVES = ""  # the client of the queue that refreshes tags
_RETURN = 30.0  # seconds in which a client comes again that was sent away for that; clients pause between their tries


@dataclass(slots=True)
class Visit:
    """A client that waits for an image. `returns`: whether this answer makes it ask again, so that it keeps its place."""

    returns: bool = False


class Coordinator:
    """The builds of one machine."""

    def __init__(
        self,
        pipeline: Pipeline,
        registry: Destination,
        state: State,
        queue: FairQueue,
        *,
        machine: str,
        lease_seconds: float,
        failure_seconds: float,
    ) -> None:
        """`machine` is the holder of the leases: a name that no other machine has, and the same after a crash."""
        self._pipeline = pipeline
        self._registry = registry
        self._state = state
        self._queue = queue
        self._machine = machine
        self._lease_seconds = lease_seconds
        self._failure_seconds = failure_seconds
        self._flights: SingleFlight[str, None] = SingleFlight()
        self._tickets: dict[str, Ticket] = {}
        self._begun: set[str] = set()
        self._stopping = False

    async def image(self, request: ImageRequest, client: str = "", *, is_absent: bool = False) -> None:
        """The registry has the tag or digest when this returns; a tag that is there already is left as it is.

        `client` gets its share of the queue. `is_absent`: the registry said a moment ago that it has no such thing of any
        media type; that saves a question to it. A build that has begun goes on when the caller is cancelled. Raises a
        `NixfrontError`.
        """
        key = request.key
        with self.visit(request, client):
            ticket = self._tickets[key]
            await self._run(key, lambda: self._make(key, request, ticket, is_absent=is_absent))

    @contextmanager
    def visit(self, request: ImageRequest, client: str) -> Iterator[Visit]:
        """This client waits for the image as long as the context lasts, and for a while longer if it `returns`.

        A build that has not begun is dropped when nobody waits for it any more.
        """
        key, visit = request.key, Visit()
        ticket = self._tickets.setdefault(key, Ticket())
        ticket.clients[client] += 1
        try:
            yield visit
        finally:
            if visit.returns:
                asyncio.get_running_loop().call_later(_RETURN, self._leave, key, ticket, client)
            else:
                self._leave(key, ticket, client)

    def _leave(self, key: str, ticket: Ticket, client: str) -> None:
        ticket.leave(client)
        if not ticket.clients:
            del self._tickets[key]
            if key not in self._begun:
                self._flights.drop(key)

    async def is_new(self, request: ImageRequest, *, is_absent: bool = False) -> bool:
        """Whether `image` would start a build: no build of it runs, none failed recently, and the image is not there."""
        key = request.key
        return (
            key not in self._flights.keys
            and await self._state.recall_failure(key) is None
            and (is_absent or not await self._is_there(request))
            and key not in self._flights.keys
        )

    async def refresh(self, request: ImageRequest, record: TagRecord) -> None:
        """Make the tag name the image that it means now, if it is still ours. Raises a `NixfrontError`."""
        key = f"refresh {request.repository}:{request.tag}"
        await self._run(key, lambda: self._renew(key, request, record))

    async def attach(self, request: ImageRequest, due: float) -> None:
        """Make an image again that is there, so that it gets its documents, unless another machine does so now.

        The request has its digest; `due` is of its record. Raises a `NixfrontError`.
        """
        key = f"documents {request.key}"

        async def is_done() -> bool:
            await self._raise_failure(key)
            now = await self._state.recall_image(request.repository, request.digest)
            return now is None or now.due != due

        ticket = Ticket(_OURSELVES)
        await self._run(key, lambda: self._alone(key, ticket, lambda: self._pipeline.make(request), is_done))

    async def drain(self, seconds: float) -> None:
        """Start no build any more, and wait at most these seconds for those that run. Then cancel the rest.

        Their work is not lost: the next pull finds the store paths and blobs that are there.
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
        """Cancel the builds that run."""
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

    async def _make(self, key: str, request: ImageRequest, ticket: Ticket, *, is_absent: bool) -> None:
        async def is_done() -> bool:
            await self._raise_failure(key)
            return await self._is_there(request)

        if is_absent:
            await self._raise_failure(key)
        elif await is_done():
            return

        def work() -> Awaitable[None]:
            return self._pipeline.make(request, client=next(iter(ticket.clients), _OURSELVES))

        await self._alone(key, ticket, work, is_done)

    async def _is_there(self, request: ImageRequest) -> bool:
        """Whether the tag is there under any media type: then it stays, no matter who pushed it. Likewise a digest."""
        if request.blob:
            return await self._registry.has_blob(request.repository, request.blob)
        return await self._registry.manifest_digest(request.repository, request.reference) is not None

    async def _renew(self, key: str, request: ImageRequest, record: TagRecord) -> None:
        async def is_done() -> bool:
            await self._raise_failure(key)
            now = await self._state.recall_tag(record.repository, record.tag)
            return now is None or now.checked > record.checked

        ticket = Ticket(_OURSELVES)
        await self._alone(key, ticket, lambda: self._pipeline.make(request, record), is_done)

    async def _alone(
        self,
        key: str,
        ticket: Ticket,
        work: Callable[[], Awaitable[None]],
        is_done: Callable[[], Awaitable[bool]],
    ) -> None:
        """Do the work under the lease of this key, unless another machine did it while this one waited."""
        while True:
            async with self._queue.turn(ticket) as waited:
                if await self._state.take(key, self._machine, self._lease_seconds):
                    self._begun.add(key)
                    try:
                        async with _prolonged(self._state, key, self._machine, self._lease_seconds):
                            if not (waited and await is_done()):
                                await self._record_failure(key, work)
                            return
                    finally:
                        self._begun.discard(key)
            await asyncio.sleep(_LOOK)
            if await is_done():
                return

    async def _record_failure(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work; an error that every machine would meet again is recorded for all of them."""
        try:
            await work()
        except NixfrontError as error:
            if error.lasting:
                failure = Failure(type(error).__name__, str(error))
                await self._state.record_failure(key, failure, self._failure_seconds)
            raise

    async def _raise_failure(self, key: str) -> None:
        failure = await self._state.recall_failure(key)
        if failure is not None:
            raise errors.from_record(failure.kind, failure.message)


@asynccontextmanager
async def _prolonged(state: State, key: str, machine: str, seconds: float) -> AsyncIterator[None]:
    """Prolong the lease, which this machine has just taken, until the context ends; then release it."""

    async def prolong() -> None:
        while True:
            await asyncio.sleep(seconds / 3)
            if not await state.take(key, machine, seconds):
                _log.warning("another machine took over what this one is building image=%s", key)

    prolonging = asyncio.create_task(prolong())
    try:
        yield
    finally:
        prolonging.cancel()
        await asyncio.gather(prolonging, return_exceptions=True)
        await state.release(key, machine)
