"""Streams of the page: when they say something, when they end, and how many there may be."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.builds.board import BuildBoard
from proxy.builds.logs import BuildLogs
from proxy.builds.machines import SharedBuilds
from proxy.core.events import BuildEnded, BuildStarted, LogLine, Resolved
from proxy.registry.client import Registry
from proxy.registry.endpoint import Endpoint
from proxy.registry.login import Credentials
from proxy.state.sqlite import open_state
from proxy.web.client import Networks
from proxy.web.page import live, templating
from proxy.web.page.image_list import ImageList
from proxy.web.page.live import Live
from proxy.web.page.rights import Rights
from proxy.web.page.visitor import Visitor

HEADERS = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"}


@dataclass
class Streams:
    """A server of the streams alone."""

    board: BuildBoard
    live: Live
    url: str
    session: aiohttp.ClientSession

    async def read(self, path: str, until: str) -> str:
        """What a stream says up to this text, or to its end."""
        text = ""
        async with asyncio.timeout(20), self.session.get(self.url + path) as answer:
            while until not in text and (chunk := await answer.content.readany()):
                text += chunk.decode()
        return text


@pytest_asyncio.fixture
async def streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Streams]:
    monkeypatch.setattr(live, "_PAUSE", 0.01)
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(open_state(tmp_path / "state.sqlite"))
        shared = SharedBuilds(state, lambda: 1000.0, report_seconds=15)
        board = BuildBoard(BuildLogs(tmp_path / "logs"), shared, lambda: 1000.0, host="here")
        streaming = Live(board, HEADERS)
        unguarded = await stack.enter_async_context(Endpoint("http://127.0.0.1:1").opened())
        images, rights = ImageList(Registry(unguarded), state), Rights(unguarded)

        def visitor(request: web.Request) -> Visitor:
            return Visitor(board, images, rights, Credentials(), logs="logs" in request.query)

        async def builds(request: web.Request) -> web.StreamResponse:
            async def context() -> dict[str, object]:
                seen = await visitor(request).builds()
                return {"running": seen.running, "ended": seen.ended, "is_here": board.is_here}

            return await streaming.builds(request, context)

        async def build(request: web.Request) -> web.StreamResponse:
            return await streaming.build(request, visitor(request), request.match_info["id"])

        application = web.Application()
        await templating.set_up(application)
        await templating.ready()
        application.router.add_get("/events", builds)
        application.router.add_get("/builds/{id}/events", build)
        async with TestServer(application) as server, aiohttp.ClientSession() as session:
            yield Streams(board, streaming, str(server.make_url("")).rstrip("/"), session)
            streaming.close()
        await board.close()


async def test_the_answer_has_the_headers_of_the_page(streams: Streams) -> None:
    async with streams.session.get(f"{streams.url}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    async with streams.session.head(f"{streams.url}/events") as answer:
        assert answer.status == 405


async def test_a_change_is_said_and_the_end_ends_the_stream(streams: Streams) -> None:
    streams.board.see(BuildStarted("git", "latest"))
    streams.board.see(Resolved("git", "latest", "key"))
    (build,) = streams.board.running
    path = f"/builds/{build.id}/events"
    without = asyncio.create_task(streams.read(path, "never said"))
    overview = asyncio.create_task(streams.read("/events", "badge made"))
    async with asyncio.timeout(20), streams.session.get(f"{streams.url}{path}?logs") as answer:
        text = (await answer.content.readuntil(b"event: state\n")).decode()
        streams.board.see(LogLine(("git",), "a <secret>\r", "key"))
        text += (await answer.content.readuntil(b"event: lines\n")).decode()
        streams.board.see(BuildEnded("git", "latest", digest="sha256:0"))
        text += (await answer.content.read()).decode()

    assert re.findall(r"^event: (\w+)$", text, re.MULTILINE)[-1] == "ended"
    assert text.endswith("event: ended\ndata: made\n\n")
    assert '["a <secret>\\r"]' in text
    assert "secret" not in await without
    assert "event: builds" in await overview


async def test_a_silent_stream_says_the_same_again(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_HEARTBEAT", 0.05)
    text = ""
    async with asyncio.timeout(20), streams.session.get(f"{streams.url}/events") as answer:
        while text.count("event: builds") < 3:
            text += (await answer.content.readany()).decode()


async def test_there_are_no_more_streams_than_that(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MOST_STREAMS", 1)
    async with streams.session.get(f"{streams.url}/events") as first:
        await first.content.readany()
        async with streams.session.get(f"{streams.url}/events") as second:
            assert second.status == 503
        streams.live.close()
        async with asyncio.timeout(20):
            await first.content.read()
    async with streams.session.get(f"{streams.url}/events") as third:
        assert third.status == 200, "the first one has left"


async def test_one_of_a_build_that_nobody_has_says_nothing(streams: Streams) -> None:
    reading = asyncio.create_task(streams.read("/builds/nosuch/events", "event"))
    await asyncio.sleep(0.1)
    streams.live.close()

    assert "event" not in await reading


async def test_one_client_does_not_take_all_streams(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_MOST_OF_ONE", 2)
    async with (
        streams.session.get(f"{streams.url}/events"),
        streams.session.get(f"{streams.url}/events"),
        streams.session.get(f"{streams.url}/events") as third,
        streams.session.get(f"{streams.url}/events", headers={"X-Forwarded-For": "192.0.2.1"}) as forged,
    ):
        assert (third.status, forged.status) == (503, 503)
        streams.live._trusted_proxies = Networks([ip_network("127.0.0.1")])
        header = {"X-Forwarded-For": "192.0.2.1"}
        async with streams.session.get(f"{streams.url}/events", headers=header) as other:
            assert other.status == 200
