"""The wiring: every object is made here, once, from the settings, and closed in the opposite order."""

import asyncio
import logging
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    census,
    configured,
    data_folder,
    forwarding,
    handlers,
    local_registry,
    named_images,
    observe,
    oci_errors,
    passthrough,
    resources,
    shortcut,
    state_sqlite,
    store,
    tables,
    tls,
    watching,
)
from proxy.access import Access, AccessRules
from proxy.answers import Answers
from proxy.attribute_names import AttributeNames
from proxy.blobs import Blobs, FromDisk, Redirected, Spliced, Way
from proxy.build_logs import BuildLogs
from proxy.build_watch import BuildWatch
from proxy.builds import Builds
from proxy.cache_copies import CacheCopies
from proxy.client_session import LONGEST_LINE, MOST_HEADERS, client_session
from proxy.destination import Destination
from proxy.door import Door, DoorRules, most_connections
from proxy.errors import NameInvalid, SettingsInvalid
from proxy.event_log import log_event
from proxy.events import BuildEnded, Event, Sink
from proxy.fair_queue import FairQueue
from proxy.health import Health
from proxy.history import History
from proxy.image_list import ImageList
from proxy.metrics import Metrics
from proxy.mirror import Mirror, MirrorRules
from proxy.model import without_credentials
from proxy.moving_tags import MovingTags
from proxy.names import parse
from proxy.nix import ImagesFile, Nix
from proxy.nix_commands import Caches
from proxy.oci_layout import OciLayout
from proxy.own_tags import OwnTags
from proxy.package_sets import Choice, PackageSets
from proxy.page import Page
from proxy.pipeline import Options, Pipeline
from proxy.plain_http import PlainHttp
from proxy.popularity import Table
from proxy.preview import Previews
from proxy.progress import Progress
from proxy.publish import Publisher
from proxy.pulls import Pulls
from proxy.registry import Registry
from proxy.served import Served
from proxy.settings import ImageSection, Settings
from proxy.shared_disk import SharedDisk
from proxy.state import State
from proxy.tracing import tracing
from proxy.visitors import Visitors
from proxy.waiting import Waiting, WaitingRules

_log = logging.getLogger("nixfront")


@asynccontextmanager
async def serve(settings: Settings, sink: Sink | None = None) -> AsyncIterator[str]:
    """The origin at which nixfront answers, for as long as the context lasts; events go to `sink`, or to the log.

    Raises a `NixfrontError`, or `OSError` where the address cannot be had.
    """
    async with AsyncExitStack() as stack:
        metrics, progress = Metrics(), Progress(monotonic)
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
        made = await _assemble(settings, stack, metrics, client_traces, _each(*sinks))
        waiting = Waiting(made.builds, progress, _waiting_rules(settings), _log_place(settings))
        observer = observe.Observer(metrics, log_requests=settings.log.requests)
        application = web.Application(middlewares=[observer.middleware, *middlewares])
        health = Health({"registry": made.registry.ping, "nix": made.packages.nix.ping})
        stack.push_async_callback(health.close)
        watched = watching.Watching(
            metrics if settings.status.metrics else None, health, Visitors(settings.status.networks)
        )
        door = Door(_door_rules(settings))
        if settings.page.enabled:
            await watch.remember()
            stack.push_async_callback(logs.close)
            await _page(settings, made, watch, stack).add_to(application)
        if settings.status.addr:
            watching.keep_off(application)
            own = web.Application(middlewares=[observer.middleware])
            watched.add_to(own)
            own.on_response_prepare.append(observe.name_request)
            await _listen(own, settings.status.addr, stack, door)
        else:
            watched.add_to(application)
        certificates = await _certificates(settings, stack)
        if settings.mirror.addr:
            for_mirrors = web.Application(middlewares=[observer.middleware, *middlewares])
            _serve_images(for_mirrors, made, waiting, settings, mirror=True)
            await _listen(for_mirrors, settings.mirror.addr, stack, door, certificates)
        _serve_images(application, made, waiting, settings, mirror=False)
        # A trace has its own middleware, and is to see everything.
        ahead = partial(shortcut.before, answers=made.answers, observer=observer) if traced is None else None
        origin = await _listen(application, settings.http.addr, stack, door, certificates, ahead)
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


async def _certificates(settings: Settings, stack: AsyncExitStack) -> ssl.SSLContext | None:
    """What clients are answered with by TLS, kept up with its files; None for plain HTTP."""
    if not settings.http.certificate:
        return None
    files = Path(settings.http.certificate), Path(settings.http.key)
    certificate = await asyncio.to_thread(tls.ServerCertificate, *files)
    watch = asyncio.create_task(certificate.watch())
    stack.callback(watch.cancel)
    return certificate.context


