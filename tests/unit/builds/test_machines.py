"""The builds of several machines on each one's board, by a state that they share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.builds import machines
from proxy.builds.board import BuildBoard
from proxy.builds.logs import BuildLogs
from proxy.builds.machines import SharedBuilds
from proxy.core.events import BuildEnded, BuildStarted, Event, LayersReady, LogLine, NixBegun, Resolved
from proxy.state import INTERRUPTED, BuildRecord
from proxy.state.sqlite import SqliteState, open_state

_REPORT = 15.0


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Farm:
    """Boards of several machines."""

    folder: Path
    state: SqliteState
    clock: Clock = field(default_factory=Clock)
    boards: list[BuildBoard] = field(default_factory=list)

    def machine(self, name: str) -> BuildBoard:
        shared = SharedBuilds(self.state, self.clock, report_seconds=_REPORT)
        logs = BuildLogs(self.folder / name)
        self.boards.append(BuildBoard(logs, shared, self.clock, machine=name, host=f"host-{name}"))
        return self.boards[-1]

    async def records(self, settled: Callable[[list[BuildRecord]], bool]) -> list[BuildRecord]:
        """The records as soon as they are so."""
        async with asyncio.timeout(20):
            while not settled(records := list(await self.state.builds(100))):
                await asyncio.sleep(0.01)
        return records


@pytest_asyncio.fixture
async def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Farm]:
    monkeypatch.setattr(machines, "_FRESH", 0.0)
    monkeypatch.setattr(machines, "_PAUSE", 0.01)
    async with open_state(tmp_path / "state.sqlite") as state:
        opened = Farm(tmp_path, state)
        yield opened
        for board in opened.boards:
            await board.close()


def feed(board: BuildBoard, *events: Event) -> None:
    for event in events:
        board.see(event)


async def test_what_becomes_of_each_build_is_recorded(farm: Farm) -> None:
    board = farm.machine("one")
    feed(board, BuildStarted("git", "latest"), BuildStarted("hello", "latest"), LogLine(("git",), "x", "key"))
    farm.clock.now += 2
    feed(
        board,
        BuildEnded("git", "latest", digest="sha256:aa"),
        BuildEnded("never-started", "latest", digest="sha256:bb"),
        BuildEnded("hello", "latest", error="x" * 5000),
        BuildStarted("hello", "latest"),
    )
    records = await farm.records(lambda found: len(found) == 3 and all(build.reported for build in found))
    builds = {(build.repository, build.started): build for build in records}

    git, hello, again = builds["git", 1000.0], builds["hello", 1000.0], builds["hello", 1002.0]
    assert (git.ended, git.digest, git.error, git.machine, git.host) == (
        1002.0,
        "sha256:aa",
        "",
        "one",
        "host-one",
    )
    assert (hello.ended, hello.digest, len(hello.error)) == (1002.0, "", 2000)
    assert again.ended == 0, "it runs"

    await board.close()
    records = await farm.records(lambda found: len(found) == 3)
    assert [build.error for build in records if build.id == again.id] == [INTERRUPTED], "it ran until the end"


async def test_each_machine_shows_the_builds_of_all(farm: Farm) -> None:
    one, other = farm.machine("one"), farm.machine("other")
    feed(one, BuildStarted("git", "latest"), Resolved("git", "latest", "key"), NixBegun("key", "building"))
    feed(one, LogLine(("git",), "a secret", "key"))
    await farm.records(lambda found: [build.phase for build in found] == ["building"])

    version = other.version
    await other.refresh()
    assert other.version != version, "its streams say it"
    (shown,) = other.running
    assert (shown.image, shown.step, shown.host) == ("git:latest", "building", "host-one")
    assert not other.is_here(shown)
    assert other.current("git", "latest") == other.get(shown.id) == shown
    assert one.current("git", "latest") == one.running[0], "its own has lines too"
    await one.refresh()
    assert len(one.running) == 1, "its own are not shown twice"

    feed(one, LayersReady("git", "latest", 1, 2))
    await farm.records(lambda found: [build.ready for build in found] == [1])
    await other.refresh()
    assert other.running[0].step == "packing, 1 of 2 layers are in the registry"

    endings = other.endings
    feed(one, BuildEnded("git", "latest", digest="sha256:aa"))
    await farm.records(lambda found: [build.digest for build in found] == ["sha256:aa"])
    await other.refresh()
    assert (other.running, other.ended[0].digest, other.ended[0].state) == ((), "sha256:aa", "made")
    assert other.endings != endings, "the registry has another image"
    version = other.version
    await other.refresh()
    assert other.version == version, "nothing is new"


async def test_a_build_of_a_dead_machine_does_not_run_for_ever(farm: Farm) -> None:
    dead = BuildRecord("id", "git", "latest", "dead", started=900.0, host="host-dead", reported=1000.0)
    await farm.state.record_build(dead)
    board = farm.machine("one")
    await board.refresh()
    assert [build.id for build in board.running] == ["id"]

    farm.clock.now += 3 * _REPORT + 1
    await board.refresh()

    assert board.running == ()
    (ended,) = board.ended
    assert (ended.state, ended.error, ended.ended) == ("failed", INTERRUPTED, 1000.0)


async def test_a_build_that_takes_long_is_reported_again_and_again(farm: Farm) -> None:
    board, other = farm.machine("one"), farm.machine("other")
    feed(board, BuildStarted("git", "latest"))
    for _ in range(5):
        farm.clock.now += 2 * _REPORT
        await farm.records(lambda found: [build.reported for build in found] == [farm.clock.now])
        await other.refresh()
        assert [build.image for build in other.running] == ["git:latest"]


async def test_what_an_earlier_process_left_was_interrupted(farm: Farm) -> None:
    await farm.state.record_build(BuildRecord("id", "git", "latest", "one", started=900.0, reported=1000.0))
    await farm.state.end_builds("one", 1001.0)
    board = farm.machine("one")
    await board.refresh()

    assert [(build.error, board.is_here(build)) for build in board.ended] == [(INTERRUPTED, True)]


async def test_without_the_state_a_machine_shows_its_own_builds_and_writes_them_later(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, other = farm.machine("one"), farm.machine("other")
    feed(other, BuildStarted("hello", "latest"))
    await farm.records(lambda found: len(found) == 1)
    tries = 0

    async def away(_: BuildRecord) -> bool:
        nonlocal tries
        tries += 1
        return False

    async def none(_: int) -> list[BuildRecord]:
        return []

    with monkeypatch.context() as gone:
        gone.setattr(farm.state, "record_build", away)
        gone.setattr(farm.state, "builds", none)
        feed(board, BuildStarted("git", "latest"))
        async with asyncio.timeout(20):
            while tries < 3:
                await asyncio.sleep(0.01)
        feed(board, BuildEnded("git", "latest", digest="sha256:aa"))
        await board.refresh()
        assert [build.image for build in (*board.running, *board.ended)] == ["git:latest"]

    await farm.records(lambda found: {(b.repository, b.digest) for b in found} >= {("git", "sha256:aa")})
    await board.refresh()
    assert {build.image for build in (*board.running, *board.ended)} == {"git:latest", "hello:latest"}


async def test_the_state_is_read_now_and_then(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_FRESH", 60.0)
    board = farm.machine("one")
    await board.refresh()
    await farm.state.record_build(BuildRecord("id", "git", "latest", "other", 1000.0, reported=1000.0))

    await asyncio.gather(*(board.refresh() for _ in range(10)))

    assert board.running == (), "the first reading is fresh"
