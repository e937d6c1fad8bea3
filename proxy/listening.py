"""Where clients connect: addresses, certificates, and the door before the application."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from proxy import (
    shortcut,
    tls,
)
from proxy.client_session import LONGEST_LINE, MOST_HEADERS
from proxy.door import Door, DoorRules, most_connections
from proxy.settings import Settings

_log = logging.getLogger("nixfront")


async def listen(
    application: web.Application,
    address: str,
    stack: AsyncExitStack,
    door: Door,
    certificates: ssl.SSLContext | None = None,
    ahead: Callable[[shortcut.RequestHandler], shortcut.RequestHandler] | None = None,
) -> str:
    """The origin at which the application answers for as long as the stack. Raises `OSError`.

    `ahead` puts something in front of the whole application.
    """
    # Bodies are relayed as they come; a handler ends with its client, a build does not (see `flight`).
    runner = web.AppRunner(
        application,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=5,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
        max_headers=MOST_HEADERS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if ahead is not None and runner.server is not None:
        runner.server.request_handler = ahead(runner.server.request_handler)
    host, _, port = address.rpartition(":")
    assert runner.server is not None  # noqa: S101 - it was set up above
    listening = await asyncio.get_running_loop().create_server(
        door.before(runner.server), host.strip("[]"), int(port), backlog=1024, ssl=certificates
    )
    stack.callback(listening.close)
    return f"http{'s' if certificates else ''}://{host}:{listening.sockets[0].getsockname()[1]}"


async def certificates(settings: Settings, stack: AsyncExitStack) -> ssl.SSLContext | None:
    """What clients are answered with by TLS, kept up with its files; None for plain HTTP."""
    if not settings.http.certificate:
        return None
    files = Path(settings.http.certificate), Path(settings.http.key)
    certificate = await asyncio.to_thread(tls.ServerCertificate, *files)
    watch = asyncio.create_task(certificate.watch())
    stack.callback(watch.cancel)
    return certificate.context


def door_rules(settings: Settings) -> DoorRules:
    """What one connection may take, and how many there may be."""
    http = settings.http
    possible = most_connections()
    if http.connections > possible:
        _log.warning("http.connections is more than the files that may be open let in=%d", possible)
    return DoorRules(http.head_bytes, http.head_seconds, min(http.connections or possible, possible))
