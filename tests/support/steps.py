"""How much Python runs for one request: lines and calls on the event loop, from the client's bytes to the reply."""

import asyncio
import socket
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

_PRODUCT = f"{Path(__file__).parents[2]}/proxy/"


@dataclass(frozen=True, slots=True)
class Steps:
    """`lines` and `calls` of nixfront's own code; `all_lines` and `all_calls` with aiohttp's and asyncio's."""

    lines: int
    calls: int
    all_lines: int
    all_calls: int


async def count(url: str, path: str, accept: str) -> Steps:
    """The steps of one GET on a connection that has served one already; the server runs on this event loop."""
    parts = urlsplit(url)
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\n\r\n".encode()
    client = await asyncio.to_thread(socket.create_connection, (parts.hostname, parts.port))
    with client:
        await asyncio.to_thread(_ask, client, request)
        whole = await _counted(client, request)
        nothing = await _counted(client, b"")
    return Steps(
        whole["lines"], whole["calls"], *(whole[kind] - nothing[kind] for kind in ("all_lines", "all_calls"))
    )


async def _counted(client: socket.socket, request: bytes) -> Counter[str]:
    counts: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        own = frame.f_code.co_filename.startswith(_PRODUCT)
        kind = {"call": "calls", "line": "lines"}.get(event)
        if kind is not None:
            counts[f"all_{kind}"] += 1
            counts[kind] += own
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await asyncio.to_thread(_ask, client, request)
        await asyncio.sleep(0)  # what the server does behind its last byte
    finally:
        sys.settrace(before)
    return counts


def _ask(client: socket.socket, request: bytes) -> None:
    """Send the request and read the reply, whose length is in its head."""
    if not request:
        return
    client.sendall(request)
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += client.recv(1 << 16)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], head
    (length,) = (
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += client.recv(1 << 16)
