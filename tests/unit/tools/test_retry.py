"""Repeating what failed: how often, after which pauses, and what comes out."""

import asyncio

import pytest

from proxy.tools.retry import retry


class Away(Exception):
    """An error that passes."""


class Wrong(Exception):
    """An error that stays."""


class Work:
    """Raises these errors in turn, then returns its number of runs."""

    def __init__(self, *errors: Exception) -> None:
        self.runs = 0
        self._errors = list(errors)

    async def __call__(self) -> int:
        self.runs += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.runs


def tries(error: Exception) -> int:
    return 3 if isinstance(error, Away) else 1


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which takes time."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("tenacity.asyncio._portable_async_sleep", sleep)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return made


async def test_what_works_runs_once(pauses: list[float]) -> None:
    assert await retry(Work(), tries, 0.2) == 1
    assert pauses == []


async def test_an_error_that_passes_is_tried_again_after_pauses_that_double(pauses: list[float]) -> None:
    assert await retry(Work(Away(), Away()), tries, 0.2) == 3
    assert pauses == [0.2, 0.4]


async def test_the_error_of_the_last_try_is_raised_as_it_was(pauses: list[float]) -> None:
    last = Away("third")
    work = Work(Away("first"), Away("second"), last)

    with pytest.raises(Away) as caught:
        await retry(work, tries, 0.2)

    assert caught.value is last
    assert work.runs == 3
    assert len(pauses) == 2


async def test_an_error_that_stays_is_raised_at_once_also_after_others(pauses: list[float]) -> None:
    work = Work(Away(), Wrong())

    with pytest.raises(Wrong):
        await retry(work, tries, 0.2)

    assert work.runs == 2
    assert pauses == [0.2]


async def test_tries_count_all_runs_whatever_failed_before(pauses: list[float]) -> None:
    def fewer(error: Exception) -> int:
        return 4 if isinstance(error, Away) else 2

    work = Work(Away(), Away(), Wrong())

    with pytest.raises(Wrong):
        await retry(work, fewer, 1.0)

    assert work.runs == 3


async def test_an_error_may_name_its_pause(pauses: list[float]) -> None:
    assert await retry(Work(Away("7"), Away("9")), tries, lambda error: float(str(error))) == 3
    assert pauses == [7.0, 9.0]


async def test_a_cancellation_is_never_repeated() -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(retry(work, lambda _: 5, 0.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert runs == 1
