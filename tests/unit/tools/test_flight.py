"""One run for all who ask at once, and one resource for all who hold it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from proxy.tools.flight import Shared, SingleFlight


class Work:
    """Something that takes until `finish` is set, counts its runs, and then gives `result` or raises it."""

    def __init__(self, result: str | Exception = "done") -> None:
        self.result = result
        self.finish = asyncio.Event()
        self.runs = 0

    async def __call__(self) -> str:
        self.runs += 1
        await self.finish.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def settled() -> None:
    """Every task has gone as far as it can without anything from outside."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_nobody_waits_for_can_be_abandoned() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    idle, wanted = Work(), Work()
    left = asyncio.create_task(flight.run("idle", idle))
    both = [asyncio.create_task(flight.run("wanted", wanted)) for _ in range(2)]
    await settled()
    for caller in (left, both[0]):
        caller.cancel()
    await settled()
    abandoning = asyncio.create_task(flight.abandon(["idle", "wanted", "none"]))
    await settled()
    assert list(flight.keys) == ["wanted"]
    assert not abandoning.done(), "it waits for the other one"
    wanted.finish.set()
    await abandoning
    assert await both[1] == "done"
    assert not flight.keys


async def test_those_who_ask_at_once_share_one_run() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    work = Work()
    waiters = [asyncio.create_task(flight.run("key", work)) for _ in range(5)]
    await settled()
    assert list(flight.keys) == ["key"]

    work.finish.set()

    assert await asyncio.gather(*waiters) == ["done"] * 5
    assert work.runs == 1
    assert not flight.keys


async def test_each_key_has_its_own_run() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    works = {key: Work(key) for key in "ab"}
    waiters = [asyncio.create_task(flight.run(key, work)) for key, work in works.items()]
    await settled()
    assert set(flight.keys) == {"a", "b"}

    for work in works.values():
        work.finish.set()

    assert await asyncio.gather(*waiters) == ["a", "b"]


async def test_who_asks_after_the_end_gets_a_new_run() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    work = Work()
    work.finish.set()

    await flight.run("key", work)
    await flight.run("key", work)

    assert work.runs == 2


@pytest.mark.parametrize("result", ["done", ValueError("no")], ids=["a result", "an error"])
async def test_a_waiter_that_goes_away_takes_nothing_from_the_others(result: str | Exception) -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    work = Work(result)
    first, *others = (asyncio.create_task(flight.run("key", work)) for _ in range(3))
    await settled()

    first.cancel()
    await settled()
    work.finish.set()

    assert await asyncio.gather(*others, return_exceptions=True) == [result, result]
    assert first.cancelled()
    assert work.runs == 1


async def test_the_run_goes_on_when_all_have_gone_and_who_comes_back_joins_it() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    work = Work()
    gone = asyncio.create_task(flight.run("key", work))
    await settled()

    gone.cancel()
    await settled()
    back = asyncio.create_task(flight.run("key", work))
    await settled()
    work.finish.set()

    assert await back == "done"
    assert work.runs == 1


async def test_an_error_that_nobody_waits_for_is_no_complaint_of_the_loop() -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    flight: SingleFlight[str, str] = SingleFlight()
    work = Work(ValueError("no"))
    gone = asyncio.create_task(flight.run("key", work))
    await settled()

    gone.cancel()
    await settled()
    work.finish.set()
    await settled()

    assert complaints == []
    assert not flight.keys


async def test_a_failure_is_forgotten_where_nothing_remembers() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    work = Work(ValueError("no"))
    work.finish.set()
    with pytest.raises(ValueError, match="no"):
        await flight.run("key", work)

    work.result = "mended"

    assert await flight.run("key", work) == "mended"


async def test_close_ends_what_is_under_way() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    waiters = [asyncio.create_task(flight.run(key, Work())) for key in "aab"]
    await settled()

    await flight.close()

    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 3
    assert not flight.keys


async def test_close_waits_for_what_has_to_be_tidied_up() -> None:
    flight: SingleFlight[str, None] = SingleFlight()
    tidied = False

    async def work() -> None:
        nonlocal tidied
        try:
            await asyncio.Event().wait()
        finally:
            await settled()
            tidied = True

    waiter = asyncio.create_task(flight.run("key", work))
    await settled()

    await flight.close()

    assert tidied
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_closing_an_idle_flight_is_nothing() -> None:
    await SingleFlight[str, str]().close()


