"""Pulls are gathered and told to the state in one go."""

from pathlib import Path

import pytest

from proxy.state import ImageRecord, TagRecord, pulls
from proxy.state.pulls import Pulls
from proxy.state.sqlite import SqliteState, open_state
from tests.support.wait import until

TAG = TagRecord("git", "latest", "sha256:aa", "key", 1.0)


async def images(state: SqliteState) -> list[ImageRecord]:
    return [image async for image in state.images()]


async def test_the_last_pull_is_told_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "_EVERY", 0.05)
    clock = iter((5.0, 6.0, 7.0, 6.0))
    async with open_state(tmp_path / "state") as state:
        await state.record_tag(TAG)
        gathered = Pulls(state, lambda: next(clock))
        gathered.pulled("git", "sha256:aa", 0)
        gathered.pulled("git", "sha256:aa", 1)
        gathered.pulled("git", "sha256:aa", 1)
        gathered.pulled("other", "sha256:aa", 1)

        async def told() -> bool:
            return (await images(state))[0].pulled > 0

        await until(told)
        assert await images(state) == [ImageRecord("git", "sha256:aa", 1.0, 7.0, pulls=2)], (
            "a HEAD is no pull"
        )
        await gathered.close()


async def test_nothing_is_lost_at_the_end(tmp_path: Path) -> None:
    async with open_state(tmp_path / "state") as state:
        await state.record_tag(TAG)
        gathered = Pulls(state, lambda: 9.0)
        gathered.pulled("git", "sha256:aa", 1)
        assert await images(state) == [ImageRecord("git", "sha256:aa", 1.0)], "not yet"
        await gathered.close()

        assert (await images(state))[0].pulled == 9.0
