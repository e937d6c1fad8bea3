"""Events of builds become records that all may read."""

from pathlib import Path

from proxy.builds.history import History
from proxy.core.events import BuildEnded, BuildStarted, Event, LogLine
from proxy.state.sqlite import open_state


async def test_what_became_of_each_build(tmp_path: Path) -> None:
    heard: list[Event] = []
    clock = iter(range(100))
    events: list[Event] = [
        BuildStarted("git", "latest"),
        BuildStarted("hello", "latest"),
        LogLine(("git",), "compiling", "key"),
        BuildEnded("git", "latest", digest="sha256:aa"),
        BuildEnded("never-started", "latest", digest="sha256:bb"),
        BuildEnded("hello", "latest", error="x" * 5000),
        BuildStarted("hello", "latest"),
    ]
    async with open_state(tmp_path / "state") as state:
        history = History(state, "this machine", lambda: float(next(clock)))
        sink = history.hearing(heard.append)
        for event in events:
            sink(event)
        await history.close()
        builds = {(build.repository, build.started): build for build in await state.builds(10)}

    assert heard == events, "it only listens"
    assert len(builds) == 3
    git, hello, again = builds["git", 0.0], builds["hello", 1.0], builds["hello", 4.0]
    assert (git.ended, git.digest, git.error, git.machine) == (2.0, "sha256:aa", "", "this machine")
    assert (hello.ended, hello.digest, len(hello.error)) == (3.0, "", 2000)
    assert again.ended == 0, "it runs"