class Resource:
    """Counts how often it was opened and closed; opening takes until `ready` is set, then fails with `error`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.ready = asyncio.Event()
        self.opened = self.closed = self.given_up = 0

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[str]:
        self.opened += 1
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            await settled()  # as a real one has something to tidy up
            self.given_up += 1
            raise
        if self.error is not None:
            raise self.error
        try:
            yield f"resource {self.opened}"
        finally:
            self.closed += 1

    @property
    def opener(self) -> Callable[[], AbstractAsyncContextManager[str]]:
        return self._open


async def held(
    shared: Shared[str, str], resource: Resource, let_go: asyncio.Event, error: Exception | None = None
) -> str:
    async with shared.hold("key", resource.opener) as value:
        await let_go.wait()
        if error is not None:
            raise error
        return value


async def test_a_resource_is_opened_once_and_closed_after_the_last_holder() -> None:
    shared: Shared[str, str] = Shared()
    resource = Resource()
    resource.ready.set()
    let_go = [asyncio.Event(), asyncio.Event()]
    holders = [asyncio.create_task(held(shared, resource, event)) for event in let_go]
    await settled()

    let_go[0].set()
    await settled()
    assert (resource.opened, resource.closed) == (1, 0)
    let_go[1].set()

    assert await asyncio.gather(*holders) == ["resource 1"] * 2
    assert (resource.opened, resource.closed) == (1, 1)


async def test_who_comes_after_the_last_holder_gets_a_new_one() -> None:
    shared: Shared[str, str] = Shared()
    resource = Resource()
    resource.ready.set()

    for number in (1, 2):
        async with shared.hold("key", resource.opener) as value:
            assert value == f"resource {number}"

    assert (resource.opened, resource.closed) == (2, 2)


async def test_each_key_has_its_own_resource() -> None:
    shared: Shared[str, str] = Shared()
    one, two = Resource(), Resource()
    one.ready.set()
    two.ready.set()

    async with shared.hold("a", one.opener), shared.hold("b", two.opener):
        assert (one.opened, two.opened) == (1, 1)

    assert (one.closed, two.closed) == (1, 1)


async def test_an_error_of_the_opening_reaches_all_holders_and_is_forgotten() -> None:
    shared: Shared[str, str] = Shared()
    resource = Resource(ValueError("no"))
    holders = [asyncio.create_task(held(shared, resource, asyncio.Event())) for _ in range(3)]
    await settled()

    resource.ready.set()
    results = await asyncio.gather(*holders, return_exceptions=True)

    assert results == [resource.error] * 3
    assert (resource.opened, resource.closed) == (1, 0)
    resource.error = None
    async with shared.hold("key", resource.opener) as value:
        assert value == "resource 2"


async def test_an_error_of_one_holder_is_its_own() -> None:
    shared: Shared[str, str] = Shared()
    resource = Resource()
    resource.ready.set()
    let_go = [asyncio.Event(), asyncio.Event()]
    failing = asyncio.create_task(held(shared, resource, let_go[0], ValueError("mine")))
    other = asyncio.create_task(held(shared, resource, let_go[1]))
    await settled()

    let_go[0].set()
    with pytest.raises(ValueError, match="mine"):
        await failing

    assert resource.closed == 0
    let_go[1].set()
    assert await other == "resource 1"
    assert resource.closed == 1


async def test_a_holder_that_goes_away_during_the_opening_takes_nothing_from_the_others() -> None:
    shared: Shared[str, str] = Shared()
    resource = Resource()
    let_go = asyncio.Event()
    first, second = (asyncio.create_task(held(shared, resource, let_go)) for _ in range(2))
    await settled()

    first.cancel()
    await settled()
    resource.ready.set()
    let_go.set()

    assert await second == "resource 1"
    assert first.cancelled()
    assert (resource.opened, resource.closed, resource.given_up) == (1, 1, 0)


async def test_the_opening_is_given_up_when_the_last_holder_goes_away() -> None:
    shared: Shared[str, str] = Shared()
    resource = Resource()
    holders = [asyncio.create_task(held(shared, resource, asyncio.Event())) for _ in range(2)]
    await settled()

    for holder in holders:
        holder.cancel()
    await asyncio.gather(*holders, return_exceptions=True)

    assert all(holder.cancelled() for holder in holders)
    assert (resource.opened, resource.closed, resource.given_up) == (1, 0, 1)
    resource.ready.set()
    async with shared.hold("key", resource.opener) as value:
        assert value == "resource 2"


async def test_a_holder_that_is_cancelled_while_it_holds_lets_go() -> None:
    shared: Shared[str, str] = Shared()
    resource = Resource()
    resource.ready.set()
    holder = asyncio.create_task(held(shared, resource, asyncio.Event()))
    await settled()

    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)

    assert (resource.opened, resource.closed) == (1, 1)
