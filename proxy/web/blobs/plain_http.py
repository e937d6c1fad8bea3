"""GET over plain HTTP/1.1, on sockets of our own: behind a head that is read, the kernel itself can move the body on.

h11 reads the heads and says where a body ends; this file has the sockets. A connection stays open for
the next request as long as the server allows. A GET on one that the server has closed is sent again on a new one.
"""

import asyncio
import re
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import h11

Pairs = Sequence[tuple[str, str]]
_HEAD = 1 << 16  # bytes read at once while a head is awaited: what they hold of the body has to be copied
_PIECE = 1 << 18  # bytes of a body read at once, where it has to be copied
_LONGEST_HEAD = 1 << 20
_MOST_INTERIM = 16  # answers of the class 1xx before the final one
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # what aiohttp writes in no head
_CONNECT_SECONDS = 10.0
_MOST_IDLE = 16
_IDLE_SECONDS = 30.0


class BrokenOff(Exception):
    """The server is not there, ended the connection too early, or did not speak HTTP."""


class Answer:
    """An answer whose head is read. The body comes from `read`; or from `begun`, and what is `left` from `socket`."""

    def __init__(self, connection: socket.socket, protocol: h11.Connection, head: h11.Response) -> None:
        """`protocol` has just read this head from the connection."""
        self.socket = connection
        self.status = head.status_code
        self.reason = head.reason.decode("latin-1")
        self.headers: Pairs = [(_text(name), _text(value)) for name, value in head.headers.raw_items()]
        self._protocol = protocol
        self._stays = head.http_version == b"1.1" and (b"connection", b"close") not in [
            (name, value.lower()) for name, value in head.headers
        ]
        headers = dict(head.headers)
        counted = self.status in (200, 206) and b"transfer-encoding" not in headers
        #: The bytes of the body that have not been read, None where only h11 can tell its end.
        self.left = int(headers[b"content-length"]) if counted and b"content-length" in headers else None

    def begun(self) -> bytes:
        """What came of a body, whose length the head says, together with the head. Raises `BrokenOff`."""
        pieces = []
        while isinstance(event := _next(self._protocol), h11.Data):
            pieces.append(bytes(event.data))
        return self._took(b"".join(pieces))

    async def read(self) -> bytes:
        """Some bytes of the body, none at its end. Raises `BrokenOff` where that comes too early."""
        while (event := _next(self._protocol)) is h11.NEED_DATA:
            await _receive(self.socket, self._protocol, _PIECE)
        return self._took(bytes(event.data)) if isinstance(event, h11.Data) else b""

    @property
    def reusable(self) -> bool:
        """Whether the next answer can come on this connection."""
        ended = self.left == 0 or self._protocol.their_state is h11.DONE
        return self._stays and ended and not self._protocol.trailing_data[0]

    def _took(self, data: bytes) -> bytes:
        if self.left is not None:
            self.left -= len(data)
        return data


class PlainHttp:
    """One server."""

    def __init__(self, host: str, port: int) -> None:
        """Nothing is connected yet."""
        self._address = (host, port)
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._idle: deque[tuple[float, socket.socket]] = deque(maxlen=_MOST_IDLE)

    @asynccontextmanager
    async def get(self, target: str, headers: Pairs) -> AsyncIterator[Answer]:
        """The answer to a GET with these headers and `Host`.

        Raises `BrokenOff` as long as nothing was answered, `ValueError` for headers that HTTP does not allow.
        """
        answer = await self._answer(_request(target, [("Host", self._name), *headers]))
        try:
            yield answer
        finally:
            if answer.reusable:
                self._keep(answer.socket)
            else:
                answer.socket.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _answer(self, request: h11.Request) -> Answer:
        while (connection := self._idle_one()) is not None:
            try:
                return await _ask(connection, request)
            except BrokenOff:
                pass  # it was about to be closed
        return await _ask(await self._connect(), request)

    def _keep(self, connection: socket.socket) -> None:
        if len(self._idle) == _MOST_IDLE:
            self._idle.popleft()[1].close()
        self._idle.append((time.monotonic(), connection))

    def _idle_one(self) -> socket.socket | None:
        """A connection on which there is nothing to be read, not even its end."""
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS:
                try:
                    connection.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    return connection
                except OSError:
                    pass
            connection.close()
        return None

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        error: OSError = OSError("no address")
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                for family, kind, protocol, _, address in await loop.getaddrinfo(
                    *self._address, type=socket.SOCK_STREAM
                ):
                    connection = socket.socket(family, kind, protocol)
                    connection.setblocking(False)
                    try:
                        await loop.sock_connect(connection, address)
                    except OSError as failed:
                        connection.close()
                        error = failed
                    except BaseException:
                        connection.close()
                        raise
                    else:
                        return connection
        except OSError as failed:  # of the name, or of the time
            error = failed
        raise BrokenOff(f"{self._name}: {error!r}") from error


def _request(target: str, headers: Pairs) -> h11.Request:
    """Raises `ValueError`."""
    pairs = [(name.encode("ascii"), value.encode("utf-8", "surrogateescape")) for name, value in headers]
    try:
        return h11.Request(method="GET", target=target, headers=pairs)
    except h11.LocalProtocolError as error:
        raise ValueError(str(error)) from error


async def _ask(connection: socket.socket, request: h11.Request) -> Answer:
    """The answer, as far as its head. Closes the connection where it raises; `BrokenOff` for what the server did."""
    try:
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        question = (protocol.send(request) or b"") + (protocol.send(h11.EndOfMessage()) or b"")
        try:
            await asyncio.get_running_loop().sock_sendall(connection, question)
        except OSError as error:
            raise BrokenOff(repr(error)) from error
        return Answer(connection, protocol, await _head(connection, protocol))
    except BaseException:
        connection.close()
        raise


async def _head(connection: socket.socket, protocol: h11.Connection) -> h11.Response:
    """Raises `BrokenOff`, also for a head that two readers may understand in two ways."""
    interim = 0
    while not isinstance(event := _next(protocol), h11.Response):
        if event is h11.NEED_DATA:
            await _receive(connection, protocol, _HEAD)
        elif not isinstance(event, h11.InformationalResponse):
            raise BrokenOff("the server ended the connection without an answer")
        elif (interim := interim + 1) > _MOST_INTERIM:
            raise BrokenOff("the server sends one interim answer after the other")
    names = {name for name, _ in event.headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        raise BrokenOff("the server says the length of a body in two ways")
    if any(_CONTROL.search(text) for text in (event.reason, *(value for _, value in event.headers))):
        raise BrokenOff("the server sends control characters in a head")
    return event


def _next(protocol: h11.Connection) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    """Raises `BrokenOff`."""
    try:
        return protocol.next_event()
    except h11.RemoteProtocolError as error:
        raise BrokenOff(str(error)) from error


async def _receive(connection: socket.socket, protocol: h11.Connection, most: int) -> None:
    """Raises `BrokenOff`."""
    try:
        protocol.receive_data(await asyncio.get_running_loop().sock_recv(connection, most))
    except OSError as error:
        raise BrokenOff(repr(error)) from error


def _text(data: bytes) -> str:
    """As aiohttp reads it."""
    return data.decode("utf-8", "surrogateescape")
