"""The wiring: every object is made here, once, from the settings, and closed in the opposite order."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from time import monotonic

import aiohttp
from aiohttp import web
from yarl import URL

from proxy import (
    configured,
    data_folder,
    forwarding,
    handlers,
    listening,
    local_registry,
    making,
    observe,
    oci_errors,
    passthrough,
    shortcut,
    watching,
)
from proxy.access import Access, AccessRules
from proxy.answers import Answers
from proxy.blobs import Blobs, FromDisk, Redirected, Spliced, Way
from proxy.build_logs import BuildLogs
from proxy.build_watch import BuildWatch
from proxy.builds import Builds
from proxy.client_session import client_session
from proxy.door import Door
from proxy.event_log import log_event
from proxy.events import Sink
from proxy.fair_queue import FairQueue
from proxy.health import Health
from proxy.history import History
from proxy.image_list import ImageList
from proxy.metrics import Metrics
from proxy.mirror import Mirror, MirrorRules
from proxy.model import ImageRequest, without_credentials
from proxy.moving_tags import MovingTags
from proxy.own_tags import OwnTags
from proxy.page import Page
from proxy.plain_http import PlainHttp
from proxy.popularity import Table
from proxy.preview import Previews
from proxy.progress import Progress
from proxy.pulls import Pulls
from proxy.registry import Registry
from proxy.served import Served
from proxy.settings import Settings
from proxy.shared_disk import SharedDisk
from proxy.state import State
from proxy.tracing import tracing
from proxy.visitors import Visitors
from proxy.waiting import LogPlace, Waiting, WaitingRules

_log = logging.getLogger("nixfront")


@asynccontextmanager
async def serve(settings: Settings, sink: Sink | None = None) -> AsyncIterator[str]:
    """The origin at which nixfront answers, for as long as the context lasts; events go to `sink`, or to the log.

    Raises a `NixfrontError`, or `OSError` where the address cannot be had.
    """
    async with AsyncExitStack() as stack:
        metrics, progress = Metrics(), Progress(monotonic)
        metrics.tasks_of(asyncio.get_running_loop())
        logs = BuildLogs(settings.data_dir / "logs")
        watch = BuildWatch(logs, time.time)
        sinks = [metrics.see, progress.see, watch.see, sink or log_event]
        middlewares = [oci_errors.middleware]
        client_traces = [observe.registry_trace(metrics)]
        if traced := await stack.enter_async_context(
            tracing(settings.traces.endpoint, settings.traces.sample)
        ):
            sinks.append(traced.see)
            middlewares.insert(0, traced.middleware)
            client_traces.append(traced.registry_trace())
        made = await _assemble(settings, stack, metrics, client_traces, making.each(*sinks))
        waiting = Waiting(made.builds, progress, _waiting_rules(settings), _log_place(settings, watch))
        observer = observe.Observer(metrics, log_requests=settings.log.requests)
        application = web.Application(middlewares=[observer.middleware, *middlewares])
        health = Health({"registry": made.registry.ping, "nix": made.packages.nix.ping})
        stack.push_async_callback(health.close)
        watched = watching.Watching(
            metrics if settings.status.metrics else None, health, Visitors(settings.status.networks)
        )
        door = Door(listening.door_rules(settings))
        if settings.page.enabled:
            await watch.remember()
            stack.push_async_callback(logs.close)
            await _page(settings, made, watch, stack).add_to(application)
        if settings.status.addr:
            watching.keep_off(application)
            own = web.Application(middlewares=[observer.middleware])
            watched.add_to(own)
            own.on_response_prepare.append(observe.name_request)
            await listening.listen(own, settings.status.addr, stack, door)
        else:
            watched.add_to(application)
        certificates = await listening.certificates(settings, stack)
        if settings.mirror.addr:
            for_mirrors = web.Application(middlewares=[observer.middleware, *middlewares])
            _serve_images(for_mirrors, made, waiting, settings, mirror=True)
            await listening.listen(for_mirrors, settings.mirror.addr, stack, door, certificates)
        _serve_images(application, made, waiting, settings, mirror=False)
        # A trace has its own middleware, and is to see everything.
        ahead = partial(shortcut.before, answers=made.answers, observer=observer) if traced is None else None
        origin = await listening.listen(application, settings.http.addr, stack, door, certificates, ahead)
        stack.push_async_callback(made.builds.drain, settings.builds.grace_seconds)
        stack.callback(health.stop)
        yield origin


def _page(settings: Settings, made: "_Made", watch: BuildWatch, stack: AsyncExitStack) -> Page:
    """The page for people."""
    previews = Previews(
        made.packages.sets,
        made.packages.names,
        made.packages.nix,
        made.state,
        system=settings.system,
        policy=configured.policy(settings),
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
        configured.vocabulary(settings),
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
    application: web.Application, made: "_Made", waiting: Waiting, settings: Settings, *, mirror: bool
) -> None:
    """Let the application answer the registry's whole interface; with `mirror` all its clients take it for one."""
    chosen = settings.mirror
    if mirror and not (chosen.allow or chosen.prefix):
        _log.warning("mirror.addr serves nothing without mirror.allow or mirror.prefix")
    rules = MirrorRules(frozenset(chosen.namespaces), chosen.allow, chosen.prefix)
    whole = handlers.Handlers(
        Mirror(rules, always=mirror),
        made.answers,
        made.blobs,
        made.access,
        waiting,
        made.served,
        configured.vocabulary(settings),
    )
    application.router.add_route("*", r"/{path:[\s\S]*}", whole.everything, expect_handler=passthrough.expect)
    application.on_response_prepare.append(passthrough.drop_added_headers)
    application.on_response_prepare.append(observe.name_request)


