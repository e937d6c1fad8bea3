"""What the errors say to the person who reads them, and which of them may be remembered."""

import pytest

from proxy.core import errors
from proxy.core.errors import NixfrontError, ProcessFailed, RegistryRefused
from proxy.web.error_responses import WIRE
from tests.e2e.test_errors import ROWS


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(ProcessFailed("nix", 1), "nix ended with 1", id="a failure"),
        pytest.param(ProcessFailed("nix", -9), "nix ended with -9", id="a signal"),
        pytest.param(ProcessFailed("nix", None), "nix could not be started", id="no program"),
        pytest.param(ProcessFailed("nix", -9, timed_out=True), "nix ran out of time", id="its deadline"),
        pytest.param(
            RegistryRefused("PUT", "http://r/v2/a", 500, "disk full"),
            "the registry answered 500 to PUT http://r/v2/a: disk full",
            id="a status with a reason",
        ),
        pytest.param(
            RegistryRefused("HEAD", "http://r/v2/a", 404, ""),
            "the registry answered 404 to HEAD http://r/v2/a",
            id="a status without one",
        ),
    ],
)
def test_an_error_says_what_happened(error: NixfrontError, message: str) -> None:
    assert str(error) == message


def test_a_long_answer_of_the_registry_is_kept_whole_and_shown_short() -> None:
    error = RegistryRefused("GET", "http://r/", 502, "x" * 5000)

    assert error.body == "x" * 5000
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("status", "temporary"), [(400, False), (404, False), (429, True), (499, False), (500, True), (503, True)]
)
def test_only_what_can_pass_is_temporary(status: int, temporary: bool) -> None:
    error = RegistryRefused("GET", "http://r/", status, "")

    assert (error.status, error.temporary) == (status, temporary)


def test_a_failed_process_keeps_its_last_lines() -> None:
    lines = ["a", "b"]

    error = ProcessFailed("nix", 2, lines)
    lines.append("c")

    assert (error.program, error.returncode, error.tail, error.timed_out) == ("nix", 2, ("a", "b"), False)


def test_only_what_would_fail_again_is_lasting() -> None:
    lasting = {
        kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and getattr(kind, "lasting", False)
    }

    assert lasting == {
        "BuildFailed",
        "BuildTimedOut",
        "DigestLost",
        "EvaluationFailed",
        "ImageInvalid",
        "ImageTooLarge",
        "ImageUnknown",
        "NameInvalid",
        "NotMadeHere",
        "NotMirrored",
        "PackageRefused",
        "PackageUnknown",
        "PackageUnusable",
        "TagUnknown",
    }


def test_every_class_that_a_pull_can_meet_has_its_row() -> None:
    never_reach_a_client = {
        errors.SourceMissing,  # told as one of the two that it can mean
        errors.BuildTimedOut,  # a BuildFailed, after a while: in the integration tests
        errors.NixUnavailable,  # needs a host without Nix: in test_clients
        errors.DigestLost,  # needs a registry that lost an image: in the integration tests
        errors.DerivationLost,  # needs a garbage collection at the wrong moment, twice
        errors.CacheUnusable,  # no pull meets it: the packages come through the store then
        errors.StoreUnreadable,  # needs a store that breaks while it is read: in the integration tests
        errors.StoreFull,  # needs a small disk: in test_full_disks
        errors.Busy,  # needs more builds than a host does: in test_limits
        errors.Stopping,  # needs a host that is stopped: in test_shutdown
        errors.Unforeseen,  # a bug
        errors.BodyInvalid,  # needs a request with a body: in test_malformed
        errors.ArgumentsInvalid,  # of a command
        errors.NotMirrored,  # its clients go on to another registry: in test_mirror
        errors.NotMadeHere,  # these need rules about who may build: in test_access
        errors.BuildDenied,
        errors.PushDenied,
        errors.SiteDenied,
        errors.MirrorRefused,
        errors.TooManyBuilds,
        errors.StillBuilding,  # needs a build that takes its time: in test_waiting
        errors.RegistryUnavailable,  # needs a registry that is away: in the integration tests
        errors.RegistryRefused,
        errors.DestinationUnusable,  # a folder, for `nixfront build`
        errors.DigestMismatch,
        errors.DigestNotReady,
        errors.ProcessFailed,
        errors.SettingsInvalid,
        errors.StateUnavailable,  # needs a Redis that is away: in the integration tests
    }

    assert {row.error for row in ROWS} == set(WIRE) - never_reach_a_client


def test_an_error_of_another_machine_is_the_same_error_here() -> None:
    error = errors.from_record("PackageUnknown", "no package helo")

    assert type(error) is errors.PackageUnknown
    assert str(error) == "no package helo"


@pytest.mark.parametrize(
    "kind", ["Sequence", "NoSuchError", "ProcessFailed", "NixfrontError", "__name__", ""]
)
def test_what_is_no_lasting_error_is_none_here_either(kind: str) -> None:
    assert type(errors.from_record(kind, "no")) is errors.Unforeseen
