"""The live parts of the page: server-sent events, which browsers read again by themselves after a break."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import hdrs, web
from aiohttp_sse import EventSourceResponse

from proxy.web.client import NO_NETWORKS, Networks, client, neighbourhood
from proxy.web.page import templating
from proxy.web.page.visitor import Visitor

_PAUSE = 0.25  # seconds between two messages of a stream
_TICK = 2.0  # seconds between two messages at most while anything is built, as times go on; and between two looks at
#              the builds of other machines
_HEARTBEAT = 15.0  # seconds between two messages at most while nothing is built
_MOST_STREAMS = 200
_LONGEST_NUMBER = 12  # digits
_MOST_OF_ONE = 20  # streams of one client
_LONGEST_SEND = 60.0  # seconds; a client that takes nothing for so long is gone

#: The events of a stream, and their data, for the board as it is now.
Messages = Callable[[], AsyncIterator[tuple[str, str]]]
#: Of the last event of a stream.
ENDED = "ended"


class Changes(Protocol):
    """When the board of builds changes, and nothing of what is on it: that is for a `Visitor` to say."""

    @property
    def version(self) -> int:
        """Another number after each change."""

    @property
    def is_busy(self) -> bool:
        """Whether a build runs."""

    async def change(self, version: int) -> None:
        """Return when the board is no longer at this version."""

    async def refresh(self) -> None:
        """Read the builds of other machines."""


class Live:
    """The streams of one page."""

    def __init__(
        self, board: Changes, headers: Mapping[str, str], trusted_proxies: Networks = NO_NETWORKS
    ) -> None:
        """`headers` are those of every answer of the page. `trusted_proxies` may say who their client is."""
        self._board = board
        self._headers = headers
        self._trusted_proxies = trusted_proxies
        self._streams: Counter[str] = Counter()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams."""
        self._closing.set()

    async def builds(
        self, request: web.Request, context: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> web.StreamResponse:
        """The list of builds, whenever it changes; `context` gives what its template needs."""

        async def messages() -> AsyncIterator[tuple[str, str]]:
            yield "builds", templating.text(request, "parts/builds.html", await context())

        return await self._stream(request, messages)

    async def build(self, request: web.Request, visitor: Visitor, identity: str) -> web.StreamResponse:
        """The state of a build whenever it changes, and the further lines of its log, as this visitor may see them."""
        number = request.query.get("seen", "0")
        seen = int(number) if number.isdecimal() and len(number) < _LONGEST_NUMBER else 0

        async def messages() -> AsyncIterator[tuple[str, str]]:
            nonlocal seen
            build = await visitor.build(identity)
            if build is None:
                return
            lines, seen = visitor.lines_since(build, seen)
            if lines:
                yield "lines", json.dumps(list(lines))
            yield "state", templating.text(request, "parts/build.html", {"build": build})
            if build.ended:
                yield ENDED, build.state

        return await self._stream(request, messages)

    async def _stream(self, request: web.Request, messages: Messages) -> web.StreamResponse:
        """What `messages` yields at each version of the board; `ENDED` is the last event."""
        if request.method != hdrs.METH_GET:
            return web.Response(status=405, headers={hdrs.ALLOW: hdrs.METH_GET})
        address = client(
            request.headers.items(), request.remote or "", request.scheme, self._trusted_proxies
        ).address
        place = neighbourhood(address)
        if self._streams[place] >= _MOST_OF_ONE or self._streams.total() >= _MOST_STREAMS:
            return web.Response(status=503, text="too many streams of this page are open\n")
        response = EventSourceResponse(sep="\n", send_timeout=_LONGEST_SEND, ping_interval=_HEARTBEAT)
        del response.headers[hdrs.CONNECTION]
        response.headers.update(self._headers)
        self._streams[place] += 1
        try:
            await response.prepare(request)
            async with response:
                with contextlib.suppress(ConnectionResetError, TimeoutError):  # the client is gone
                    await self._send(response, messages)
        finally:
            self._streams -= Counter({place: 1})  # drops what is 0
        return response

    async def _send(self, response: EventSourceResponse, messages: Messages) -> None:
        while not self._closing.is_set():
            await self._board.refresh()
            version = self._board.version
            async for event, data in messages():
                await response.send(data, event=event)
                if event == ENDED:
                    return
            await self._wait(version)
            await asyncio.sleep(_PAUSE)

    async def _wait(self, version: int) -> None:
        """Return at the next version of the board, when the same message is due again, or when we close."""
        clock = asyncio.get_running_loop().time
        until = clock() + (_TICK if self._board.is_busy else _HEARTBEAT)
        waits = [asyncio.create_task(self._board.change(version)), asyncio.create_task(self._closing.wait())]
        try:
            while (left := until - clock()) > 0:
                done, _ = await asyncio.wait(
                    waits, timeout=min(left, _TICK), return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return
                await self._board.refresh()
        finally:
            for wait in waits:
                wait.cancel()
