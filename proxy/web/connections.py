"""Limits of a connection before its first request, and certificates.

aiohttp bounds each header and the time between requests. It bounds neither the sum of the headers nor the time that they take,
and a client that opens connections and sends nothing occupies a file of nixfront's for each. So `ConnectionLimits` stands
between the socket and aiohttp's protocol. It counts while no request is being answered; once there is a request, bodies, builds
and slow readers have all the time they need.

At a limit, of all connections or of one address, the connection that has been idle for the longest goes, and the new one
comes in. It is refused only where every connection has a request under way.

`ServerCertificate` is the certificate that clients see; it follows changes of its files.
"""

import asyncio
import logging
import resource
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aiohttp import web
from typing_extensions import override

from proxy.core.errors import SettingsInvalid
from proxy.registry.endpoint import tls_reason
from proxy.web.client import NO_NETWORKS, Networks, neighbourhood, plain

_MOST_FILES = 1 << 16  # what we start inherits the limit, and some programs close every file up to it
_KEPT_FILES = 200  # that are not for connections: databases, pipes of Nix, files being packed
_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_MANY = b"503 Service Unavailable"


@dataclass(frozen=True, slots=True)
class DoorRules:
    """`head_bytes`: of a request line and all headers; `head_seconds`: for these; `idle_seconds`: between
    two requests; `connections`: at once.

    `connections_of_one` are those of one address (of one /64 network of IPv6); those of `trusted_proxies` have no such limit.
    """

    head_bytes: int
    head_seconds: float
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
        if self._transport is None:
            return
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
        if self._transport is not None:
            self._door.leave(self, self._place)
            self._transport = None
            self._handler.connection_lost(exc)

    def _is_head(self) -> bool:
        """Whether what comes next belongs to the head of a request: none is there, or all of it has been read."""
        handler = self._handler
        if handler._messages:  # noqa: SLF001 - nothing public says so
            return False
        request = handler._current_request  # noqa: SLF001
        return request is None or not request.can_read_body

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


_log = logging.getLogger(__name__)
_SECONDS = 2.0  # between two looks at the files
_State = tuple[tuple[int, int, int], ...]


class ServerCertificate:
    """A certificate chain with its key, in PEM files that are replaced while we serve.

    A new pair counts for new connections; those that are there stay as they are. A pair that cannot be used (half
    written, or a key that belongs to another certificate) goes to the log, and the old pair stays in use.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Reads the files, blocking. Raises `SettingsInvalid`."""
        self._files = (certificate, key)
        try:
            self._state = self._look()
            self._current = self._load()
            #: What a server is started with.
            self.context = self._load()
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"http.certificate, http.key: {tls_reason(error)}") from error
        self.context.sni_callback = self._choose

    async def watch(self) -> None:
        """Keep up with the files, for ever."""
        while True:
            await asyncio.sleep(_SECONDS)
            await asyncio.to_thread(self.renew)

    def renew(self) -> None:
        """Take the files as they are now, if they changed; blocking."""
        try:
            state = self._look()
            if state == self._state:
                return
            self._state = state
            self._current = self._load()
        except (OSError, ValueError) as error:
            _log.warning("the new certificate is not used, the old one goes on: %s", tls_reason(error))
            return
        _log.info("new certificate file=%s", self._files[0])

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """At each handshake, whether the client names a host or not."""
        connection.context = self._current

    def _look(self) -> _State:
        stats = [file.stat() for file in self._files]
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._files)
        return context
