"""Who a visitor of the page is, and whose answers a visitor gets."""

import ast
import base64
from pathlib import Path

import pytest

import proxy.web.page
from proxy.registry.endpoint import Endpoint
from proxy.registry.login import Credentials
from proxy.web.page.rights import Rights, credentials_of


def basic(pair: bytes) -> str:
    return f"Basic {base64.b64encode(pair).decode()}"


@pytest.mark.parametrize(
    ("headers", "credentials"),
    [
        ([], Credentials()),
        ([basic(b"alice:open sesame")], Credentials("alice", "open sesame")),
        ([basic(b"alice:a:b").replace("Basic", "bAsIc")], Credentials("alice", "a:b")),
        ([basic(b":nobody")], Credentials()),
        ([basic(b"\xff:x")], Credentials()),
        (["Basic !"], Credentials()),
        (["Bearer x"], Credentials()),
        ([basic(b"a:b"), basic(b"c:d")], Credentials()),
    ],
)
def test_who_a_visitor_is(headers: list[str], credentials: Credentials) -> None:
    assert credentials_of(headers) == credentials
    assert credentials_of(headers).password == credentials.password


async def test_nobody_sees_all_only_where_nixfront_is_nobody_too() -> None:
    async with Endpoint("http://127.0.0.1:1").opened() as unguarded:
        assert await Rights(unguarded).readable(Credentials(), ["a", "b"]) == {"a", "b"}
    async with Endpoint("http://127.0.0.1:1", Credentials("own", "secret")).opened() as guarded:
        rights = Rights(guarded)
        assert await rights.readable(Credentials("own", "secret"), ["a"]) == {"a"}
        assert await rights.readable(Credentials(), ["a"]) == set(), "the registry is away"
        assert await rights.readable(Credentials("own", "guess"), ["a"]) == set()


async def test_the_cache_holds_no_password() -> None:
    async with Endpoint("http://127.0.0.1:1", Credentials("own", "secret")).opened() as guarded:
        rights = Rights(guarded)
        one, other = (rights._name(Credentials("a", password)) for password in ("b", "c"))

        assert one != other
        assert rights._name(Credentials("a:b", "c")) != rights._name(Credentials("a", "b:c"))
        assert Rights(guarded)._name(Credentials("a", "b")) != one, "another process has another key"


def test_only_a_visitor_reads_builds_and_images() -> None:
    """A view that had the board or the list could forget whom it serves."""
    folder = Path(proxy.web.page.__file__).parent
    importers = {
        file.stem
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module in ("proxy.builds.board", "proxy.web.page.image_list")
    }

    assert importers == {"visitor"}
