"""Where clients connect: addresses, certificates, and the door before the application.

The wiring: every object is made here, once, from the settings, and closed in the opposite order.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from time import monotonic

from aiohttp import web

from proxy.builds.board import BuildBoard
from proxy.builds.logs import BuildLogs
from proxy.builds.progress import Progress
from proxy.core import events
from proxy.core.events import Sink
from proxy.core.model import ImageRequest, without_credentials
from proxy.registry.endpoint import LONGEST_LINE, MOST_HEADERS
from proxy.settings import Settings, policy, vocabulary
from proxy.telemetry import requests
from proxy.telemetry.log import log_event
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.tracing import tracing
from proxy.web import connections, error_responses, intercept, passthrough, shortcut
from proxy.web.client import Visitors
from proxy.web.connections import ConnectionLimits, DoorRules, most_connections
from proxy.web.health import Health, Watching, keep_off
from proxy.web.mirror import Mirror, MirrorRules
from proxy.web.page import Page
from proxy.web.page.composer import Previews
from proxy.web.page.image_list import ImageList
from proxy.web.waiting import LogPlace, Waiting, WaitingRules
from proxy.wiring.builder import Parts, assemble

_log = logging.getLogger("nixfront")


async def listen(
    application: web.Application,
    address: str,
    stack: AsyncExitStack,
    door: ConnectionLimits,
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
    certificate = await asyncio.to_thread(connections.ServerCertificate, *files)
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


@asynccontextmanager
async def serve(settings: Settings, sink: Sink | None = None) -> AsyncIterator[str]:
    """The origin at which nixfront answers, for as long as the context lasts; events go to `sink`, or to the log.

    Raises a `NixfrontError`, or `OSError` where the address cannot be had.
    """
    async with AsyncExitStack() as stack:
        metrics, progress = Metrics(), Progress(monotonic)
        metrics.tasks_of(asyncio.get_running_loop())
        logs = BuildLogs(settings.data_dir / "logs")
        watch = BuildBoard(logs, time.time)
        sinks = [metrics.see, progress.see, watch.see, sink or log_event]
        middlewares = [error_responses.middleware]
        client_traces = [requests.registry_trace(metrics)]
        if traced := await stack.enter_async_context(
            tracing(settings.traces.endpoint, settings.traces.sample)
        ):
            sinks.append(traced.see)
            middlewares.insert(0, traced.middleware)
            client_traces.append(traced.registry_trace())
        made = await assemble(settings, stack, metrics, client_traces, events.fan_out(*sinks))
        waiting = Waiting(made.builds, progress, _waiting_rules(settings), _log_place(settings, watch))
        observer = requests.Observer(metrics, log_requests=settings.log.requests)
        application = web.Application(middlewares=[observer.middleware, *middlewares])
        health = Health({"registry": made.registry.ping, "nix": made.packages.nix.ping})
        stack.push_async_callback(health.close)
        watched = Watching(
            metrics if settings.status.metrics else None, health, Visitors(settings.status.networks)
        )
        door = ConnectionLimits(door_rules(settings))
        if settings.page.enabled:
            await watch.remember()
            stack.push_async_callback(logs.close)
            await _page(settings, made, watch, stack).add_to(application)
        if settings.status.addr:
            keep_off(application)
            own = web.Application(middlewares=[observer.middleware])
            watched.add_to(own)
            own.on_response_prepare.append(requests.name_request)
            await listen(own, settings.status.addr, stack, door)
        else:
            watched.add_to(application)
        certificate = await certificates(settings, stack)
        if settings.mirror.addr:
            for_mirrors = web.Application(middlewares=[observer.middleware, *middlewares])
            _serve_images(for_mirrors, made, waiting, settings, mirror=True)
            await listen(for_mirrors, settings.mirror.addr, stack, door, certificate)
        _serve_images(application, made, waiting, settings, mirror=False)
        # A trace has its own middleware, and is to see everything.
        ahead = partial(shortcut.before, answers=made.answers, observer=observer) if traced is None else None
        origin = await listen(application, settings.http.addr, stack, door, certificate, ahead)
        stack.push_async_callback(made.builds.drain, settings.builds.grace_seconds)
        stack.callback(health.stop)
        yield origin


def _page(settings: Settings, made: Parts, watch: BuildBoard, stack: AsyncExitStack) -> Page:
    """The page for people."""
    previews = Previews(
        made.packages.sets,
        made.packages.names,
        made.packages.nix,
        made.state,
        system=settings.system,
        policy=policy(settings),
        always=settings.packages.always,
        most_layers=settings.layers.most,
        compression=settings.layers.compression,
        tables=made.tables,
    )
    images = ImageList(made.registry)
    stack.push_async_callback(previews.close)
    stack.push_async_callback(images.close)
    watch.on_end(images.forget)
    return Page(
        watch,
        images,
        previews,
        vocabulary(settings),
        packages=_told_of(settings),
        visitors=Visitors(settings.page.networks),
        log_visitors=Visitors(settings.page.log_networks),
    )


def _told_of(settings: Settings) -> str:
    """What the default package set is, for people."""
    chosen = settings.package_sources[""]
    match chosen.kind:
        case "nixpkgs":
            return f"nixpkgs ({chosen.revision[:12] or chosen.ref})"
        case "demo":
            return "the demo set, made of Debian's"
        case "path":
            return "the set of this host"
        case _:
            return without_credentials(chosen.url)


def _serve_images(
    application: web.Application, made: Parts, waiting: Waiting, settings: Settings, *, mirror: bool
) -> None:
    """Let the application answer the registry's whole interface; with `mirror` all its clients take it for one."""
    chosen = settings.mirror
    if mirror and not (chosen.allow or chosen.prefix):
        _log.warning("mirror.addr serves nothing without mirror.allow or mirror.prefix")
    rules = MirrorRules(frozenset(chosen.namespaces), chosen.allow, chosen.prefix)
    whole = intercept.Front(
        Mirror(rules, always=mirror),
        made.answers,
        made.blobs,
        made.access,
        waiting,
        made.served,
        vocabulary(settings),
    )
    application.router.add_route("*", r"/{path:[\s\S]*}", whole.everything, expect_handler=passthrough.expect)
    application.on_response_prepare.append(passthrough.drop_added_headers)
    application.on_response_prepare.append(requests.name_request)


def _waiting_rules(settings: Settings) -> WaitingRules:
    return WaitingRules(**settings.builds.model_dump(include={field.name for field in fields(WaitingRules)}))


def _log_place(settings: Settings, watch: BuildBoard) -> LogPlace:
    """Where a person finds what a build says."""
    level = "" if settings.log.level == "debug" else ", at log.level debug"
    in_our_log = f"its log: nixfront's on {socket.gethostname()}{level}"

    def told(request: web.Request, wanted: ImageRequest) -> str:
        build = watch.latest(wanted.repository, wanted.tag)
        if not settings.page.enabled:
            return in_our_log
        return f"its log: {request.host}/builds/{build.id}" if build else f"its log: {request.host}"

    return told
