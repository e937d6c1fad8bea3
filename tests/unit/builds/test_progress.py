"""How far a build is, from the events that it emits."""

from dataclasses import dataclass, field

import pytest

from proxy.builds.progress import Progress
from proxy.core.events import (
    BuildEnded,
    BuildStarted,
    Collided,
    Event,
    LayersReady,
    LogLine,
    NixBegun,
    Resolved,
)


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Seen:
    """A progress that has seen some events."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.progress = Progress(self.clock)

    def after(self, *events: Event) -> "Seen":
        for event in events:
            self.progress.see(event)
        return self

    def text(self, repository: str = "git", tag: str = "latest") -> str | None:
        now = self.progress.of(repository, tag)
        return now and now[0].text


STARTED = BuildStarted("git", "latest")
RESOLVED = Resolved("git", "latest", "content")
EVALUATING = NixBegun("content", "evaluating")
BUILDING = NixBegun("content", "building")


def line(text: str, content: str = "content") -> LogLine:
    return LogLine(("git",), text, content)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        pytest.param([], None, id="nothing is under way"),
        pytest.param([STARTED], "fetching the package set", id="started"),
        pytest.param([STARTED, RESOLVED], "waiting for Nix", id="resolved"),
        pytest.param([STARTED, RESOLVED, EVALUATING], "evaluating", id="evaluating"),
        pytest.param([STARTED, RESOLVED, BUILDING], "building", id="building"),
        pytest.param(
            [STARTED, RESOLVED, BUILDING, line("one"), line(" two\t")], "building: two", id="the last line"
        ),
        pytest.param(
            [STARTED, RESOLVED, BUILDING, line("one"), line(" ")], "building: one", id="a blank line"
        ),
        pytest.param([STARTED, RESOLVED, line("x" * 501)], f"building: {'x' * 500}", id="a long line"),
        pytest.param([STARTED, RESOLVED, line("one", "other")], "waiting for Nix", id="of another content"),
        pytest.param(
            [STARTED, RESOLVED, BUILDING, line("one"), LayersReady("git", "latest", 3, 17)],
            "packing, 3 of 17 layers are in the registry",
            id="packing",
        ),
        pytest.param(
            [STARTED, RESOLVED, LayersReady("git", "v2", 3, 17)], "waiting for Nix", id="of another tag"
        ),
        pytest.param(
            [STARTED, RESOLVED, EVALUATING, Collided("git", "bin/x", "/a", "/b")], "evaluating", id="a word"
        ),
        pytest.param([STARTED, RESOLVED, BuildEnded("git", "latest", "sha256:0")], None, id="done"),
        pytest.param([STARTED, BuildEnded("git", "latest", error="no")], None, id="failed"),
        pytest.param([RESOLVED, LayersReady("git", "latest", 1, 2)], None, id="never started"),
    ],
)
def test_what_a_build_does_now(events: list[Event], text: str | None) -> None:
    assert Seen().after(*events).text() == text


def test_a_build_that_joins_a_content_is_as_far_as_that() -> None:
    seen = Seen().after(STARTED, RESOLVED, BUILDING, line("compiling"))

    seen.after(BuildStarted("shell/git", "v2"), Resolved("shell/git", "v2", "content"))

    assert seen.text("shell/git", "v2") == "building: compiling"


def test_a_content_stays_until_its_last_build_has_ended() -> None:
    seen = Seen().after(STARTED, RESOLVED, BuildStarted("a", "b"), Resolved("a", "b", "content"), BUILDING)

    seen.after(BuildEnded("git", "latest", error="no"))
    left = seen.text("a", "b")
    seen.after(BuildEnded("a", "b", "sha256:0"), STARTED, RESOLVED)

    assert left == "building"
    assert seen.text() == "waiting for Nix", "the next build of this content begins anew"


def test_the_age_is_that_of_the_build() -> None:
    seen = Seen().after(STARTED, RESOLVED)
    seen.clock.now += 7

    now = seen.after(BUILDING).progress.of("git", "latest")

    assert now is not None
    assert now[1] == 7


def test_it_does_not_grow_without_bound() -> None:
    progress = Progress(Clock(), most=2)

    for number in range(5):
        progress.see(BuildStarted("git", str(number)))

    assert [progress.of("git", str(number)) is not None for number in range(5)] == [False] * 3 + [True] * 2
