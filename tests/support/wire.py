"""HTTP/1 as bytes on a socket: what goes out is what the test wrote, what comes back is what the server wrote."""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SECONDS = 60.0
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:[ \t]*chunked[ \t]*\r$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its head as it came (without the empty line), its body without chunk sizes.

    `complete`: the body is as long as the head promised. `interim`: the heads of 1xx answers before it.
    """

    head: bytes
    body: bytes
    complete: bool
    interim: tuple[bytes, ...] = ()

    @property
    def status(self) -> int:
        """The status code, 0 for what is no HTTP."""
        match = re.match(rb"HTTP/\d\.\d (\d{3})", self.head)
        return int(match[1]) if match else 0

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name.lower():
                return value.decode("latin-1").strip()
        return None


async def exchange(url: str, request: bytes, *, then: bytes = b"") -> Reply:
    """The answer to these bytes, read until the server closes; so the request should ask it to.

    `then` is sent once a 100 came, and never without one. Raises `TimeoutError` if the server keeps the connection.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(_SECONDS):
            sending = asyncio.create_task(_send(writer, request))
            received = b""
            while chunk := await _read(reader):
                received += chunk
                if then and received.startswith(b"HTTP/1.1 100 ") and received.endswith(b"\r\n\r\n"):
                    writer.write(then)
                    then = b""
            await sending
    finally:
        writer.close()
    return parse(received, head_only=request.startswith(b"HEAD "))


async def _send(writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    with contextlib.suppress(ConnectionError):  # it has heard enough; what it said is read elsewhere
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except ConnectionError:
        return b""


def parse(received: bytes, *, head_only: bool = False) -> Reply:
    """All that came over a connection, as one answer; `head_only` for the answer to a HEAD."""
    interim = []
    head, _, rest = received.partition(b"\r\n\r\n")
    while re.match(rb"HTTP/1\.1 1\d\d ", head):
        interim.append(head)
        head, _, rest = rest.partition(b"\r\n\r\n")
    body, complete = _body(head + b"\r\n", rest, head_only)
    return Reply(head, body, complete, tuple(interim))


def _body(head: bytes, rest: bytes, head_only: bool) -> tuple[bytes, bool]:
    if head_only:
        return rest, not rest
    if _CHUNKED.search(head):
        return _dechunked(rest)
    if length := _LENGTH.search(head):
        return rest, len(rest) == int(length[1])
    return rest, True


def _dechunked(rest: bytes) -> tuple[bytes, bool]:
    body = b""
    while match := re.match(rb"([0-9a-fA-F]+)\r\n", rest):
        size = int(match[1], 16)
        chunk, rest = rest[match.end() : match.end() + size], rest[match.end() + size + 2 :]
        body += chunk
        if size == 0:
            return body, not rest
        if len(chunk) < size:
            break
    return body, False
