"""What the border of a store does while the store is gone, and when it is back."""

import logging

import pytest

from proxy import state_border
from proxy.errors import StateUnavailable
from proxy.state_border import Border


class Store:
    """A list that can be out of order."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.gone = False
        self.asked = 0

    async def tell(self, value: int) -> None:
        self.asked += 1
        if self.gone:
            raise OSError("no such store")
        self.kept.append(value)

    async def ask(self) -> list[int]:
        self.asked += 1
        if self.gone:
            raise OSError("no such store")
        return list(self.kept)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again at once."""
    monkeypatch.setattr(state_border, "_PAUSE", 0.0)


@pytest.mark.usefixtures("impatient")
async def test_what_could_not_be_written_is_written_in_order_when_the_store_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, border = Store(), Border("store", (OSError,))
    await border.write(lambda: store.tell(1))

    store.gone = True
    await border.write(lambda: store.tell(2))
    await border.write(lambda: store.tell(3))
    unknown: list[int] = await border.read(store.ask, [])
    store.gone = False
    known: list[int] = await border.read(store.ask, [])

    assert unknown == []
    assert known == [1], "what waited comes after the answer that showed that it is back"
    assert store.kept == [1, 2, 3]
    told = [record.getMessage().split(" store=")[0] for record in caplog.records]
    assert told == ["state gone, going on without it", "state back"], "one line each"


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_goes_again_in_the_middle_loses_nothing() -> None:
    store, border = Store(), Border("store", (OSError,))
    store.gone = True
    for value in (1, 2, 3):
        await border.write(lambda value=value: store.tell(value))  # type: ignore[misc]

    async def back_for_one() -> None:
        store.gone = False
        await store.tell(0)
        store.gone = True

    await border.write(back_for_one)
    assert store.kept == [0]

    store.gone = False
    await border.read(store.ask, [])
    assert store.kept == [0, 1, 2, 3]


async def test_a_store_that_is_gone_is_not_asked_by_every_pull() -> None:
    store, border = Store(), Border("store", (OSError,))
    store.gone = True

    for _ in range(20):
        assert await border.read(store.ask, [7]) == [7]
        await border.write(lambda: store.tell(1))

    assert store.asked == 1


@pytest.mark.usefixtures("impatient")
async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_border, "_MOST_WAITING", 2)
    store, border = Store(), Border("store", (OSError,))
    store.gone = True
    for value in (1, 2, 3):
        await border.write(lambda value=value: store.tell(value))  # type: ignore[misc]
    store.gone = False
    await border.read(store.ask, [])

    assert store.kept == [2, 3], "the oldest is given up"


async def test_an_error_that_is_not_the_stores_is_a_bug_and_rises(caplog: pytest.LogCaptureFixture) -> None:
    border = Border("store", (OSError,))

    async def wrong() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await border.read(wrong, None)
    with pytest.raises(KeyError):
        await border.write(wrong)
    assert caplog.record_tuples == []


async def test_check_says_so() -> None:
    store, border = Store(), Border("redis://host", (OSError,))
    await border.check(store.ask)

    store.gone = True
    with pytest.raises(StateUnavailable, match="redis://host does not answer: no such store"):
        await border.check(store.ask)


async def test_a_first_failure_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    store, border = Store(), Border("store", (OSError,))
    store.gone = True
    await border.read(store.ask, [])

    assert [record.levelno for record in caplog.records] == [logging.WARNING]
