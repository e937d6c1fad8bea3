"""What makes images, from the settings: the programs of Nix, the package sets, and the pipeline to a destination.

`nixfront serve` and `nixfront build` both start here.
"""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path

import aiohttp

from proxy.core.errors import SettingsInvalid, reason
from proxy.core.events import Sink
from proxy.image import store_tree
from proxy.image.layer_table import NO_TABLE, LayerTable, read
from proxy.nix.binary_cache import BinaryCache
from proxy.nix.budget import StoreBudget
from proxy.nix.cache.access import cache_session
from proxy.nix.cache.closure import BinaryCaches
from proxy.nix.cache.tree_cache import TreeCache
from proxy.nix.commands import Caches
from proxy.nix.evaluate import Evaluator, ImagesFile
from proxy.nix.name_lists.channel import ChannelLists
from proxy.nix.runner import Limits, NixRunner
from proxy.nix.sets import Choice, PackageSets, Tools
from proxy.nix.store import NixStore
from proxy.pipeline.attachments import Attachments
from proxy.pipeline.build import Pipeline
from proxy.pipeline.contents import NamedContents, PackageContents
from proxy.pipeline.destination import Destination
from proxy.pipeline.keys import ImageOptions
from proxy.pipeline.named import NamedImages
from proxy.pipeline.own_tags import OwnTags
from proxy.pipeline.publish import Publisher
from proxy.registry.endpoint import client_session
from proxy.settings import Settings
from proxy.state import State
from proxy.wiring import files

# Tables of the demo set, by its recipe. Other sets change without us, so we have no tables for them.
_DEMO_TABLES = {"": "packages.table.json", "big": "packages-big.table.json"}

#: So many threads at most wait for the bytes of one layer, or compress them (`pipeline.packing`).
_THREADS_OF_A_LAYER = 4
#: Who builds, where the operator gives no address.
_BUILDER = "urn:nixfront:builder"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Packages:
    """What needs Nix, and no registry."""

    store: NixStore
    evaluator: Evaluator
    sets: PackageSets
    budget: StoreBudget
    caches: BinaryCaches


def open_packages(
    settings: Settings,
    stack: AsyncExitStack,
    session: aiohttp.ClientSession,
    sink: Sink = lambda _: None,
    state: State | None = None,
) -> Packages:
    """Packages that stay open as long as the stack.

    `sink` gets an event of each run of Nix. `state` shares resolved references between machines.
    """
    folder = settings.data_dir / "sets"
    time_to_live = settings.packages.time_to_live
    section = settings.nix
    runner = NixRunner(
        Limits(
            evaluation_seconds=section.evaluation_deadline,
            build_seconds=section.build_deadline,
            evaluation_bytes=section.evaluation_memory,
            evaluations=section.evaluations,
            log_bytes=section.log_bytes,
        ),
        store=settings.nix_store,
        caches=Caches(section.substituters, section.public_keys, section.builders),
        sink=sink,
    )
    store = NixStore(runner, files.EXPRESSIONS)
    evaluator = Evaluator(
        runner,
        files.EXPRESSIONS,
        system=settings.system,
        policy=settings.package_policy,
        folder=folder,
        channels=ChannelLists(session),
    )
    sets = PackageSets(
        {
            name: Choice(**source.model_dump(include={field.name for field in fields(Choice)}))
            for name, source in settings.package_sources.items()
        },
        Tools(
            store, session, files.EXPRESSIONS, folder, section.build_deadline, time_to_live, settings.system
        ),
        time_to_live=time_to_live,
        most_revisions=settings.packages.most_revisions,
        state=state,
    )
    stack.push_async_callback(sets.close)
    stack.push_async_callback(evaluator.close)
    budget = StoreBudget(runner, most_bytes=section.most_store_bytes, keep_free=section.keep_free_bytes)
    caches = BinaryCaches(runner, cache_session(), TreeCache(settings.data_dir / "trees"))
    stack.push_async_callback(caches.close)
    return Packages(store, evaluator, sets, budget, caches)


async def open_own_packages(settings: Settings, stack: AsyncExitStack) -> Packages:
    """Packages of a command, which shares nothing with a server; as long as the stack."""
    await asyncio.to_thread((settings.data_dir / "sets").mkdir, parents=True, exist_ok=True)
    return open_packages(settings, stack, await stack.enter_async_context(client_session()))


