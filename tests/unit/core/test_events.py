"""Events are plain values: equal by content, fixed once made."""

import dataclasses
from typing import get_args

import pytest

from proxy.core import events
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


@pytest.mark.parametrize(
    "event",
    [
        BuildStarted("git", "latest"),
        Resolved("git", "latest", "0" * 64),
        NixBegun("0" * 64, "evaluating"),
        LogLine(("git",), "building", "0" * 64),
        LayersReady("git", "latest", 1, 3),
        Collided("a/b", "bin/x", "/nix/store/a", "/nix/store/b"),
        BuildEnded("git", "latest", digest="sha256:0"),
        BuildEnded("git", "latest", error="no"),
    ],
)
def test_an_event_is_a_value(event: Event) -> None:
    first = dataclasses.fields(event)[0].name

    assert dataclasses.replace(event) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, first, "other")


def test_every_event_that_is_defined_may_be_emitted() -> None:
    defined = {
        value
        for value in vars(events).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    }

    assert set(get_args(Event)) == defined


def test_a_build_that_ended_well_has_no_error() -> None:
    assert BuildEnded("git", "latest", "sha256:0").error == ""