@dataclass(frozen=True, slots=True)
class _Made:
    """What one application consists of."""

    builds: Builds
    served: Served
    answers: Answers
    blobs: Blobs
    access: Access
    registry: Registry
    packages: making.NixSide
    state: State
    tables: Mapping[str, Table]


async def _assemble(
    settings: Settings,
    stack: AsyncExitStack,
    metrics: Metrics,
    traces: Sequence[aiohttp.TraceConfig],
    sink: Sink,
) -> _Made:
    """The objects of one application, from the registry up to the pipeline."""
    data = settings.data_dir
    for folder in (data, data / "sets"):
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    stack.callback((await asyncio.to_thread(data_folder.lock, data)).close)
    url = settings.registry.url or await stack.enter_async_context(local_registry.run(data / "registry"))
    session = await stack.enter_async_context(client_session(*traces))
    reach = await asyncio.to_thread(configured.registry, settings, url)
    reached = await stack.enter_async_context(reach.opened(*traces))
    registry = Registry(reached.session, url, reached.login)
    state = await stack.enter_async_context(configured.open_state(settings))
    packages = making.nix_side(settings, stack, session, metrics.ran_nix, state)
    relay = passthrough.Passthrough(reached.session, url, _networks(settings.http.trusted_proxies))
    chosen_tables = await asyncio.to_thread(making.read_tables, settings)
    answers = Answers(
        relay,
        seconds=settings.answers.seconds,
        most_bytes=settings.answers.most_bytes,
    )
    tags = OwnTags(registry, state)
    machine = await asyncio.to_thread(data_folder.machine, data)
    await state.end_builds(machine, time.time())
    history = History(state, machine)
    stack.push_async_callback(history.close)
    sink = history.hearing(sink)
    roots = await asyncio.to_thread(data_folder.empty, data / "gcroots")
    sinks = making.each(answers.told, sink)
    pipeline = await making.pipeline(
        settings, stack, packages, registry, tags, state, roots, chosen_tables, sinks
    )
    queue = FairQueue(
        settings.builds.at_once, share=settings.builds.share, most_waiting=settings.builds.queue
    )
    metrics.queue(lambda: queue.waiting)
    builds = Builds(
        pipeline,
        registry,
        state,
        queue,
        machine=machine,
        lease_seconds=settings.state.lease_seconds,
        failure_seconds=settings.builds.failure_seconds,
    )
    stack.push_async_callback(builds.close)
    moving = MovingTags(
        state,
        tags,
        pipeline,
        builds,
        configured.vocabulary(settings),
        sink,
        time_to_live=settings.packages.time_to_live,
        when=settings.packages.refresh,
    )
    stack.push_async_callback(moving.close)
    pulls = Pulls(state)
    stack.push_async_callback(pulls.close)
    _log.info("registry url=%s", url)
    access = Access(
        AccessRules(
            repositories=settings.access.repositories,
            users=settings.access.users,
            networks=_networks(settings.access.networks),
            builds_per_minute=settings.access.builds_per_minute,
        ),
        relay,
    )
    return _Made(
        builds,
        Served(pulls, moving),
        answers,
        _blobs(settings, stack, relay, url, metrics),
        access,
        registry,
        packages,
        state,
        chosen_tables,
    )


def _blobs(
    settings: Settings, stack: AsyncExitStack, relay: passthrough.Passthrough, url: str, metrics: Metrics
) -> Blobs:
    """The ways of blobs that these settings allow."""
    ways: list[Way] = []
    if settings.registry.public_url:
        ways.append(Redirected(relay, settings.registry.public_url))
    storage = settings.registry.storage
    if storage or not settings.registry.url:
        disk = SharedDisk(
            Path(storage) if storage else local_registry.storage(settings.data_dir / "registry")
        )
        stack.push_async_callback(disk.close)
        ways.append(FromDisk(relay, disk))
    origin = URL(url)
    # A trace sees what our client session asks, and nothing else.
    if origin.scheme == "http" and origin.host and origin.port and not settings.traces.endpoint:
        registry = PlainHttp(origin.host, origin.port)
        stack.callback(registry.close)
        ways.append(Spliced(relay, registry, metrics.asked_registry))
    return Blobs(ways)


def _networks(written: Sequence[str]) -> tuple[forwarding.Network, ...]:
    return tuple(ip_network(network, strict=False) for network in written)


def _waiting_rules(settings: Settings) -> WaitingRules:
    return WaitingRules(**settings.builds.model_dump(include={field.name for field in fields(WaitingRules)}))


def _log_place(settings: Settings, watch: BuildWatch) -> LogPlace:
    """Where a person finds what a build says."""
    level = "" if settings.log.level == "debug" else ", at log.level debug"
    in_our_log = f"its log: nixfront's on {socket.gethostname()}{level}"

    def told(request: web.Request, wanted: ImageRequest) -> str:
        build = watch.latest(wanted.repository, wanted.tag)
        if not settings.page.enabled:
            return in_our_log
        return f"its log: {request.host}/builds/{build.id}" if build else f"its log: {request.host}"

    return told
