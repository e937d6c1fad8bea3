"""What the border of a store does while the store is gone, and when it is back."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.core.errors import StateUnavailable
from proxy.state import outage
from proxy.state.outage import WriteBehind


class Store:
    """A list that can be out of order."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.gone = False
        self.asked = 0
        self.takes = 100  # writes until it is out of order

    async def tell(self, value: int) -> None:
        self.asked += 1
        if self.gone:
            raise OSError("no such store")
        self.kept.append(value)
        self.takes -= 1
        self.gone = not self.takes

    async def ask(self) -> list[int]:
        self.asked += 1
        if self.gone:
            raise OSError("no such store")
        return list(self.kept)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for all the time."""
    monkeypatch.setattr(outage, "_PAUSE", 0.0)


@pytest_asyncio.fixture
async def store() -> Store:
    return Store()


@pytest_asyncio.fixture
async def border(store: Store) -> AsyncIterator[WriteBehind]:
    made = WriteBehind("store", (OSError,), store.ask)
    yield made
    await made.close()


async def back(border: WriteBehind) -> None:
    async with asyncio.timeout(60):
        while border._looking is not None:
            await asyncio.sleep(0)


async def test_what_could_not_be_written_is_written_in_order_when_the_store_is_back(
    store: Store, border: WriteBehind, caplog: pytest.LogCaptureFixture
) -> None:
    await border.write(lambda: store.tell(1))

    store.gone = True
    await border.write(lambda: store.tell(2))
    await border.write(lambda: store.tell(3))
    unknown: list[int] = await border.read(store.ask, [])
    store.gone = False
    await back(border)
    known: list[int] = await border.read(store.ask, [])

    assert unknown == []
    assert known == [1, 2, 3]
    told = [record.getMessage().split(" store=")[0] for record in caplog.records]
    assert told == ["state gone, going on without it", "state back"], "one line each"
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_store_that_goes_again_in_the_middle_loses_nothing(store: Store, border: WriteBehind) -> None:
    store.gone = True
    for value in (1, 2, 3):
        await border.write(lambda value=value: store.tell(value))  # type: ignore[misc]

    store.takes = 1
    store.gone = False
    async with asyncio.timeout(60):
        while not store.gone:
            await asyncio.sleep(0)
    assert store.kept == [1]

    store.gone = False
    await back(border)
    assert store.kept == [1, 2, 3]


async def test_a_store_that_is_gone_is_not_asked_by_every_pull(
    store: Store, border: WriteBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_PAUSE", 60.0)
    store.gone = True

    for _ in range(20):
        assert await border.read(store.ask, [7]) == [7]
        await border.write(lambda: store.tell(1))

    assert store.asked == 1


async def test_what_waits_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_MOST_WAITING", 2)
    border = WriteBehind("store", (OSError,), store.ask)
    store.gone = True
    for value in (1, 2, 3):
        await border.write(lambda value=value: store.tell(value))  # type: ignore[misc]
    store.gone = False
    await back(border)

    assert store.kept == [2, 3], "the oldest is given up"


async def test_what_a_store_refuses_for_good_does_not_block_the_rest(
    store: Store, border: WriteBehind, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused() -> None:
        raise OSError("never")

    await border.write(refused)
    await border.write(lambda: store.tell(1))
    await back(border)

    assert store.kept == [1]
    assert "state refuses a write, which is lost store=store error=never" in caplog.text


async def test_an_error_that_is_not_the_stores_is_a_bug_and_rises(
    border: WriteBehind, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrong() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await border.read(wrong, None)
    with pytest.raises(KeyError):
        await border.write(wrong)
    assert caplog.record_tuples == []


async def test_check_says_so(store: Store, border: WriteBehind) -> None:
    await border.check(store.ask)

    store.gone = True
    with pytest.raises(StateUnavailable, match="store does not answer: no such store"):
        await border.check(store.ask)


async def test_many_calls_at_once_meet_it_once(
    store: Store, border: WriteBehind, caplog: pytest.LogCaptureFixture
) -> None:
    store.gone = True
    await asyncio.gather(*(border.read(store.ask, []) for _ in range(10)))
    store.gone = False
    await back(border)

    assert len(caplog.records) == 2
