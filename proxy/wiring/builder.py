"""Which table a package set's layers follow: the operator's, else the one that is shipped for the set, else none.

What makes images, put together from the settings: the Nix side, and the pipeline from there to a destination.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import aiohttp

from proxy.builds.coordinator import Coordinator
from proxy.builds.history import History
from proxy.builds.moving_tags import MovingTags
from proxy.core import events
from proxy.core.errors import SettingsInvalid
from proxy.core.events import Sink
from proxy.image import store_tree
from proxy.image.layer_table import NO_TABLE, LayerTable, read
from proxy.nix.attribute_names import AttributeNames
from proxy.nix.binary_cache import CacheCopies
from proxy.nix.commands import Caches
from proxy.nix.sets import Choice, PackageSets
from proxy.nix.store import ImagesFile, Nix
from proxy.pipeline import named
from proxy.pipeline.build import Pipeline
from proxy.pipeline.destination import Destination
from proxy.pipeline.keys import ImageOptions
from proxy.pipeline.own_tags import OwnTags
from proxy.pipeline.publish import Publisher
from proxy.registry import embedded
from proxy.registry.client import Registry
from proxy.registry.endpoint import client_session
from proxy.settings import Settings, policy, vocabulary
from proxy.state import State, open
from proxy.state.pulls import Pulls
from proxy.telemetry.metrics import Metrics
from proxy.tools.fair_queue import FairQueue
from proxy.web import client, passthrough
from proxy.web.access import Access, AccessRules
from proxy.web.answer_cache import AnswerCache
from proxy.web.blobs import Blobs
from proxy.web.intercept import Served
from proxy.wiring import files
from proxy.wiring import registry as wiring_registry
from proxy.wiring.registry import blob_ways

# By the recipe of the demo set. Other sets have none: they are not ours, and change without us.
_SHIPPED = {"": "packages.table.json", "big": "packages-big.table.json"}


def choose(file: str, kind: str, recipe: str, expressions: Path) -> LayerTable:
    """The table in the operator's file, where there is one; else that of a set of this kind and recipe, or `NO_TABLE`.

    `expressions` is the folder of ours. Raises `SettingsInvalid`.
    """
    if not file and not (kind == "demo" and recipe in _SHIPPED):
        return NO_TABLE
    chosen = Path(file) if file else expressions / "debian" / _SHIPPED[recipe]
    try:
        return read(chosen.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"layers.table: {chosen} cannot be used: {error}") from error


_log = logging.getLogger("nixfront")


@dataclass(frozen=True, slots=True)
class NixSide:
    """What needs Nix, and no registry."""

    nix: Nix
    sets: PackageSets
    names: AttributeNames


def nix_side(
    settings: Settings,
    stack: AsyncExitStack,
    session: aiohttp.ClientSession,
    timed: Callable[[str, float], None] = lambda _, __: None,
    state: State | None = None,
) -> NixSide:
    """Open for as long as the stack; `timed` hears of each run of Nix, `state` remembers references for several machines."""
    folder = settings.data_dir / "sets"
    nix = Nix(
        files.EXPRESSIONS,
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
        files.EXPRESSIONS,
        folder,
        time_to_live=settings.packages.time_to_live,
        deadline=settings.nix.build_deadline,
        state=state,
    )
    names = AttributeNames(nix, settings.system, policy(settings), folder)
    stack.push_async_callback(sets.close)
    stack.push_async_callback(names.close)
    return NixSide(nix, sets, names)


async def pipeline(
    settings: Settings,
    stack: AsyncExitStack,
    packages: NixSide,
    destination: Destination,
    tags: OwnTags,
    state: State,
    roots: Path,
    layer_tables: Mapping[str, LayerTable],
    sink: Sink,
) -> Pipeline:
    """What makes images and puts them into `destination`."""
    if settings.images.file and not await asyncio.to_thread(Path(settings.images.file).is_file):
        raise SettingsInvalid(f"images.file: {settings.images.file} is no file")
    executor = ThreadPoolExecutor(settings.packers, thread_name_prefix="packing")
    stack.push_async_callback(asyncio.to_thread, executor.shutdown)
    prefix = packages.nix.prefix
    listing = store_tree.StoreListing(prefix)
    if settings.nix.copy_to:
        copies = CacheCopies(packages.nix, settings.nix.copy_to, roots)
        stack.push_async_callback(copies.close)
        packages.nix.on_realised = copies.add
    publisher = Publisher(
        destination,
        state,
        executor,
        partial(store_tree.store_entries, prefix=prefix),
        compression=settings.layers.compression,
        uploads=settings.uploads,
        sink=sink,
    )
    return Pipeline(
        sets=packages.sets,
        names=packages.names,
        nix=packages.nix,
        images=_named_images(settings, packages, listing),
        registry=destination,
        tags=tags,
        publisher=publisher,
        listing=listing,
        options=ImageOptions(
            system=settings.system,
            policy=policy(settings),
            always=settings.packages.always,
            most_layers=settings.layers.most,
            form=settings.image.format,
            compression=settings.layers.compression,
            tables=layer_tables,
        ),
        roots=roots,
        failure_seconds=settings.builds.failure_seconds,
        sink=sink,
    )


def _named_images(
    settings: Settings, packages: NixSide, listing: store_tree.StoreListing
) -> named.NamedImages:
    written = ImagesFile(
        Path(settings.images.file),
        package_sets=tuple(settings.sets),
        aliases=settings.names.aliases,
        always=settings.packages.always,
    )
    return named.NamedImages(
        written,
        packages.sets,
        packages.names,
        packages.nix,
        listing,
        system=settings.system,
        policy=policy(settings),
    )


def read_tables(settings: Settings) -> dict[str, LayerTable]:
    """What the layers of each package set follow. Raises `SettingsInvalid`."""
    chosen = {}
    for name, source in settings.package_sources.items():
        chosen[name] = choose(settings.layers.table, source.kind, source.recipe, files.EXPRESSIONS)
        if not chosen[name].groups:
            _log.warning(
                "no table for the layers of package set %s: they are shared less (see layers.table)",
                name or "(default)",
            )
    return chosen


@dataclass(frozen=True, slots=True)
class Parts:
    """What one application consists of."""

    builds: Coordinator
    served: Served
    answers: AnswerCache
    blobs: Blobs
    access: Access
    registry: Registry
    packages: NixSide
    state: State
    tables: Mapping[str, LayerTable]


async def assemble(
    settings: Settings,
    stack: AsyncExitStack,
    metrics: Metrics,
    traces: Sequence[aiohttp.TraceConfig],
    sink: Sink,
) -> Parts:
    """The objects of one application, from the registry up to the pipeline."""
    data = settings.data_dir
    for folder in (data, data / "sets"):
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    stack.callback((await asyncio.to_thread(files.lock, data)).close)
    url = settings.registry.url or await stack.enter_async_context(embedded.run(data / "registry"))
    session = await stack.enter_async_context(client_session(*traces))
    reach = await asyncio.to_thread(wiring_registry.registry, settings, url)
    reached = await stack.enter_async_context(reach.opened(*traces))
    registry = Registry(reached.session, url, reached.login)
    state = await stack.enter_async_context(open.open_state(settings.state.url, settings.state_file))
    packages = nix_side(settings, stack, session, metrics.ran_nix, state)
    relay = passthrough.Passthrough(reached.session, url, networks_of(settings.http.trusted_proxies))
    chosen_tables = await asyncio.to_thread(read_tables, settings)
    answers = AnswerCache(
        relay,
        seconds=settings.answers.seconds,
        most_bytes=settings.answers.most_bytes,
    )
    tags = OwnTags(registry, state)
    machine = await asyncio.to_thread(files.machine, data)
    await state.end_builds(machine, time.time())
    history = History(state, machine)
    stack.push_async_callback(history.close)
    sink = history.hearing(sink)
    roots = await asyncio.to_thread(files.empty, data / "gcroots")
    sinks = events.fan_out(answers.told, sink)
    images = await pipeline(settings, stack, packages, registry, tags, state, roots, chosen_tables, sinks)
    queue = FairQueue(
        settings.builds.at_once, share=settings.builds.share, most_waiting=settings.builds.queue
    )
    metrics.queue(lambda: queue.waiting)
    builds = Coordinator(
        images,
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
        images,
        builds,
        vocabulary(settings),
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
            networks=networks_of(settings.access.networks),
            builds_per_minute=settings.access.builds_per_minute,
        ),
        relay,
    )
    return Parts(
        builds,
        Served(pulls, moving),
        answers,
        blob_ways(settings, stack, relay, url, metrics),
        access,
        registry,
        packages,
        state,
        chosen_tables,
    )


def networks_of(written: Sequence[str]) -> tuple[client.Network, ...]:
    """The networks of a setting."""
    return tuple(ip_network(network, strict=False) for network in written)
