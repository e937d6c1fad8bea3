"""What `prune` and `reindex` work on: the registry as its keeper sees it, and what nixfront remembers of it.

A nixfront that serves meanwhile is not disturbed: its state takes more than one process, and its embedded registry is found
where it listens. Where none serves, the embedded registry is started for as long as this lasts.

What the commands do by themselves, with Nix and without a server: an image as a folder, the names of a set, its census.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.core import events
from proxy.core.errors import NameInvalid, NixfrontError, SettingsInvalid
from proxy.core.events import BuildEnded, Event
from proxy.core.model import Layer, LayerPlan
from proxy.core.names import parse
from proxy.image import store_tree
from proxy.pipeline.oci_layout import OciLayout
from proxy.pipeline.own_tags import OwnTags
from proxy.pipeline.packing import CODECS, LayerStream
from proxy.registry import embedded
from proxy.registry.client import Registry
from proxy.registry.endpoint import client_session
from proxy.registry.management import Management
from proxy.settings import Settings
from proxy.settings.sections import ImageSection
from proxy.state import State, open
from proxy.state.memory import MemoryState
from proxy.telemetry.log import log_event
from proxy.upkeep import census
from proxy.upkeep.prune import Pruner
from proxy.upkeep.reindex import Reindexer, SetWords, Summary
from proxy.wiring import builder, files
from proxy.wiring.registry import registry_endpoint

_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class _Upkeep:
    registry: Registry
    management: Management
    state: State


@asynccontextmanager
async def pruner(settings: Settings) -> AsyncIterator[Pruner]:
    """Raises a `NixfrontError` where the registry or the state cannot be had."""
    async with _upkeep(settings) as parts:
        yield Pruner(parts.registry, parts.management, parts.state)


async def reindex(settings: Settings) -> Summary:
    """Make anew what nixfront remembers. Raises a `NixfrontError`."""
    compression = settings.layers.compression
    executor = ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="packing")

    async def prove(plan: LayerPlan) -> Layer | None:
        stream = LayerStream(
            store_tree.store_entries(plan.paths, prefix=settings.nix_store), compression, executor
        )
        try:
            async for _ in stream:
                pass
        except NixfrontError:  # this host has not got it
            return None
        return stream.layer

    sets = {
        name: SetWords(name or chosen.kind, frozenset({_LATEST, chosen.ref} - {""}))
        for name, chosen in settings.package_sources.items()
    }
    try:
        async with _upkeep(settings) as parts:
            reindexer = Reindexer(
                parts.registry,
                parts.state,
                settings.vocabulary,
                sets,
                frozenset(settings.packages.always),
                prove,
                CODECS[compression],
            )
            return await reindexer.read(parts.management.images())
    finally:
        await asyncio.to_thread(executor.shutdown)


@asynccontextmanager
async def _upkeep(settings: Settings) -> AsyncIterator[_Upkeep]:
    async with AsyncExitStack() as stack:
        url = settings.registry.url or await stack.enter_async_context(_embedded(settings))
        reach = await asyncio.to_thread(registry_endpoint, settings, url)
        reached = await stack.enter_async_context(reach.opened())
        registry = Registry(reached)
        await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
        state = await stack.enter_async_context(open.open_state(settings.state.url, settings.state_file))
        await state.check()
        await registry.repositories(1)  # it answers, and lets us in
        yield _Upkeep(registry, Management(reached), state)


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[str]:
    """The origin of the embedded registry, running."""
    folder = settings.data_dir / "registry"
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    try:
        lock = await asyncio.to_thread(files.lock, settings.data_dir)
    except SettingsInvalid:  # a nixfront serves from here
        yield await asyncio.to_thread(embedded.address, folder)
        return
    try:
        async with embedded.run(folder) as url:
            yield url
    finally:
        lock.close()


async def build(settings: Settings, repository: str, tag: str, folder: Path) -> str:
    """The digest of the manifest of this image, written into `folder` as an OCI image layout, whatever `image.format` is.

    No registry is needed, and a nixfront that serves from the same data folder is not disturbed. Raises a `NixfrontError`.
    """
    settings = settings.model_copy(update={"image": ImageSection(format="oci")})
    request = parse(repository, tag, settings.vocabulary)
    if request is None:
        raise NameInvalid(f"{repository}:{tag} can be no image of ours")
    digests: list[str] = []

    def keep_digest(event: Event) -> None:
        if isinstance(event, BuildEnded) and event.digest:
            digests.append(event.digest)

    async with AsyncExitStack() as stack:
        data = settings.data_dir
        await asyncio.to_thread((data / "sets").mkdir, parents=True, exist_ok=True)
        own = await asyncio.to_thread(files.build_folder, data)
        stack.push_async_callback(asyncio.to_thread, own.cleanup)
        session = await stack.enter_async_context(client_session())
        packages = builder.open_packages(settings, stack, session)
        layout = OciLayout(folder, tag)
        state = MemoryState()  # the state of the data folder is about a registry
        tags, sink = OwnTags(layout, state), events.fan_out(log_event, keep_digest)
        chosen_tables = await asyncio.to_thread(builder.read_tables, settings)
        pipeline = await builder.build_pipeline(
            settings, stack, packages, layout, tags, state, Path(own.name), chosen_tables, sink
        )
        stack.push_async_callback(pipeline.close)
        await pipeline.make(request)
    return digests[0]


async def attribute_names(settings: Settings, package_set: str, tag: str) -> tuple[str, ...]:
    """The names of a package set's attributes at this tag. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread((settings.data_dir / "sets").mkdir, parents=True, exist_ok=True)
        packages = builder.open_packages(settings, stack, await stack.enter_async_context(client_session()))
        return await packages.evaluator.names(await packages.sets.resolve(package_set, tag))


async def census_of_set(
    settings: Settings,
    package_set: str,
    tag: str,
    attributes: Sequence[str],
    on_line: Callable[[str], None],
) -> census.Census:
    """What the packages of a set need: those named, or else all that can be had. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread((settings.data_dir / "sets").mkdir, parents=True, exist_ok=True)
        packages = builder.open_packages(settings, stack, await stack.enter_async_context(client_session()))
        chosen = await packages.sets.resolve(package_set, tag)
        roots = await asyncio.to_thread(tempfile.TemporaryDirectory, dir=settings.data_dir)
        stack.push_async_callback(asyncio.to_thread, roots.cleanup)
        return await census.of_set(
            packages.evaluator,
            packages.store,
            chosen,
            attributes or await packages.evaluator.names(chosen),
            settings.packages.always,
            Path(roots.name),
            strict=bool(attributes),
            on_line=on_line,
        )
