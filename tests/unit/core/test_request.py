"""What paths of the registry's interface are about, and ids of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import request

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/v2/git/manifests/latest", ("git", "latest"), id="one component"),
        pytest.param("/v2/shell/git/manifests/latest", ("shell/git", "latest"), id="two components"),
        pytest.param(
            "/v2/a/manifests/b/manifests/c", ("a/manifests/b", "c"), id="a component named manifests"
        ),
        pytest.param(f"/v2/a/manifests/sha256:{HEX}", ("a", f"sha256:{HEX}"), id="a digest"),
        pytest.param("/v2/a%2Fb/manifests/latest", ("a%2Fb", "latest"), id="kept as it came over the wire"),
        pytest.param("/v2/", None, id="the version check"),
        pytest.param("/v2/_catalog", None, id="the catalog"),
        pytest.param("/v2/git/blobs/sha256:00", None, id="a blob"),
        pytest.param("/v2/git/tags/list", None, id="tags"),
        pytest.param("/v2/manifests/latest", None, id="no repository"),
        pytest.param("/v2/git/manifests/", None, id="no reference"),
        pytest.param("/v2/git/manifests/latest/", None, id="a slash at the end"),
        pytest.param("/v1/git/manifests/latest", None, id="another version"),
        pytest.param("/x/v2/git/manifests/latest", None, id="something before"),
    ],
)
def test_manifest_paths_differ_from_all_others(path: str, expected: tuple[str, str] | None) -> None:
    read = request.parse(path)

    assert ((read.repository, read.reference) if read.kind == "manifest" else None) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/git/manifests/latest", ("git", "manifests", "latest")),
        ("/v2/a/b__c/manifests/V1.0_x-y", ("a/b__c", "manifests", "V1.0_x-y")),
        (f"/v2/a/manifests/sha256:{HEX}", ("a", "manifests", f"sha256:{HEX}")),
        (f"/v2/a/blobs/sha256:{HEX}", ("a", "blobs", f"sha256:{HEX}")),
        ("/v2/a/manifests/b/manifests/c", ("a/manifests/b", "manifests", "c")),
        ("/v2/a/blobs/b/manifests/c", ("a/blobs/b", "manifests", "c")),
        ("/v2/a%2Fb/manifests/latest", None),
        ("/v2/a/manifests/la%74est", None),
        ("/v2/a/manifests/latest?ns=docker.io", None),
        ("/v2//a/manifests/latest", None),
        ("/v2/./a/manifests/latest", None),
        ("/v2/b/../a/manifests/latest", None),
        ("/v2/A/manifests/latest", None),
        ("/v2/a/manifests/latest/", None),
        ("/v2/a/manifests/latest\n", None),
        ("/v2/a/blobs/sha256:../../../../etc/passwd", None),
        ("http://elsewhere/v2/a/manifests/latest", None),
        ("/v2/a/tags/list", None),
    ],
)
def test_only_a_path_that_can_be_read_in_one_way_is_read(
    path: str, expected: tuple[str, str, str] | None
) -> None:
    came, _, query = path.partition("?")
    read = request.parse(came, query, path)
    is_readable = read.kind in ("manifest", "blob") and read.is_canonical and read.is_alone

    assert ((read.repository, f"{read.kind}s", read.reference) if is_readable else None) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/a/b/blobs/uploads/", True),
        ("/v2/a/manifests/b/blobs/uploads/0-9_a.b~c=", True),
        ("/v2/a/blobs/uploads", False),
        ("/v2/a/blobs/uploads/x/../../../manifests/latest", False),
        ("/v2/a/blobs/uploads/x%2Fy", False),
        ("/v2/a/blobs/uploads/manifests/latest", False),
    ],
)
def test_paths_that_blobs_are_sent_to(path: str, expected: bool) -> None:
    read = request.parse(path)

    assert (read.kind == "upload" and read.is_canonical) is expected


@given(st.text(alphabet="/v2manifests.:-"))
def test_no_path_raises(path: str) -> None:
    read = request.parse(path)

    assert read.kind != "manifest" or f"/v2/{read.repository}/manifests/{read.reference}" == path
    assert read.path == path


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        ("/v2/hello/tags/list", "hello"),
        ("/v2/a/b/tags/list", "a/b"),
        ("/v2/tags/list", None),
        ("/v2/hello/tags/list/", None),
        ("/v2/hello/tags", None),
        ("/v1/hello/tags/list", None),
    ],
)
def test_the_path_of_tags(path: str, repository: str | None) -> None:
    read = request.parse(path)

    assert (read.repository if read.kind == "tags" else None) == repository


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v2/", "ping"),
        ("/v2", "ping"),
        ("/v2/a/b/manifests/latest", "manifest"),
        ("/v2/a/blobs/sha256:0", "blob"),
        ("/v2/a/blobs/uploads/", "upload"),
        ("/v2/a/blobs/uploads/1-2", "upload"),
        ("/v2/a/tags/list", "tags"),
        ("/v2/_catalog", "catalog"),
        ("/v2/a/referrers/sha256:0", "referrers"),
        ("/v2/a", "other"),
        ("/metrics", "other"),
        ("/", "page"),
        ("/builds/x", "page"),
        ("/builds/x/events", "stream"),
        ("/events", "stream"),
        ("/favicon.ico", "other"),
        ("/v2/a/blobs/sha256:0/x", "other"),
    ],
)
def test_kinds_of_routes(path: str, kind: str) -> None:
    assert request.parse(path).kind == kind


@pytest.mark.parametrize(
    ("query", "hop", "rest"),
    [
        ("", None, ""),
        ("wait=3", 3, ""),
        ("ns=docker.io&wait=3", 3, "ns=docker.io"),
        ("wait=3&ns=docker.io", 3, "ns=docker.io"),
        ("a=%2F+&wait=12&b", 12, "a=%2F+&b"),
        ("wait=x", 0, ""),
        ("wait=", 0, ""),
        ("wait=-1", 0, ""),
        ("wait=1000", 0, ""),
        ("wait=\N{SUPERSCRIPT TWO}", 0, ""),
        ("waits=3", None, "waits=3"),
        ("a&&b", None, "a&&b"),
    ],
)
def test_the_hop_is_taken_out_of_the_query(query: str, hop: int | None, rest: str) -> None:
    read = request.parse("/v2/git/manifests/latest", query)

    assert (read.hop, read.query) == (hop, rest)


@pytest.mark.parametrize(
    ("target", "hop", "rest", "is_alone"),
    [
        ("/v2/git/manifests/latest", None, "/v2/git/manifests/latest", True),
        ("/v2/git/manifests/latest?wait=4", 4, "/v2/git/manifests/latest", True),
        ("/v2/a%2fb/manifests/latest?x=%2f&wait=4", 4, "/v2/a%2fb/manifests/latest?x=%2f", False),
        ("/v2/git/manifests/latest?", None, "/v2/git/manifests/latest", False),
        ("/v2/git/blobs/sha256:0?wait=4", 4, "/v2/git/blobs/sha256:0", True),
        ("/v2/_catalog?wait=4", None, "/v2/_catalog?wait=4", False),
        ("/v2/git/tags/list?wait=4", None, "/v2/git/tags/list?wait=4", False),
    ],
)
def test_only_manifests_and_blobs_have_hops(target: str, hop: int | None, rest: str, is_alone: bool) -> None:
    path, _, query = target.partition("?")

    read = request.parse(path, query, target)

    assert (read.hop, read.target, read.is_alone) == (hop, rest, is_alone)


@pytest.mark.parametrize(
    ("query", "namespaces", "rest"),
    [
        ("", [], ""),
        ("ns=docker.io", ["docker.io"], ""),
        ("ns=127.0.0.1%3A5000&a=1", ["127.0.0.1:5000"], "a=1"),
        ("ns", [""], ""),
        ("a&&ns=x&b=%2f", ["x"], "a&&b=%2f"),
        ("nsx=1", [], "nsx=1"),
    ],
)
def test_the_namespace_is_taken_out_of_the_query(query: str, namespaces: list[str], rest: str) -> None:
    read = request.parse("/v2/a/manifests/b", query)

    assert read.namespaces == frozenset(namespaces)
    assert read.direct("c/d").target == f"/v2/c/d/manifests/b{'?' if rest else ''}{rest}"


@pytest.mark.parametrize(
    "received", ["a1b2c3d4", "0af7651916cd43dd8448eb211c80319c", "req_2026-01-31_0001", "A" * 64]
)
def test_an_id_that_came_along_stays(received: str) -> None:
    assert request.choose(received) == received


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("short", id="too short to be one of a kind"),
        pytest.param("A" * 65, id="too long"),
        pytest.param("../../etc/passwd", id="a path"),
        pytest.param("<script>alert(1)</script>", id="markup"),
        pytest.param("a1b2c3d4\n", id="a line's end"),
        pytest.param("-rf-a1b2c3d4", id="an option"),
    ],
)
def test_anything_else_gets_a_new_one(received: str | None) -> None:
    one, other = request.choose(received), request.choose(received)

    assert one != other
    assert request.choose(one) == one, "ours is of the form that we take"