def _door_rules(settings: Settings) -> DoorRules:
    http = settings.http
    possible = most_connections()
    if http.connections > possible:
        _log.warning("http.connections is more than the files that may be open let in=%d", possible)
    return DoorRules(http.head_bytes, http.head_seconds, min(http.connections or possible, possible))


async def _listen(
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


@dataclass(frozen=True, slots=True)
class _Made:
    """What one application consists of."""

    builds: Builds
    served: Served
    answers: Answers
    blobs: Blobs
    access: Access
    registry: Registry
    packages: "_Packages"
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
    packages = _packages(settings, stack, session, metrics.ran_nix, state)
    relay = passthrough.Passthrough(reached.session, url, _networks(settings.http.trusted_proxies))
    chosen_tables = await asyncio.to_thread(_tables, settings)
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
    sinks = _each(answers.told, sink)
    pipeline = await _pipeline(settings, stack, packages, registry, tags, state, roots, sinks)
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


async def _pipeline(
    settings: Settings,
    stack: AsyncExitStack,
    packages: "_Packages",
    destination: Destination,
    tags: OwnTags,
    state: State,
    roots: Path,
    sink: Sink,
) -> Pipeline:
    """What makes images and puts them into `destination`."""
    if settings.images.file and not await asyncio.to_thread(Path(settings.images.file).is_file):
        raise SettingsInvalid(f"images.file: {settings.images.file} is no file")
    executor = ThreadPoolExecutor(settings.packers, thread_name_prefix="packing")
    stack.push_async_callback(asyncio.to_thread, executor.shutdown)
    prefix = packages.nix.prefix
    listing = store.StoreListing(prefix)
    if settings.nix.copy_to:
        copies = CacheCopies(packages.nix, settings.nix.copy_to, roots)
        stack.push_async_callback(copies.close)
        packages.nix.on_realised = copies.add
    publisher = Publisher(
        destination,
        state,
        executor,
        partial(store.store_entries, prefix=prefix),
        compression=settings.layers.compression,
        uploads=settings.uploads,
        sink=sink,
    )
    pipeline = Pipeline(
        sets=packages.sets,
        names=packages.names,
        nix=packages.nix,
        images=_named_images(settings, packages, listing),
        registry=destination,
        tags=tags,
        publisher=publisher,
        listing=listing,
        options=Options(
            system=settings.system,
            policy=configured.policy(settings),
            always=settings.packages.always,
            most_layers=settings.layers.most,
            form=settings.image.format,
            compression=settings.layers.compression,
            tables=await asyncio.to_thread(_tables, settings),
        ),
        roots=roots,
        failure_seconds=settings.builds.failure_seconds,
        sink=sink,
    )
    return pipeline


async def build(settings: Settings, repository: str, tag: str, folder: Path) -> str:
    """The digest of the manifest of this image, written into `folder` as an OCI image layout, whatever `image.format` is.

    No registry is needed, and a nixfront that serves from the same data folder is not disturbed. Raises a `NixfrontError`.
    """
    settings = settings.model_copy(update={"image": ImageSection(format="oci")})
    request = parse(repository, tag, configured.vocabulary(settings))
    if request is None:
        raise NameInvalid(f"{repository}:{tag} can be no image of ours")
    digests: list[str] = []

    def keep_digest(event: Event) -> None:
        if isinstance(event, BuildEnded) and event.digest:
            digests.append(event.digest)

    async with AsyncExitStack() as stack:
        data = settings.data_dir
        await asyncio.to_thread((data / "sets").mkdir, parents=True, exist_ok=True)
        own = await asyncio.to_thread(data_folder.build_folder, data)
        stack.push_async_callback(asyncio.to_thread, own.cleanup)
        session = await stack.enter_async_context(client_session())
        packages = _packages(settings, stack, session)
        layout = OciLayout(folder, tag)
        # What the data folder remembers is about a registry.
        state = await stack.enter_async_context(state_sqlite.open_state(Path(own.name, "state.sqlite")))
        tags, sink = OwnTags(layout, state), _each(log_event, keep_digest)
        pipeline = await _pipeline(settings, stack, packages, layout, tags, state, Path(own.name), sink)
        stack.push_async_callback(pipeline.close)
        await pipeline.ensure(request)
    return digests[0]


@dataclass(frozen=True, slots=True)
class _Packages:
    """The Nix half: what needs no registry."""

    nix: Nix
    sets: PackageSets
    names: AttributeNames


def _packages(
    settings: Settings,
    stack: AsyncExitStack,
    session: aiohttp.ClientSession,
    timed: Callable[[str, float], None] = lambda _, __: None,
    state: State | None = None,
) -> _Packages:
    folder = settings.data_dir / "sets"
    nix = Nix(
        resources.EXPRESSIONS,
        store=settings.nix_store,
        evaluation_deadline=settings.nix.evaluation_deadline,
        evaluation_memory=settings.nix.evaluation_memory,
        evaluations=settings.nix.evaluations,
        log_bytes=settings.nix.log_bytes,
        caches=Caches(settings.nix.substituters, settings.nix.public_keys, settings.nix.builders),
        build_deadline=settings.nix.build_deadline,
        timed=timed,
    )
    sets = PackageSets(
        {
            name: Choice(**chosen.model_dump(include={field.name for field in fields(Choice)}))
            for name, chosen in settings.package_sources.items()
        },
        nix,
        session,
        resources.EXPRESSIONS,
        folder,
        time_to_live=settings.packages.time_to_live,
        deadline=settings.nix.build_deadline,
        state=state,
    )
    names = AttributeNames(nix, settings.system, configured.policy(settings), folder)
    stack.push_async_callback(sets.close)
    stack.push_async_callback(names.close)
    return _Packages(nix, sets, names)


def _named_images(
    settings: Settings, packages: _Packages, listing: store.StoreListing
) -> named_images.NamedImages:
    written = ImagesFile(
        Path(settings.images.file),
        package_sets=tuple(settings.sets),
        aliases=settings.names.aliases,
        always=settings.packages.always,
    )
    return named_images.NamedImages(
        written,
        packages.sets,
        packages.names,
        packages.nix,
        listing,
        system=settings.system,
        policy=configured.policy(settings),
    )


async def attribute_names(settings: Settings, package_set: str, tag: str) -> tuple[str, ...]:
    """The names of a package set's attributes at this tag. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread((settings.data_dir / "sets").mkdir, parents=True, exist_ok=True)
        packages = _packages(settings, stack, await stack.enter_async_context(client_session()))
        return await packages.names.of(await packages.sets.resolve(package_set, tag))


async def census_of_set(
    settings: Settings,
    package_set: str,
    tag: str,
    attributes: Sequence[str],
    say: census.Say,
    on_line: census.Say,
) -> census.Census:
    """What the packages of a set need: those named, or else all that can be had. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread((settings.data_dir / "sets").mkdir, parents=True, exist_ok=True)
        packages = _packages(settings, stack, await stack.enter_async_context(client_session()))
        chosen = await packages.sets.resolve(package_set, tag)
        roots = await asyncio.to_thread(tempfile.TemporaryDirectory, dir=settings.data_dir)
        stack.push_async_callback(asyncio.to_thread, roots.cleanup)
        return await census.of_set(
            packages.nix,
            chosen,
            settings.system,
            configured.policy(settings),
            attributes or await packages.names.of(chosen),
            settings.packages.always,
            Path(roots.name),
            strict=bool(attributes),
            say=say,
            on_line=on_line,
        )


def _tables(settings: Settings) -> dict[str, Table]:
    """What the layers of each package set follow. Raises `SettingsInvalid`."""
    chosen = {}
    for name, source in settings.package_sources.items():
        chosen[name] = tables.choose(settings.layers.table, source.kind, source.recipe, resources.EXPRESSIONS)
        if not chosen[name].groups:
            _log.warning(
                "no table for the layers of package set %s: they are shared less (see layers.table)",
                name or "(default)",
            )
    return chosen


def _networks(written: Sequence[str]) -> tuple[forwarding.Network, ...]:
    return tuple(ip_network(network, strict=False) for network in written)


def _waiting_rules(settings: Settings) -> WaitingRules:
    return WaitingRules(**settings.builds.model_dump(include={field.name for field in fields(WaitingRules)}))


def _log_place(settings: Settings) -> str:
    """Where a person finds what a build says."""
    if settings.page.enabled:
        return "its log: on the page of this host"
    level = "" if settings.log.level == "debug" else ", at log.level debug"
    return f"its log: nixfront's on {socket.gethostname()}{level}"


def _each(*sinks: Sink) -> Sink:
    """All of them, one after the other."""

    def tell(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return tell
