"""What makes images, put together from the settings: the Nix side, and the pipeline from there to a destination."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import aiohttp

from proxy import (
    configured,
    named_images,
    resources,
    store,
    tables,
)
from proxy.attribute_names import AttributeNames
from proxy.cache_copies import CacheCopies
from proxy.destination import Destination
from proxy.errors import SettingsInvalid
from proxy.events import Event, Sink
from proxy.image_keys import Options
from proxy.nix import ImagesFile, Nix
from proxy.nix_commands import Caches
from proxy.own_tags import OwnTags
from proxy.package_sets import Choice, PackageSets
from proxy.pipeline import Pipeline
from proxy.popularity import Table
from proxy.publish import Publisher
from proxy.settings import Settings
from proxy.state import State

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
    return NixSide(nix, sets, names)


async def pipeline(
    settings: Settings,
    stack: AsyncExitStack,
    packages: NixSide,
    destination: Destination,
    tags: OwnTags,
    state: State,
    roots: Path,
    layer_tables: Mapping[str, Table],
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
    return Pipeline(
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
            tables=layer_tables,
        ),
        roots=roots,
        failure_seconds=settings.builds.failure_seconds,
        sink=sink,
    )


def _named_images(
    settings: Settings, packages: NixSide, listing: store.StoreListing
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


def read_tables(settings: Settings) -> dict[str, Table]:
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


def each(*sinks: Sink) -> Sink:
    """All of them, one after the other."""

    def tell(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return tell
