"""Limits of a connection before its first request, and what breaks HTTP's rules.

aiohttp bounds each header and the time between requests. It bounds neither the sum of the headers nor the time that they take,
and a client that opens connections and sends nothing occupies a file of nixfront's for each. So `ConnectionLimits` stands
between the socket and aiohttp's protocol. It counts while no request is being answered; once there is a request, builds and
slow readers have all the time they need. So has a body, as long as some of it comes now and then.

At a limit, of all connections or of one address, the connection that has been idle for the longest goes, and the new one
comes in. It is refused only where every connection has a request under way.

Bytes that are no HTTP end their connection. aiohttp's protocol has a gap there: where a body breaks the rules after its head,
the request waits for the rest for ever. So this file ends that body, and whoever reads it gets an error. A client that has no
request under way gets the stock registry's 400.
"""

import asyncio
import logging
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.web_protocol import _ErrInfo
from typing_extensions import override

from proxy.web.client import NO_NETWORKS, Networks, neighbourhood, plain

_log = logging.getLogger(__name__)
_MOST_FILES = 1 << 16  # what we start inherits the limit, and some programs close every file up to it
_KEPT_FILES = 200  # that are not for connections: databases, pipes of Nix, files being packed
_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_MANY = b"503 Service Unavailable"
_MALFORMED = b"400 Bad Request"
_TLS = "it is TLS"  # engines try this first, and then plain HTTP: no line for operators
_OTHER_VERSION = b"505 HTTP Version Not Supported: unsupported protocol version"


@dataclass(frozen=True, slots=True)
class DoorRules:
    """`head_bytes`: of a request line and all headers; `head_seconds`: for these; `body_seconds`: that a body
    may stand still; `idle_seconds`: between two requests; `connections`: at once.

    `connections_of_one` are those of one address (of one /64 network of IPv6); those of `trusted_proxies` have no such limit.
    """

    head_bytes: int
    head_seconds: float
    body_seconds: float
    idle_seconds: float
    connections: int
    connections_of_one: int
    trusted_proxies: Networks = NO_NETWORKS