async def open_attachments(
    settings: Settings,
    stack: AsyncExitStack,
    destination: Destination,
    tags: OwnTags,
    state: State,
    folder: Path,
) -> Attachments | None:
    """What attaches documents to images, as long as the stack; None if the settings want none. `folder` is made."""
    if not settings.trust.attach:
        return None
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    attachments = Attachments(
        destination,
        state,
        tags.versions,
        folder,
        builder=settings.trust.builder or _BUILDER,
    )
    stack.push_async_callback(attachments.close)
    return attachments


async def build_pipeline(
    settings: Settings,
    stack: AsyncExitStack,
    packages: Packages,
    destination: Destination,
    tags: OwnTags,
    state: State,
    roots: Path,
    tables: Mapping[str, LayerTable],
    sink: Sink,
    attachments: Attachments | None = None,
) -> Pipeline:
    """The pipeline that makes images and writes them to `destination`. Raises `SettingsInvalid`.

    `roots` is the folder of its garbage-collector roots; `tables` has a table for each package set, by name.
    """
    if settings.images.file and not await asyncio.to_thread(Path(settings.images.file).is_file):
        raise SettingsInvalid(f"images.file: {settings.images.file} is no file")
    executor = ThreadPoolExecutor(settings.packers, thread_name_prefix="packing")
    stack.push_async_callback(asyncio.to_thread, executor.shutdown)
    fetchers = ThreadPoolExecutor(settings.uploads * _THREADS_OF_A_LAYER, thread_name_prefix="fetching")
    stack.push_async_callback(asyncio.to_thread, fetchers.shutdown)
    # Before the threads, which wait for what it fetches.
    stack.push_async_callback(packages.caches.close)
    binary_cache = BinaryCache(packages.store, settings.nix.copy_to, roots)
    stack.push_async_callback(binary_cache.close)
    publisher = Publisher(
        destination,
        state,
        executor,
        compression=settings.layers.compression,
        uploads=settings.uploads,
        fetchers=fetchers,
        sink=sink,
    )
    options = ImageOptions(
        system=settings.system,
        policy=settings.package_policy,
        always=settings.packages.always,
        most_layers=settings.layers.most,
        form=settings.image.format,
        compression=settings.layers.compression,
        tables=tables,
        platforms=settings.systems if settings.image.index else (),
    )
    images = _named_images(settings, packages, store_tree.StoreListing(packages.store.prefix))
    return Pipeline(
        packages=PackageContents(
            packages.sets,
            packages.evaluator,
            packages.store,
            binary_cache,
            options,
            roots,
            sink,
            packages.caches,
            # What is copied to a cache of the operator's has to be in the store.
            straight=settings.nix.fetch == "auto" and not settings.nix.copy_to,
        ),
        images=NamedContents(images, packages.evaluator, packages.store, binary_cache, options, roots, sink),
        tags=tags,
        publisher=publisher,
        options=options,
        sink=sink,
        attachments=attachments,
    )


def _named_images(settings: Settings, packages: Packages, listing: store_tree.StoreListing) -> NamedImages:
    file = ImagesFile(
        Path(settings.images.file),
        package_sets=tuple(settings.sets),
        aliases=settings.names.aliases,
        always=settings.packages.always,
    )
    return NamedImages(
        file,
        packages.sets,
        packages.evaluator,
        packages.store,
        listing,
        system=settings.system,
    )


def read_tables(settings: Settings) -> dict[str, LayerTable]:
    """The layer table of each package set, by name. Blocking: it reads files. Raises `SettingsInvalid`."""
    tables = {}
    for name, source in settings.package_sources.items():
        tables[name] = read_table(settings.layers.table, source.kind, source.recipe)
        if not tables[name].groups:
            _log.warning(
                "package set %s has no layer table, so images share fewer layers (see layers.table)",
                name or "(default)",
            )
    return tables


def read_table(file: str, kind: str, recipe: str) -> LayerTable:
    """The operator's table where `file` names one, else ours for a set of this kind and recipe, else `NO_TABLE`.

    Raises `SettingsInvalid`.
    """
    if not file and not (kind == "demo" and recipe in _DEMO_TABLES):
        return NO_TABLE
    path = Path(file) if file else files.EXPRESSIONS / "debian" / _DEMO_TABLES[recipe]
    try:
        return read(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"layers.table: {path} cannot be used: {reason(error)}") from error
