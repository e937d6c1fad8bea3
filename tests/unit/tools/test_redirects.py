"""Redirects of servers that strangers run: where they may lead, and what goes along."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from proxy.tools import redirects

LIMITS = aiohttp.ClientTimeout(total=30)
LOGIN = "Basic dXNlcjpzZWNyZXQ="


class Redirecting:
    """A server that redirects by path, and notes the logins that come with each request."""

    def __init__(self) -> None:
        self.locations: dict[str, str] = {}
        self.logins: list[tuple[str, str | None]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.logins.append((request.path, request.headers.get("Authorization")))
        if (location := self.locations.get(request.path)) is not None:
            return web.Response(status=302, headers={"Location": location})
        return web.Response(text=request.path)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[tuple[Redirecting, URL]]:
    redirecting = Redirecting()
    app = web.Application()
    app.router.add_get("/{path:.*}", redirecting.answer)
    async with TestServer(app) as started:
        yield redirecting, started.make_url("")


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_login_stays_at_its_server(
    server: tuple[Redirecting, URL], session: aiohttp.ClientSession
) -> None:
    redirecting, url = server
    other = Redirecting()
    app = web.Application()
    app.router.add_get("/{path:.*}", other.answer)
    async with TestServer(app) as second:
        redirecting.locations |= {
            "/a": "/b",
            "/b": str(second.make_url("/c").with_user("x").with_password("y")),
        }
        async with await redirects.get(session, url / "a", LIMITS, login=LOGIN) as answer:
            assert await answer.text() == "/c"

    assert redirecting.logins == [("/a", LOGIN), ("/b", LOGIN)]
    assert other.logins == [("/c", None)], "nor does a server choose a login"


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("http://localhost:{port}/", id="another name"),
        pytest.param("http://127.0.0.2:{port}/", id="a neighbour"),
        pytest.param("http://169.254.169.254/latest/meta-data/", id="the cloud's own server"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("", id="nowhere"),
        pytest.param("/a", id="in a circle"),
        pytest.param("http://[", id="no address"),
    ],
)
async def test_a_redirect_leads_to_no_other_host_without_https(
    server: tuple[Redirecting, URL], session: aiohttp.ClientSession, location: str
) -> None:
    redirecting, url = server
    redirecting.locations["/a"] = location.format(port=url.port)

    with pytest.raises(ValueError, match=r"redirects|address|URL"):
        await redirects.get(session, url / "a", LIMITS)
    assert {path for path, _ in redirecting.logins} == {"/a"}