def most_connections() -> int:
    """How many clients the files are enough for that this process may open, two each; the limit is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max(soft, min(hard, _MOST_FILES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, (files - _KEPT_FILES) // 2)


class ConnectionLimits:
    """Admits connections to one or several servers."""

    def __init__(self, rules: DoorRules) -> None:
        self.rules = rules
        self._inside: dict[str, set[_Guarded]] = {}
        self._count = 0

    def admit(self, connection: "_Guarded", place: str) -> bool:
        """Let a connection from this place in, if there is room; at a limit the longest idle one goes for it."""
        here = self._inside.get(place, set())
        if place and len(here) >= self.rules.connections_of_one and not _drop_idle(here):
            return False
        if self._count >= self.rules.connections and not _drop_idle(
            other for others in self._inside.values() for other in others
        ):
            return False
        self._inside.setdefault(place, set()).add(connection)
        self._count += 1
        return True

    def leave(self, connection: "_Guarded", place: str) -> None:
        """A connection that was let in is gone."""
        here = self._inside[place]
        here.remove(connection)
        self._count -= 1
        if not here:
            del self._inside[place]

    def place(self, peer: str) -> str:
        """Whose connections this address' connections count with; empty for those that have no limit of their own."""
        return "" if self.rules.trusted_proxies.contain(peer) else neighbourhood(plain(peer))

    def before(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of each connection to this server."""
        return lambda: _Guarded(self, server())


class _Guarded(asyncio.Protocol):
    """One connection."""

    def __init__(self, door: ConnectionLimits, handler: web.RequestHandler) -> None:
        self._door = door
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head = 0
        self._place = ""
        self._body: StreamReader | None = None
        self._ended = False
        self._heard = 0.0
        self._body_timer: asyncio.TimerHandle | None = None

    @property
    def idle_since(self) -> float | None:
        """The time of the event loop at which it became idle; None while a request is under way."""
        handler = self._handler
        if handler._current_request is not None or handler._messages:  # noqa: SLF001
            return None
        return handler._next_keepalive_close_time  # noqa: SLF001 - the same span later for all connections

    def drop(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()
            self.connection_lost(None)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        peer = stream.get_extra_info("peername")
        place = self._door.place(str(peer[0]) if peer else "")
        if not self._door.admit(self, place):
            _refuse(stream, _TOO_MANY)
            return
        self._place = place
        self._transport = stream
        self._handler.connection_made(transport)
        self._watch()

    @override
    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._ended:
            return
        body = self._last_body()
        if self._is_head():
            self._head += len(data)
            if self._head > self._door.rules.head_bytes:
                _refuse(self._transport, _TOO_LARGE)
                return
            self._handler.data_received(data)
            if not self._is_head():
                self._head = 0
                self._unwatch()
            elif self._timer is None:
                self._watch()
        else:
            self._handler.data_received(data)
        if refusal := self._refusal():
            reason = _TLS if data.startswith(b"\x16\x03") else "it breaks the rules of HTTP"
            self._end(self._transport, body, reason, refusal)
            return
        self._body = self._last_body()
        self._heard = asyncio.get_running_loop().time()
        if self._body_timer is None and self._body is not None and not self._body.is_eof():
            self._watch_body(self._door.rules.body_seconds)

    @override
    def eof_received(self) -> None:
        if self._transport is not None:
            self._handler.eof_received()

    @override
    def pause_writing(self) -> None:
        if self._transport is not None:
            self._handler.pause_writing()

    @override
    def resume_writing(self) -> None:
        if self._transport is not None:
            self._handler.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        if self._body_timer is not None:
            self._body_timer.cancel()
        if self._transport is not None:
            self._door.leave(self, self._place)
            self._transport = None
            self._handler.connection_lost(exc)

    def _is_head(self) -> bool:
        """Whether what comes next belongs to the head of a request: none is there, or all of it has been read."""
        if self._handler._messages:  # noqa: SLF001 - nothing public says so
            return False
        body = self._last_body()
        return body is None or body.is_eof()

    def _last_body(self) -> StreamReader | None:
        """The body of the request that came last, also after its answer; aiohttp reads the rest of it for some seconds."""
        handler = self._handler
        if handler._messages:  # noqa: SLF001
            return handler._messages[-1][1]  # noqa: SLF001
        request = handler._current_request  # noqa: SLF001
        return self._body if request is None else request.content

    def _refusal(self) -> bytes | None:
        """The status for what came, if it is no HTTP/1; None if it is. aiohttp would answer a request of HTTP/2.0 in its own version."""
        messages = self._handler._messages  # noqa: SLF001
        for place, (message, body) in enumerate(messages):
            if not isinstance(message, RawRequestMessage):
                return _MALFORMED
            if message.version.major != 1:
                error = _ErrInfo(505, HttpProcessingError(code=505), "another version of HTTP")
                messages[place] = (error, body)  # no handler may see it
                return _OTHER_VERSION
        return None

    def _watch_body(self, seconds: float) -> None:
        self._body_timer = asyncio.get_running_loop().call_later(seconds, self._look_at_body)

    def _look_at_body(self) -> None:
        """End a body that stands still, unless it is the registry that takes no more."""
        self._body_timer = None
        body, transport, limit = self._last_body(), self._transport, self._door.rules.body_seconds
        if transport is None or self._ended or body is None or body.is_eof():
            return
        left = self._heard + limit - asyncio.get_running_loop().time()
        if not transport.is_reading():
            left = limit
        if left > 0:
            self._watch_body(left)
        else:
            self._end(transport, body, f"it stood still for {limit:g} s")

    def _end(
        self, transport: asyncio.Transport, body: StreamReader | None, reason: str, status: bytes = _MALFORMED
    ) -> None:
        """End the body that was under way, and the connection after the answer that is under way."""
        self._ended = True
        handler = self._handler
        peer = transport.get_extra_info("peername")
        level = logging.DEBUG if reason is _TLS else logging.INFO
        _log.log(level, "a request ends too early: %s remote=%s", reason, peer[0] if peer else "")
        is_answering = handler._current_request is not None or len(handler._messages) > 1  # noqa: SLF001
        if body is not None and not body.is_eof():
            if is_answering:
                body.set_exception(web.RequestPayloadError(reason))
            body.feed_eof()
            handler.close()
        elif is_answering:
            handler.close()
        else:
            _refuse(transport, status)

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._door.rules.head_seconds, self._too_slow)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        """Unless it is the next request of a client whose first one is still being answered."""
        self._timer = None
        if self._transport is not None and self._handler._current_request is None:  # noqa: SLF001
            self._transport.abort()


def _drop_idle(connections: Iterable[_Guarded]) -> bool:
    """Drop the connection that has been idle for the longest; whether there was one."""
    idle = [
        (since, id(connection), connection) for connection in connections if (since := connection.idle_since)
    ]
    if idle:
        min(idle)[-1].drop()
    return bool(idle)


def _refuse(transport: asyncio.Transport, status: bytes) -> None:
    """Say why, as the stock registry does, and hang up."""
    transport.write(
        b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%b"
        % (status, status)
    )
    transport.close()


def is_ours(record: logging.LogRecord) -> bool:
    """A filter for the log of aiohttp's server, without what is no HTTP: that is a line of our own, and no trace."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
