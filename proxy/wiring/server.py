"""`serve` makes every object of a nixfront, once, from the settings, and closes them in the opposite order."""

import asyncio
import errno
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from aiohttp import web
from aiohttp.log import server_logger

from proxy.core import events
from proxy.core.events import Sink
from proxy.registry.endpoint import LONGEST_LINE, MOST_HEADERS
from proxy.settings import Settings
from proxy.telemetry import requests
from proxy.telemetry.log import log_event
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.tracing import tracing
from proxy.web import error_responses, public_key
from proxy.web.client import Networks
from proxy.web.connections import ConnectionLimits, DoorRules, is_ours, most_connections
from proxy.web.connections.certificate import ServerCertificate
from proxy.web.health import Health, Watching, keep_off
from proxy.web.intercept import RequestHandler, recall_first
from proxy.web.waiting import Waiting
from proxy.wiring import front
from proxy.wiring.service import open_service

_log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(settings: Settings, sink: Sink | None = None) -> AsyncIterator[str]:
    """The origin at which nixfront answers as long as the context lasts; events go to `sink`, or to the log.

    Raises a `NixfrontError`, or `OSError` where it cannot listen at an address.
    """
    async with AsyncExitStack() as stack:
        # Telemetry.
        metrics = Metrics()
        metrics.tasks_of(asyncio.get_running_loop())
        sinks = [metrics.see, sink or log_event]
        observer = requests.Observer(metrics, log_requests=settings.log.requests)
        middlewares = [observer.middleware, error_responses.middleware]
        traces = [requests.registry_trace(metrics)]
        tracer = await stack.enter_async_context(tracing(settings.traces.endpoint, settings.traces.sample))
        if tracer:
            sinks.append(tracer.see)
            middlewares.insert(1, tracer.middleware)
            traces.append(tracer.registry_trace())

        # What answers.
        sites = front.sites(settings)
        service = await open_service(settings, stack, metrics, traces, events.fan_out(*sinks))
        waiting = Waiting(
            service.board, front.waiting_rules(settings), front.log_place(settings, service.board)
        )
        health = Health({"registry": service.registry.ping, "nix": service.packages.store.ping})
        stack.push_async_callback(health.close)
        status = Watching(
            metrics if settings.status.metrics else None, health, Networks(settings.status.networks), sites
        )

        # Where it answers: at status.addr, at mirror.addr, at http.addr. Catch-all routes come last.
        limits = ConnectionLimits(_limits(settings))
        certificate = await _certificate(settings, stack)
        main = web.Application(middlewares=[*middlewares, sites.middleware])
        lists = front.set_lists(service, settings, stack)
        page = None
        if settings.page.enabled:
            page = await front.add_page(main, service, settings, sites, lists, stack)
            sites.guard(main)
        if settings.status.addr:
            keep_off(main)
            for_status = web.Application(middlewares=[observer.middleware])
            status.add_to(for_status)
            for_status.on_response_prepare.append(requests.name_request)
            await listen(for_status, settings.status.addr, stack, limits)
        else:
            status.add_to(main)
        if settings.mirror.addr:
            for_mirrors = web.Application(middlewares=middlewares)
            front.add_images(for_mirrors, service, waiting, settings, sites, mirror=True)
            await listen(for_mirrors, settings.mirror.addr, stack, limits, certificate)
        if service.signer is not None:
            public_key.add_to(main, service.signer.public_pem)
        front.add_search(main, service, settings, sites, lists)
        front.add_images(main, service, waiting, settings, sites, mirror=False, page=page)
        # An answer from the cache passes all middlewares by, and a trace needs its own.
        ahead = (
            None
            if tracer
            else partial(recall_first, answers=service.answers, observer=observer, pulls=service.pulls)
        )
        origin = await listen(main, settings.http.addr, stack, limits, certificate, ahead)

        mirror_check = asyncio.create_task(front.check_mirror(settings))
        stack.callback(mirror_check.cancel)
        stack.push_async_callback(service.builds.drain, settings.builds.grace_seconds)
        stack.callback(health.stop)
        yield origin


async def listen(
    application: web.Application,
    address: str,
    stack: AsyncExitStack,
    limits: ConnectionLimits,
    certificate: ssl.SSLContext | None = None,
    ahead: Callable[[RequestHandler], RequestHandler] | None = None,
) -> str:
    """The origin at which the application answers as long as the stack. Raises `OSError`.

    `ahead` wraps the handler of the whole application.
    """
    # Bodies are relayed as they come. A handler ends with its client; a build does not (see `tools.flight`).
    runner = web.AppRunner(
        application,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=5,
        keepalive_timeout=limits.rules.idle_seconds,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
        max_headers=MOST_HEADERS,
    )
    server_logger.addFilter(is_ours)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    assert runner.server is not None  # noqa: S101 - `setup` made it
    if ahead is not None:
        runner.server.request_handler = ahead(runner.server.request_handler)
    host, _, port = address.rpartition(":")
    try:
        server = await asyncio.get_running_loop().create_server(
            limits.before(runner.server), host.strip("[]"), int(port), backlog=1024, ssl=certificate
        )
    except OSError as error:
        raise OSError(_cannot_listen(address, error)) from error
    stack.callback(server.close)
    return f"http{'s' if certificate else ''}://{host}:{server.sockets[0].getsockname()[1]}"


def _cannot_listen(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        why = "another program listens there (`ss -ltnp` shows which)"
    else:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"nixfront cannot listen at {address}: {why}; http.addr, mirror.addr and status.addr set the addresses"


async def _certificate(settings: Settings, stack: AsyncExitStack) -> ssl.SSLContext | None:
    """The TLS context for clients, which follows changes of its files; None for plain HTTP."""
    if not settings.http.certificate:
        return None
    files = Path(settings.http.certificate), Path(settings.http.key)
    certificate = await asyncio.to_thread(ServerCertificate, *files)
    watch = asyncio.create_task(certificate.watch())
    stack.callback(watch.cancel)
    return certificate.context


def _limits(settings: Settings) -> DoorRules:
    """What one connection may use, and how many connections there may be."""
    http = settings.http
    possible = most_connections()
    if http.connections > possible:
        _log.warning("http.connections is more than the open files of this process allow most=%d", possible)
    connections = min(http.connections or possible, possible)
    return DoorRules(
        http.head_bytes,
        http.head_seconds,
        http.body_seconds,
        http.idle_seconds,
        connections,
        http.connections_of_one or max(1, connections // 4),
        Networks(http.trusted_proxies),
    )
