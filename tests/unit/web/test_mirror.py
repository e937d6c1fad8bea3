"""Which requests are a mirror's, which of them are ours, and what they become."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from proxy.core.errors import NotMirrored
from proxy.telemetry.requests import path_of
from proxy.web.mirror import Mirror, MirrorRules

RULES = MirrorRules(frozenset({"docker.io"}), ("hello", "team/*"), "nix/")
DIGEST = "sha256:" + "0" * 64


def arrived(path: str, method: str = "GET") -> web.Request:
    """A request as aiohttp's server makes it: what came over the wire is taken for encoded already."""
    mocked = make_mocked_request(method, "/", headers={"Accept": "a"})
    return mocked.clone(rel_url=URL(path, encoded=True))


def direct(path: str, method: str = "GET", *, always: bool = True, rules: MirrorRules = RULES) -> str:
    return Mirror(rules, always=always).direct(path_of(arrived(path, method)), method).target


@pytest.mark.parametrize(
    ("repository", "served"),
    [
        ("hello", "hello"),
        ("library/hello", "hello"),
        ("team/tool", "team/tool"),
        ("team/a/b", "team/a/b"),
        ("nix/git", "git"),
        ("nix/shell/git", "shell/git"),
        ("library/nix/git", "git"),
        ("nix/library/git", "library/git"),
        ("nginx", None),
        ("library/nginx", None),
        ("library/library/hello", None),
        ("library", None),
        ("hello/more", None),
        ("team", None),
        ("nix", None),
        ("nixos/git", None),
        ("team/../nginx", None),
        ("team//x", None),
        ("team/%2e%2e/nginx", None),
        ("Hello", None),
    ],
)
def test_what_is_served_and_as_what(repository: str, served: str | None) -> None:
    if served is None:
        with pytest.raises(NotMirrored):
            RULES.direct_name(repository)
    else:
        assert RULES.direct_name(repository) == served


def test_nothing_is_served_by_default() -> None:
    with pytest.raises(NotMirrored):
        MirrorRules(frozenset({"docker.io"}), (), "").direct_name("library/hello")


def test_a_star_serves_everything() -> None:
    assert MirrorRules(frozenset(), ("*",), "").direct_name("library/nginx") == "nginx"


@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("/v2/", "/v2/"),
        ("/v2", "/v2"),
        ("/v2/library/hello/manifests/latest", "/v2/hello/manifests/latest"),
        (f"/v2/library/hello/manifests/{DIGEST}", f"/v2/hello/manifests/{DIGEST}"),
        (f"/v2/library/hello/blobs/{DIGEST}", f"/v2/hello/blobs/{DIGEST}"),
        ("/v2/nix/shell/git/tags/list?n=5", "/v2/shell/git/tags/list?n=5"),
        (f"/v2/team/a/referrers/{DIGEST}", f"/v2/team/a/referrers/{DIGEST}"),
        ("/v2/hello/manifests/latest?ns=docker.io", "/v2/hello/manifests/latest"),
        ("/v2/hello/manifests/latest?a=%2F&ns=docker.io&b", "/v2/hello/manifests/latest?a=%2F&b"),
    ],
)
def test_what_a_mirrors_client_asks_becomes_what_a_direct_one_asks(path: str, becomes: str) -> None:
    assert direct(path) == becomes
    assert direct(path, "HEAD") == becomes


@pytest.mark.parametrize(
    "path",
    [
        "/v2/library/nginx/manifests/latest",
        f"/v2/library/nginx/blobs/{DIGEST}",
        "/v2/hello/manifests/latest?ns=quay.io",
        "/v2/hello/manifests/latest?ns=",
        "/v2/hello/manifests/latest?ns=docker.io&ns=quay.io",
        "/v2/hello/manifests/latest?ns=127.0.0.1%3A5000",
        "/v2/_catalog",
        "/%76%32/nginx/manifests/latest",
        "//v2/nginx/manifests/latest",
        "/",
    ],
)
def test_all_else_is_none_of_a_mirrors(path: str) -> None:
    with pytest.raises(NotMirrored):
        direct(path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v2/hello/manifests/latest"),
        ("DELETE", "/v2/hello/manifests/latest"),
        ("POST", "/v2/hello/blobs/uploads/"),
        ("PATCH", "/v2/hello/blobs/uploads/1234?_state=x"),
    ],
)
def test_a_mirror_takes_nothing(method: str, path: str) -> None:
    with pytest.raises(NotMirrored, match="takes nothing"):
        direct(path, method)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    "path", ["/v2/library/nginx/manifests/latest?x", "/v2/_catalog?n=1", "/v2/nginx/tags/list?nsx=1&a=ns"]
)
def test_a_direct_request_stays_as_it_is(method: str, path: str) -> None:
    sent = path_of(arrived(path, method))

    assert Mirror(RULES, always=False).direct(sent, method) is sent


@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("/v2/library/hello/manifests/latest?ns=docker.io", "/v2/hello/manifests/latest"),
        ("/v2/?ns=docker.io", "/v2/"),
        ("/v2/_catalog?ns=docker.io&n=1", "/v2/_catalog?n=1"),
    ],
)
def test_a_namespace_makes_it_a_mirrors_and_goes_no_further(path: str, becomes: str) -> None:
    assert direct(path, always=False) == becomes


def test_a_namespace_makes_it_a_mirrors_that_may_be_none_of_ours() -> None:
    with pytest.raises(NotMirrored, match="nginx is not among"):
        direct("/v2/library/nginx/manifests/latest?ns=docker.io", always=False)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("/v2/nginx/manifests/latest?ns=nix.local", "/v2/nginx/manifests/latest"),
        (
            "/v2/library/hello/blobs/uploads/1?_state=x%2F&ns=nix.local%3A5000",
            "/v2/library/hello/blobs/uploads/1?_state=x%2F",
        ),
        ("/v2/?ns=nix.local", "/v2/"),
    ],
)
def test_an_alias_of_our_own_is_no_mirror(method: str, path: str, becomes: str) -> None:
    rules = MirrorRules(frozenset({"docker.io"}), (), "", ("nix.local", "nix.local:5000"))
    sent = path_of(arrived(path, method))
    mirror = Mirror(rules, always=False)

    assert not mirror.serves(sent)
    assert mirror.direct(sent, method).target == becomes


@pytest.mark.parametrize(
    ("namespaces", "always"),
    [("ns=nix.local", True), ("ns=nix.local&ns=docker.io", False), ("ns=nix.local:5000", False)],
)
def test_an_alias_opens_nothing_else(namespaces: str, always: bool) -> None:
    """At the address for mirrors every client is one, and a request has one name."""
    rules = MirrorRules(frozenset({"docker.io"}), (), "", ("nix.local",))
    mirror = Mirror(rules, always=always)

    with pytest.raises(NotMirrored):
        mirror.direct(path_of(arrived(f"/v2/nginx/manifests/latest?{namespaces}")), "GET")
