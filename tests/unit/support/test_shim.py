"""The rules of the relay, without its sockets; tests/e2e/test_harness.py runs it before a real registry."""

import pytest

from tests.support.shim import Cut, Delay, Rule, Shim, Status, kind_of


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v2/", "ping"),
        ("/v2/_catalog", "catalog"),
        ("/v2/shell/git/tags/list", "tags"),
        ("/v2/shell/git/manifests/latest", "manifest"),
        ("/v2/shell/git/manifests/sha256:ab", "manifest"),
        ("/v2/shell/git/blobs/sha256:ab", "blob"),
        ("/v2/shell/git/blobs/uploads/", "upload"),
        ("/v2/shell/git/blobs/uploads/0f3e", "upload"),
        ("/metrics", "other"),
    ],
)
def test_kind_of_a_path(path: str, kind: str) -> None:
    assert kind_of(path) == kind


def test_rule_befalls_the_nth_request_that_matches() -> None:
    relay = Shim("http://127.0.0.1:1", [Rule("PUT", "/blobs/", Status(503), nth=2, times=2)])

    faults = [relay.fault_for("PUT", "/v2/a/blobs/uploads/1") for _ in range(4)]

    assert faults == [None, Status(503), Status(503), None]
    assert relay.counts["PUT", "upload"] == 4


def test_rule_leaves_other_methods_and_paths_alone() -> None:
    relay = Shim("http://127.0.0.1:1", [Rule("PUT", "/manifests/", Cut(0))])

    assert relay.fault_for("GET", "/v2/a/manifests/latest") is None
    assert relay.fault_for("PUT", "/v2/a/blobs/uploads/1") is None
    assert relay.fault_for("PUT", "/v2/a/manifests/latest") == Cut(0)


def test_every_rule_counts_even_when_an_earlier_one_strikes() -> None:
    relay = Shim(
        "http://127.0.0.1:1", [Rule("GET", "/v2/", Status(500)), Rule("GET", "/v2/", Delay(1), nth=2)]
    )

    assert [relay.fault_for("GET", "/v2/") for _ in range(3)] == [Status(500), Delay(1), None]
