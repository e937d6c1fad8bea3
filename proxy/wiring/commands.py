"""What subcommands need beside a server: the registry and state for its keeper, and images, names and censuses from Nix.

They may run beside a nixfront that serves: several processes can share its state, and they find its embedded registry
where it listens. Where no nixfront serves, the embedded registry runs as long as the command.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from proxy.core import events
from proxy.core.errors import NameInvalid, NixfrontError, SettingsInvalid
from proxy.core.events import BuildEnded, Event
from proxy.core.model import Layer, LayerPlan
from proxy.core.names import parse
from proxy.core.platforms import system_of
from proxy.image import store_tree
from proxy.pipeline.oci_layout import OciLayout
from proxy.pipeline.own_tags import OwnTags
from proxy.pipeline.packing import CODECS, LayerStream
from proxy.pipeline.platforms import for_system
from proxy.registry import embedded
from proxy.registry.client import Registry
from proxy.registry.management import Management
from proxy.settings import Settings
from proxy.state import State, open
from proxy.state.memory import MemoryState
from proxy.telemetry.log import log_event
from proxy.tools.name_index import NameIndex
from proxy.tools.scratch import scratch_folder
from proxy.upkeep import census
from proxy.upkeep.explain import Explanation, explain
from proxy.upkeep.inventory import Inventory, StoredImage
from proxy.upkeep.prune import Pruner
from proxy.upkeep.reindex import Reindexer, SetWords, Summary, remembered
from proxy.wiring import builder, files
from proxy.wiring.registry import image_endpoint, registry_endpoint

_LATEST = "latest"
_PATIENCE = 300.0  # seconds for what the packages say of themselves, which is more than their names


@dataclass(frozen=True, slots=True)
class Keeper:
    """The registry and the state, as `prune` and `reindex` use them."""

    registry: Registry
    management: Management
    state: State


@asynccontextmanager
async def pruner(settings: Settings) -> AsyncIterator[Pruner]:
    """A pruner of the registry. Raises a `NixfrontError` where the registry or the state does not answer."""
    async with open_keeper(settings) as keeper:
        yield Pruner(keeper.registry, keeper.management, keeper.state)


@dataclass(frozen=True, slots=True)
class Listing:
    """The repositories of a registry with their tags. Without `is_whole` these are the ones that nixfront remembers."""

    images: AsyncIterator[tuple[str, tuple[str, ...]]]
    is_whole: bool


@asynccontextmanager
async def listing(settings: Settings, names: Sequence[str] = ()) -> AsyncIterator[Listing]:
    """The images that the registry lists, or those of the state where it lists none. Raises a `NixfrontError`.

    `names`: the repositories to list instead.
    """
    endpoint = await asyncio.to_thread(image_endpoint, settings)
    async with endpoint.opened() as connection:
        management = Management(connection)
        if names:
            yield Listing(management.images(_each(names)), is_whole=True)
            return
        if await management.has_catalog():
            yield Listing(management.images(), is_whole=True)
            return
        async with _open_state(settings) as state:
            yield Listing(management.images(remembered(state)), is_whole=False)


@dataclass(frozen=True, slots=True)
class Stored:
    """The images of a registry. Without `is_whole` these are the ones that nixfront remembers.

    Without `has_details` nixfront knows names and tags alone.
    """

    images: list[StoredImage]
    is_whole: bool
    has_details: bool = True


async def stored_images(settings: Settings, on_repository: Callable[[str], None]) -> Stored:
    """The images that the registry lists, or those of the state where it lists none. Raises a `NixfrontError`.

    Through a nixfront a manifest would count as a pull. So details come from the registry itself, which this host knows
    by its address, or by the data folder of the nixfront that runs it.
    """
    async with AsyncExitStack() as stack:
        is_ours = await asyncio.to_thread(files.is_locked, settings.data_dir)
        url = settings.registry.url
        if is_ours and not url:
            url = await asyncio.to_thread(embedded.address, settings.data_dir / "registry")
        find = partial(registry_endpoint, url=url) if url else image_endpoint
        endpoint = await asyncio.to_thread(find, settings)
        connection = await stack.enter_async_context(endpoint.opened())
        management = Management(connection)
        is_whole = await management.has_catalog()
        state = await _state_if_any(settings, stack)
        repositories = None if is_whole or state is None else remembered(state)
        if url:
            inventory = Inventory(Registry(connection), state)
            return Stored(await inventory.read(management.every_tag(repositories), on_repository), is_whole)
        names = management.images(repositories)
        images = [StoredImage(repository, "", tags) async for repository, tags in names if tags]
        return Stored(images, is_whole, has_details=False)


async def _state_if_any(settings: Settings, stack: AsyncExitStack) -> State | None:
    """The state, open as long as the stack; None where it does not answer, or this user may not read it."""
    try:
        return await stack.enter_async_context(_open_state(settings))
    except (NixfrontError, OSError):
        return None


async def reindex(settings: Settings, names: Sequence[str] = ()) -> Summary:
    """Rebuild the records of the state from the registry. Raises a `NixfrontError`.

    `names`: the repositories to read. By default these are all in the registry's catalog; without one, those of the state.
    """
    compression = settings.layers.compression
    executor = ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="packing")

    async def prove(plan: LayerPlan) -> Layer | None:
        stream = LayerStream(
            store_tree.store_entries(plan.paths, prefix=settings.nix_store), compression, executor
        )
        try:
            async for _ in stream:
                pass
        except NixfrontError:  # this host does not have its paths
            return None
        return stream.layer

    sets = {
        name: SetWords(name or source.kind, frozenset({_LATEST, source.ref} - {""}))
        for name, source in settings.package_sources.items()
    }
    try:
        async with open_keeper(settings) as keeper:
            reindexer = Reindexer(
                keeper.registry,
                keeper.state,
                settings.vocabulary,
                sets,
                frozenset(settings.packages.always),
                prove,
                CODECS[compression],
            )
            repositories: AsyncIterator[str] | None = None
            is_whole = True
            if names:
                repositories = _each(names)
            elif not await keeper.management.has_catalog():
                repositories, is_whole = remembered(keeper.state), False
            return await reindexer.read(keeper.management.images(repositories), is_whole=is_whole)
    finally:
        await asyncio.to_thread(executor.shutdown)


@asynccontextmanager
async def open_keeper(settings: Settings) -> AsyncIterator[Keeper]:
    """The registry, with nixfront's own login, and the state. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        url = settings.registry.url or await stack.enter_async_context(_embedded(settings))
        endpoint = await asyncio.to_thread(registry_endpoint, settings, url)
        connection = await stack.enter_async_context(endpoint.opened())
        registry = Registry(connection)
        state = await stack.enter_async_context(_open_state(settings))
        await registry.ping(must_admit=True)
        yield Keeper(registry, Management(connection), state)


