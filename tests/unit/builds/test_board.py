"""What builds do and did, out of their events; and their logs on disk."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.builds import board
from proxy.builds import logs as builds_logs
from proxy.builds.board import BuildBoard
from proxy.builds.build import BUILDING, EVALUATING, PACKING, RESOLVING, WAITING
from proxy.builds.logs import BuildLogs
from proxy.builds.machines import SharedBuilds
from proxy.core import request
from proxy.core.events import (
    BuildEnded,
    BuildStarted,
    Collided,
    Event,
    LayersReady,
    LogLine,
    NixBegun,
    PlatformEnded,
    Resolved,
)
from proxy.state.sqlite import SqliteState, open_state

HASH = "a" * 32


@pytest_asyncio.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    async with open_state(tmp_path / "state.sqlite") as opened:
        yield opened


@pytest_asyncio.fixture
async def builds(tmp_path: Path, state: SqliteState) -> AsyncIterator[BuildBoard]:
    moments = iter(float(number) for number in range(1000))
    opened = on(tmp_path / "logs", state, lambda: next(moments))
    yield opened
    await opened.close()


def on(folder: Path, state: SqliteState, clock: Callable[[], float] = time.time) -> BuildBoard:
    shared = SharedBuilds(state, clock, report_seconds=15)
    return BuildBoard(BuildLogs(folder), shared, clock, machine="one", host="host-one")


async def test_a_build_from_its_first_to_its_last_event(builds: BuildBoard) -> None:
    phases = []

    def now(*events: object) -> None:
        for event in events:
            builds.see(event)  # type: ignore[arg-type]
        phases.append(builds.running[0].phase)

    now(BuildStarted("hello", "latest"))
    now(Resolved("hello", "latest", "key"))
    now(NixBegun("key", "evaluating"))
    now(NixBegun("key", "building"))
    now(
        LogLine(("hello",), "these 2 derivations will be built:", "key"),
        LogLine(("hello",), f"building '/nix/store/{HASH}-hello-1.drv'...", "key"),
    )
    assert (builds.running[0].nix.built, builds.running[0].nix.to_build) == (1, 2)
    assert builds.running[0].last_line.startswith("building")
    now(LayersReady("hello", "latest", 1, 4))
    assert (builds.running[0].ready, builds.running[0].total) == (1, 4)
    builds.see(BuildEnded("hello", "latest", digest="sha256:0", seconds=(("nix", 1.5),)))

    assert phases == [RESOLVING, WAITING, EVALUATING, BUILDING, BUILDING, PACKING]
    assert builds.running == ()
    (ended,) = builds.ended
    assert (ended.state, ended.digest, ended.seconds) == ("made", "sha256:0", (("nix", 1.5),))
    assert ended.ended > ended.started
    assert builds.latest("hello", "latest") == ended


async def test_builds_of_the_same_packages_have_the_same_log(builds: BuildBoard) -> None:
    for repository in ("a/b", "b/a"):
        builds.see(BuildStarted(repository, "latest"))
        builds.see(Resolved(repository, "latest", "key"))
    builds.see(LogLine(("a", "b"), "one", "key"))
    builds.see(LogLine(("a", "b"), "two", "key"))

    one, other = builds.running

    assert one.id != other.id
    assert builds.lines_since(one.id, 0) == builds.lines_since(other.id, 0) == (("one", "two"), 2)
    assert builds.lines_since(one.id, 1) == (("two",), 2)
    assert await builds.log(one.id) == await builds.log(other.id) == "one\ntwo\n"


async def test_who_watches_reads_the_last_lines_after_the_end(builds: BuildBoard) -> None:
    builds.see(BuildStarted("a", "latest"))
    builds.see(Resolved("a", "latest", "key"))
    builds.see(LogLine(("a",), "last", "key"))
    (build,) = builds.running
    builds.see(BuildEnded("a", "latest", digest="sha256:0"))
    assert await builds.log(build.id) == "last\n"  # so the log is closed

    assert builds.lines_since(build.id, 0) == (("last",), 1)


async def test_a_build_is_called_by_the_id_of_its_request(builds: BuildBoard) -> None:
    token = request.CURRENT.set("abcdefgh12345678")
    builds.see(BuildStarted("a", "latest"))
    builds.see(BuildStarted("b", "latest"))
    request.CURRENT.reset(token)

    assert builds.running[0].id == "abcdefgh12345678"
    assert builds.running[1].id != "abcdefgh12345678", "one id is one build"


async def test_whoever_waits_hears_of_a_change(builds: BuildBoard) -> None:
    waiting = asyncio.create_task(builds.change(builds.version))
    await asyncio.sleep(0)

    builds.see(BuildStarted("a", "latest"))

    await asyncio.wait_for(waiting, 60)


async def test_what_ended_is_there_after_a_restart(tmp_path: Path, state: SqliteState) -> None:
    builds = on(tmp_path, state)
    builds.see(BuildStarted("a", "latest"))
    builds.see(Resolved("a", "latest", "key"))
    builds.see(LogLine(("a",), "said", "key"))
    builds.see(BuildEnded("a", "latest", error="no", outcome="BuildFailed", seconds=(("set", 0.5),)))
    await builds.close()

    again = on(tmp_path, state)
    await again.open()
    await again.refresh()

    assert again.ended == builds.ended
    assert await again.log(again.ended[0].id) == "said\n"


WRONG: tuple[dict[str, Any], ...] = (
    *({"id": 7}, {"id": "../x"}, {"id": "x"}, {"ended": "x"}, {"ended": 0}, {"ended": True}),
    *({"ended": float("nan")}, {"ended": 1e300}, {"ended": None}, {"ended": [1]}, {"started": "x"}),
    *({"repository": 7}, {"tag": None}, {"digest": []}, {"error": {}}, {"host": 1}, {"lines": "1"}),
    *({"nix": 7}, {"nix": {"x": 1}}, {"nix": {"built": "1"}}, {"nix": {"now": 1}}),
    *({"seconds": 7}, {"seconds": [1]}, {"seconds": [["a", "x"]]}, {"seconds": [["a"]]}),
)
WHOLE: dict[str, Any] = {
    "id": "y",
    "repository": "git",
    "tag": "latest",
    "started": 1.0,
    "ended": 2.0,
    "digest": "d",
}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[1",
            "\0" * 64,
            pytest.param("[" * 9999, id="deep"),
            "7",
            "null",
            '"y"',
            "[]",
            "{}",
            '{"id": "y"}',
            '[["ended", 1]]',
        ),
        *(json.dumps({**WHOLE, **wrong}) for wrong in WRONG),
    ],
)
async def test_a_file_that_is_no_summary_is_passed_over(
    tmp_path: Path, state: SqliteState, text: str
) -> None:
    (tmp_path / "y.json").write_text(text)
    (tmp_path / "z.json").write_text(json.dumps({**WHOLE, "id": "z"}))

    builds = on(tmp_path, state)
    await builds.open()

    assert [build.id for build in builds.ended] == ["z"]
    assert builds.get("y") is None


STARTED = BuildStarted("git", "latest")
RESOLVED = Resolved("git", "latest", "content")
EVALUATE = NixBegun("content", "evaluating")
BUILD = NixBegun("content", "building")


def line(text: str, content: str = "content") -> LogLine:
    return LogLine(("git",), text, content)


def step(builds: BuildBoard, repository: str = "git", tag: str = "latest") -> str | None:
    build = builds.current(repository, tag)
    return None if build is None else build.step


@pytest.mark.parametrize(
    ("events", "text"),
    [
        pytest.param([], None, id="nothing is under way"),
        pytest.param([STARTED], "fetching the package set", id="started"),
        pytest.param([STARTED, RESOLVED], "waiting for Nix", id="resolved"),
        pytest.param([STARTED, RESOLVED, EVALUATE], "evaluating", id="evaluating"),
        pytest.param([STARTED, RESOLVED, EVALUATE, line("one")], "evaluating: one", id="a line meanwhile"),
        pytest.param([STARTED, RESOLVED, EVALUATE, line("one"), BUILD], "building", id="building"),
        pytest.param(
            [STARTED, RESOLVED, BUILD, line("one"), line(" two\t")], "building: two", id="the last line"
        ),
        pytest.param([STARTED, RESOLVED, BUILD, line("one"), line(" ")], "building: one", id="a blank line"),
        pytest.param([STARTED, RESOLVED, line("x" * 501)], f"building: {'x' * 500}", id="a long line"),
        pytest.param([STARTED, RESOLVED, line("one", "other")], "waiting for Nix", id="of another content"),
        pytest.param(
            [STARTED, RESOLVED, BUILD, line("one"), LayersReady("git", "latest", 3, 17)],
            "packing, 3 of 17 layers are in the registry",
            id="packing",
        ),
        pytest.param(
            [STARTED, RESOLVED, LayersReady("git", "latest", 3, 17), BUILD, line("one")],
            "packing, 3 of 17 layers are in the registry",
            id="packing while Nix works for another image of this content",
        ),
        pytest.param(
            [STARTED, RESOLVED, LayersReady("git", "v2", 3, 17)], "waiting for Nix", id="of another tag"
        ),
        pytest.param(
            [STARTED, RESOLVED, EVALUATE, Collided("git", "bin/x", "/a", "/b")],
            "evaluating",
            id="a collision",
        ),
        pytest.param([STARTED, RESOLVED, BuildEnded("git", "latest", "sha256:0")], None, id="done"),
        pytest.param([STARTED, BuildEnded("git", "latest", error="no")], None, id="failed"),
        pytest.param([RESOLVED, LayersReady("git", "latest", 1, 2)], None, id="never started"),
    ],
)
async def test_what_a_build_does_now(builds: BuildBoard, events: list[Event], text: str | None) -> None:
    for event in events:
        builds.see(event)

    assert step(builds) == text


async def test_a_build_that_joins_a_content_is_as_far_as_that(builds: BuildBoard) -> None:
    for event in (STARTED, RESOLVED, BUILD, line("compiling")):
        builds.see(event)

    builds.see(BuildStarted("shell/git", "v2"))
    builds.see(Resolved("shell/git", "v2", "content"))

    assert step(builds, "shell/git", "v2") == "building: compiling"


async def test_a_build_of_two_platforms_is_as_far_as_the_slower_one(builds: BuildBoard) -> None:
    slow = "slow content"
    for event in (STARTED, RESOLVED, Resolved("git", "latest", slow), BUILD, NixBegun(slow, "evaluating")):
        builds.see(event)
    steps = [step(builds)]
    builds.see(line(f"building '/nix/store/{HASH}-x.drv'"))
    builds.see(line(f"building '/nix/store/{HASH}-y.drv'", slow))
    build = builds.current("git", "latest")
    assert build is not None
    builds.see(line("compiling"))
    steps.append(step(builds))
    builds.see(NixBegun(slow, "building"))
    steps.append(step(builds))
    builds.see(PlatformEnded("git", "latest", "linux/amd64"))
    builds.see(PlatformEnded("git", "latest", "linux/arm64", "failing failed: its log", "BuildFailed"))
    builds.see(BuildEnded("git", "latest", "sha256:0"))

    assert steps == ["evaluating", "evaluating: compiling", "building: compiling"]
    assert (build.nix.built, build.nix.to_build) == (2, 2)
    ended = builds.ended[0]
    assert ended.missing == (("linux/arm64", "failing failed: its log"),)
    assert ended.without_log().missing == (("linux/arm64", "failing failed"),), "a log is for few"


async def test_a_content_stays_until_its_last_build_has_ended(builds: BuildBoard) -> None:
    for begin in (STARTED, RESOLVED, BuildStarted("a", "b"), Resolved("a", "b", "content"), BUILD):
        builds.see(begin)

    builds.see(BuildEnded("git", "latest", error="no"))
    left = step(builds, "a", "b")
    for event in (BuildEnded("a", "b", "sha256:0"), STARTED, RESOLVED):
        builds.see(event)

    assert left == "building"
    assert step(builds) == "waiting for Nix", "the next build of this content begins anew"


async def test_it_does_not_grow_without_bound(builds: BuildBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_MOST_RUNNING", 2)
    monkeypatch.setattr(board, "_MOST_ENDED", 2)

    for number in range(5):
        builds.see(BuildStarted("git", str(number)))

    assert [builds.current("git", str(number)) is not None for number in range(5)] == [False] * 3 + [True] * 2
    assert len(builds.ended) == 2


async def test_each_end_is_another_number(builds: BuildBoard) -> None:
    numbers = [builds.endings]
    for event in (STARTED, RESOLVED, BuildEnded("git", "latest", "sha256:0"), STARTED):
        builds.see(event)
        numbers.append(builds.endings)

    assert numbers == [0, 0, 0, 1, 1]


async def test_of_a_long_log_the_beginning_and_the_end_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds_logs, "_MOST_BYTES", 100)
    monkeypatch.setattr(builds_logs, "_TAIL", 3)
    logs = BuildLogs(tmp_path)
    for number in range(1000):
        logs.add("x", f"line {number}")
    assert (await logs.read("x")).endswith("line 999\n")
    logs.end("x", {"ended": 1})
    await logs.close()

    lines = (await logs.read("x")).splitlines()

    assert lines[:2] == ["line 0", "line 1"]
    assert lines[-3:] == ["line 997", "line 998", "line 999"]
    assert "lines are left out" in lines[-4]
    assert len(lines) < 30


async def test_the_oldest_logs_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds_logs, "_MOST_LOGS", 2)
    for number in range(5):
        logs = BuildLogs(tmp_path)
        logs.add(f"build{number}", "said")
        logs.end(f"build{number}", {"ended": number})
        await logs.close()

    assert len(await asyncio.to_thread(os.listdir, tmp_path)) == 4


async def test_logs_of_builds_that_died_with_nixfront_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds_logs, "_MOST_LOGS", 2)
    for number in range(5):
        logs = BuildLogs(tmp_path)
        logs.add(f"build{number}", "said")
        await logs.close()
    logs = BuildLogs(tmp_path)
    logs.add("last", "said")
    logs.end("last", {"ended": 1})
    await logs.close()

    # Two that died, and the last one with its summary.
    assert len(await asyncio.to_thread(os.listdir, tmp_path)) == 4
