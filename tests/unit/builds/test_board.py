"""What builds do and did, out of their events; and their logs on disk."""

import asyncio
import os
from pathlib import Path

import pytest

from proxy.builds import logs as builds_logs
from proxy.builds.board import BUILDING, EVALUATING, PACKING, RESOLVING, WAITING, BuildBoard
from proxy.builds.logs import BuildLogs
from proxy.core import request
from proxy.core.events import BuildEnded, BuildStarted, LayersReady, LogLine, NixBegun, Resolved

HASH = "a" * 32


def watch(folder: Path) -> BuildBoard:
    moments = iter(float(number) for number in range(1000))
    return BuildBoard(BuildLogs(folder), lambda: next(moments))


async def test_a_build_from_its_first_to_its_last_event(tmp_path: Path) -> None:
    builds = watch(tmp_path)
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


async def test_builds_of_the_same_packages_have_the_same_log(tmp_path: Path) -> None:
    builds = watch(tmp_path)
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


async def test_a_build_is_called_by_the_id_of_its_request(tmp_path: Path) -> None:
    builds = watch(tmp_path)
    token = request.CURRENT.set("abcdefgh12345678")
    builds.see(BuildStarted("a", "latest"))
    builds.see(BuildStarted("b", "latest"))
    request.CURRENT.reset(token)

    assert builds.running[0].id == "abcdefgh12345678"
    assert builds.running[1].id != "abcdefgh12345678", "one id is one build"


async def test_whoever_waits_hears_of_a_change(tmp_path: Path) -> None:
    builds = watch(tmp_path)
    waiting = asyncio.create_task(builds.change(builds.version))
    await asyncio.sleep(0)

    builds.see(BuildStarted("a", "latest"))

    await asyncio.wait_for(waiting, 5)


async def test_what_ended_is_known_after_a_restart(tmp_path: Path) -> None:
    logs = BuildLogs(tmp_path)
    builds = BuildBoard(logs, lambda: 5.0)
    builds.see(BuildStarted("a", "latest"))
    builds.see(Resolved("a", "latest", "key"))
    builds.see(LogLine(("a",), "said", "key"))
    builds.see(BuildEnded("a", "latest", error="no", outcome="BuildFailed", seconds=(("set", 0.5),)))
    await logs.close()

    again = watch(tmp_path)
    await again.remember()

    assert again.ended == builds.ended
    assert await again.log(again.ended[0].id) == "said\n"


async def test_a_file_that_is_no_summary_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1")
    (tmp_path / "y.json").write_text('{"id": "y"}')

    builds = watch(tmp_path)
    await builds.remember()

    assert builds.ended == ()


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