@asynccontextmanager
async def _open_state(settings: Settings) -> AsyncIterator[State]:
    """The state, which answers. Raises a `NixfrontError`."""
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    async with open.open_state(settings.state.url, settings.state_file) as state:
        await state.check()
        yield state


async def _each(names: Sequence[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[str]:
    """The origin of the embedded registry: of the nixfront that runs, else of one that we start."""
    folder = settings.data_dir / "registry"
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    try:
        lock = await asyncio.to_thread(files.lock, settings.data_dir)
    except SettingsInvalid:  # a nixfront runs on this data folder
        yield await asyncio.to_thread(embedded.address, folder)
        return
    try:
        async with embedded.run(folder) as url:
            yield url
    finally:
        lock.close()


async def build(settings: Settings, repository: str, tag: str, folder: Path, platform: str = "") -> str:
    """Write this image into `folder` as an OCI image layout, and return the digest of its manifest or index.

    It is the plain manifest of this `platform`, or what a pull gets. It needs no registry, and may run beside a nixfront on
    the same data folder. Raises a `NixfrontError`.
    """
    oci = settings.image.model_copy(update={"format": "oci"})
    settings = settings.model_copy(update={"image": oci})
    request = parse(repository, tag, settings.vocabulary)
    if request is None:
        raise NameInvalid(
            f"{repository}:{tag} cannot be an image of ours: a name is in lowercase, as in shell/git:latest"
        )
    if platform:
        request = for_system(request, system_of(platform))
    digests: list[str] = []

    def keep_digest(event: Event) -> None:
        if isinstance(event, BuildEnded) and event.digest:
            digests.append(event.digest)

    async with AsyncExitStack() as stack:
        data = settings.data_dir
        await asyncio.to_thread((data / "sets").mkdir, parents=True, exist_ok=True)
        roots = await stack.enter_async_context(files.build_folder(data))
        packages = await builder.open_own_packages(settings, stack)
        layout = OciLayout(folder, tag)
        # The state in the data folder is about a registry, so a build has its own.
        state = MemoryState()
        tags, sink = OwnTags(layout, state), events.fan_out(log_event, keep_digest)
        tables = await asyncio.to_thread(builder.read_tables, settings)
        due = roots / "attachments"
        attachments = await builder.open_attachments(settings, stack, layout, tags, state, due)
        pipeline = await builder.build_pipeline(
            settings, stack, packages, layout, tags, state, roots, tables, sink, attachments
        )
        stack.push_async_callback(pipeline.close)
        await pipeline.make(request)
        if attachments is not None:
            await attachments.settle()
    return digests[0]


async def name_index(settings: Settings, package_set: str, tag: str) -> NameIndex:
    """The packages of a package set at this tag, by name. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        packages = await builder.open_own_packages(settings, stack)
        return await packages.evaluator.facts_soon(await packages.sets.resolve(package_set, tag), _PATIENCE)


async def explanation(settings: Settings, repository: str, tag: str, platform: str = "") -> Explanation:
    """The layers of an image of the registry, or of nixfront's, which builds it if need be. Raises a `NixfrontError`."""
    registry = await asyncio.to_thread(image_endpoint, settings)
    async with registry.opened() as connection:
        return await explain(connection, repository, tag, platform)


async def census_of_set(
    settings: Settings, package_set: str, tag: str, attributes: Sequence[str], on_line: Callable[[str], None]
) -> census.Census:
    """What the packages `attributes` of a set need, or all of its packages where that is empty. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        packages = await builder.open_own_packages(settings, stack)
        revision = await packages.sets.resolve(package_set, tag)
        roots = await stack.enter_async_context(scratch_folder(settings.data_dir))
        return await census.of_set(
            packages.evaluator,
            packages.store,
            revision,
            attributes or await packages.evaluator.names(revision),
            settings.packages.always,
            roots,
            strict=bool(attributes),
            on_line=on_line,
        )
