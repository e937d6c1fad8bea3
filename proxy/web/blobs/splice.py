"""The rest of a response's body, moved by the kernel from a socket to the client's: no byte of it comes into the process.

Rules of this file. aiohttp's transport goes on owning the client's socket; while a body is moved nothing else is written,
and nothing is moved before all that was written has left. What waits for the socket waits on a duplicate of its
descriptor, as the event loop lets nobody watch one that a transport has. Both sockets and the pipe between them never
block; what the client does not take stays in the registry's socket, but for one pipe full.

Only plain TCP can do this, and only on Linux: `possible` says whether, before anything has been sent.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket

from aiohttp import web

_PIPE = 1 << 20  # bytes; a system that gives less has it slower
_TURN = 1 << 20  # bytes after which others get their turn
_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


def possible(request: web.Request) -> bool:
    """Whether the client's connection is one that the kernel can write to."""
    transport = request.transport
    return (
        hasattr(os, "splice")
        and transport is not None
        and transport.get_extra_info("sslcontext") is None
        and transport.get_extra_info("socket") is not None
    )


async def begin(request: web.Request, response: web.StreamResponse, body: bytes) -> None:
    """Send the response's head and the beginning of its body, and wait until they have left. Raises `ConnectionError`."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    transport.set_write_buffer_limits(high=0)  # so that `drain` waits for the last byte
    try:
        await response.prepare(request)
        if body:
            await response.write(body)
        await request.writer.drain()
    finally:
        transport.set_write_buffer_limits()


async def move(source: socket.socket, request: web.Request, count: int) -> int:
    """How many of so many bytes were moved from the socket to the client, to whom `begin` has sent what comes before.

    All of them, or none where the system cannot do it. Raises `EOFError` if the source ends before, and `ConnectionError`
    if the client does.
    """
    with contextlib.ExitStack() as stack:
        try:
            client, out, into = _opened(request, stack)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                return 0
            raise
        left, turn = count, 0
        while left:
            held = await _fill(source, into, left)
            if held is None and left == count:
                return 0
            if not held:
                raise EOFError("the source ended before all was moved")
            left -= held
            turn += held
            while held:
                sent = await _empty(out, client, held)
                held -= sent
                request.writer.output_size += sent
            if turn >= _TURN:
                turn = 0
                await asyncio.sleep(0)
    return count


def _opened(request: web.Request, stack: contextlib.ExitStack) -> tuple[int, int, int]:
    """A descriptor of our own for the client's socket, and the ends of a pipe; `stack` closes them.

    Raises `ConnectionResetError` if the client is gone, `OSError` if there are too many files.
    """
    transport = request.transport
    descriptor = transport.get_extra_info("socket").fileno() if transport is not None else -1
    if descriptor < 0:
        raise ConnectionResetError("the client is gone")
    client = os.dup(descriptor)
    stack.callback(os.close, client)
    out, into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    stack.callback(os.close, out)
    stack.callback(os.close, into)
    with contextlib.suppress(OSError):  # a user may have so many bytes in pipes and no more
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE)
    return client, out, into


async def _fill(source: socket.socket, into: int, most: int) -> int | None:
    """Bytes that went into the pipe, which is empty: 0 at the source's end, None where the system has no such thing."""
    while True:
        try:
            return os.splice(source.fileno(), into, min(most, _PIPE), flags=_FLAGS)
        except BlockingIOError:
            await _until(source.fileno(), readable=True)
        except ConnectionError:
            return 0
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS):
                return None
            raise


async def _empty(out: int, client: int, most: int) -> int:
    """Bytes that went from the pipe to the client. Raises `ConnectionError`."""
    while True:
        try:
            return os.splice(out, client, most, flags=_FLAGS)
        except BlockingIOError:
            await _until(client, readable=False)


async def _until(descriptor: int, *, readable: bool) -> None:
    """Wait until the descriptor can be read from, or written to."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    watch, unwatch = (
        (loop.add_reader, loop.remove_reader) if readable else (loop.add_writer, loop.remove_writer)
    )
    watch(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        unwatch(descriptor)
