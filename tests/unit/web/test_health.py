"""Whether we say that we can work."""

import asyncio

import pytest

from proxy.core.errors import RegistryUnavailable
from proxy.web.health import Health


async def fine() -> None:
    pass


async def broken() -> None:
    raise RegistryUnavailable("it does not answer")


async def test_nothing_wrong_is_no_problem() -> None:
    assert await Health({"registry": fine, "nix": fine}).problems() == {}


async def test_what_is_wrong_is_told_by_its_name() -> None:
    assert await Health({"registry": broken, "nix": fine}).problems() == {"registry": "it does not answer"}


async def test_it_is_not_ready_while_it_stops() -> None:
    health = Health({"registry": fine})
    assert await health.problems() == {}

    health.stop()

    assert list(await health.problems()) == ["shutdown"]


async def test_many_who_ask_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.web.health._VALID", 600.0)
    asked = 0

    async def counted() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)

    health = Health({"nix": counted})
    await asyncio.gather(*(health.problems() for _ in range(50)))
    await health.problems()

    assert asked == 1


async def test_one_who_goes_away_does_not_take_the_answer_along() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await go.wait()

    health = Health({"nix": slow})
    first = asyncio.create_task(health.problems())
    await begun.wait()
    second = asyncio.create_task(health.problems())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()

    assert await second == {}
    await health.close()
