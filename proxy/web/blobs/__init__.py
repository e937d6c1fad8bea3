"""A blob's way from the registry to a client, where there is a shorter one than through our memory.

Rules of this file: the registry decides each time who may have a blob. nixfront asks with the client's own credentials,
by the GET itself or by a HEAD before it. Where the registry answers no 200, its answer goes to the client. A way that does
not fit a request is no failure: the next one is tried, and in the end everything passes through as ever.

    Redirected   to the registry's public address, when the operator says that clients can reach it
    FromDisk     out of the registry's own storage folder, when it is ours too
    Spliced      from the registry's socket to the client's, moved by the kernel
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from io import FileIO
from typing import Protocol

from aiohttp import hdrs, web

from proxy.core.request import Kind, RegistryPath
from proxy.telemetry.requests import path_of
from proxy.web.blobs import shared_disk, splice
from proxy.web.blobs.plain_http import Answer, BrokenOff, PlainHttp
from proxy.web.blobs.shared_disk import SharedDisk
from proxy.web.passthrough import Passthrough, broken_off

_log = logging.getLogger(__name__)
_LEAST = 1 << 17  # bytes that are left of a body: below, a pipe costs more than it saves
_WINDOW = 1 << 21  # bytes of a file that are sent before anything else is looked at
# What asks for a part of a blob, or for none if it has not changed.
_CONDITIONS = frozenset(
    {"range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)


class Way(Protocol):
    """One way to serve a GET of a blob."""

    async def serve(self, request: web.Request, blob: RegistryPath) -> web.StreamResponse | None:
        """The response; None where this is no way for this request. Raises `RegistryUnavailable`."""


class Blobs:
    """The ways, in their order."""

    def __init__(self, ways: Sequence[Way]) -> None:
        """Without any, all passes through."""
        self._ways = ways

    async def serve(self, request: web.Request) -> web.StreamResponse | None:
        """The response to a request for a blob; None for any other, and where no way fits."""
        if request.method != hdrs.METH_GET or request.body_exists:
            return None
        path = path_of(request)
        if path.kind != "blob" or not (path.is_canonical and path.is_alone):
            return None
        for way in self._ways:
            if (response := await way.serve(request, path)) is not None:
                return response
        return None


class Redirected:
    """Sends clients to another address of the registry."""

    def __init__(self, passthrough: Passthrough, public: str) -> None:
        """`public` is an origin."""
        self._passthrough = passthrough
        self._public = public

    async def serve(self, request: web.Request, blob: RegistryPath) -> web.StreamResponse | None:
        """A 307, once the registry allows the blob to this client."""
        async with self._passthrough.send(request, hdrs.METH_HEAD) as allowed:
            if allowed.status != 200:
                return None
        return web.Response(status=307, headers={hdrs.LOCATION: self._public + blob.path})


class FromDisk:
    """Sends the registry's own file."""

    def __init__(self, passthrough: Passthrough, disk: SharedDisk) -> None:
        """The registry behind `passthrough` stores on this `disk`."""
        self._passthrough = passthrough
        self._disk = disk

    async def serve(self, request: web.Request, blob: RegistryPath) -> web.StreamResponse | None:
        """The whole file under the registry's own head, once the registry allows the blob to this client."""
        if not _CONDITIONS.isdisjoint(name.lower() for name in request.headers):
            return None
        async with self._passthrough.send(request, hdrs.METH_HEAD) as allowed:
            size = allowed.content_length
            if allowed.status != 200 or not size:
                return None
            head = self._passthrough.response(200, allowed.reason, [*allowed.headers.items()])
        async with self._disk.open(blob.repository, blob.reference, size) as file:
            if file is None:
                return None
            await head.prepare(request)
            try:
                await _send(request, file, size)
            except OSError as error:
                if isinstance(error, ConnectionError):
                    raise
                broken_off(request, head, error)
            await head.write_eof()
            return head


class Spliced:
    """Asks on a socket of its own, and lets the kernel move what comes."""

    def __init__(
        self, passthrough: Passthrough, registry: PlainHttp, timed: Callable[[Kind, str, float], None]
    ) -> None:
        """`registry` is the one behind `passthrough`; `timed` counts the kind, method and seconds of each question."""
        self._passthrough = passthrough
        self._registry = registry
        self._timed = timed

    async def serve(self, request: web.Request, blob: RegistryPath) -> web.StreamResponse | None:
        """The registry's answer, whatever it is but a 404."""
        if not splice.possible(request):
            return None
        started = time.perf_counter()
        headers = [*self._passthrough.outgoing(request).items()]
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._registry.get(blob.path, headers))
            except (BrokenOff, ValueError) as error:
                _log.debug("asking as usual path=%s error=%s", blob.path, error)
                return None
            self._timed(blob.kind, request.method, time.perf_counter() - started)
            if answer.status == 404:  # it may be one that nixfront can make again
                return None
            response = self._passthrough.response(answer.status, answer.reason, answer.headers)
            try:
                await _relay(request, response, answer)
            except (BrokenOff, EOFError) as error:
                broken_off(request, response, error)
            await response.write_eof()
            return response


async def _relay(request: web.Request, response: web.StreamResponse, answer: Answer) -> None:
    """Head and body. Raises `BrokenOff` or `EOFError` for what the registry did, `ConnectionError` for the client."""
    if answer.left is None or answer.left < _LEAST:
        await response.prepare(request)
    else:
        await splice.begin(request, response, answer.begun())
        answer.left -= await splice.move(answer.socket, request, answer.left)
    if answer.left != 0:
        while data := await answer.read():
            await response.write(data)


async def _send(request: web.Request, file: FileIO, size: int) -> None:
    """A file's bytes, straight to the client's socket. Raises `OSError`: a `ConnectionError` is the client's."""
    loop = asyncio.get_running_loop()
    for offset in range(0, size, _WINDOW):
        count = min(_WINDOW, size - offset)
        if not shared_disk.in_memory(file, offset, count):
            await asyncio.to_thread(shared_disk.fetch, file, offset, count)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        request.writer.output_size += await loop.sendfile(transport, file, offset, count)
