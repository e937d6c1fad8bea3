"""What `prune` and `reindex` work on: the registry as its keeper sees it, and what nixfront remembers of it.

A nixfront that serves meanwhile is not disturbed: its state takes more than one process, and its embedded registry is found
where it listens. Where none serves, the embedded registry is started for as long as this lasts.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from proxy import configured, data_folder, local_registry, store
from proxy.catalog import Management
from proxy.errors import NixfrontError, SettingsInvalid
from proxy.model import Layer, LayerPlan
from proxy.packing import CODECS, LayerStream
from proxy.prune import Pruner
from proxy.registry import Registry
from proxy.reindex import Reindexer, SetWords, Summary
from proxy.settings import Settings
from proxy.state import State

_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class _Kept:
    registry: Registry
    keeper: Management
    state: State

    async def tags(self, repository: str) -> Sequence[str]:
        return await asyncio.to_thread(self.keeper.tags, repository)

    async def delete(self, repository: str, digest: str) -> bool:
        return await asyncio.to_thread(self.keeper.delete, repository, digest)

    async def listed(self) -> AsyncIterator[tuple[str, Sequence[str]]]:
        for repository in await asyncio.to_thread(lambda: list(self.keeper.repositories())):
            yield repository, await self.tags(repository)


@asynccontextmanager
async def pruner(settings: Settings) -> AsyncIterator[Pruner]:
    """Raises a `NixfrontError` where the registry or the state cannot be had."""
    async with _kept(settings) as kept:
        yield Pruner(kept.registry, kept.state, kept.tags, kept.delete)


async def reindex(settings: Settings) -> Summary:
    """Make anew what nixfront remembers. Raises a `NixfrontError`."""
    compression = settings.layers.compression
    executor = ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="packing")

    async def prove(plan: LayerPlan) -> Layer | None:
        stream = LayerStream(
            store.store_entries(plan.paths, prefix=settings.nix_store), compression, executor
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
        async with _kept(settings) as kept:
            reindexer = Reindexer(
                kept.registry,
                kept.state,
                configured.vocabulary(settings),
                sets,
                frozenset(settings.packages.always),
                prove,
                CODECS[compression],
            )
            return await reindexer.read(kept.listed())
    finally:
        await asyncio.to_thread(executor.shutdown)


@asynccontextmanager
async def _kept(settings: Settings) -> AsyncIterator[_Kept]:
    async with AsyncExitStack() as stack:
        url = settings.registry.url or await stack.enter_async_context(_embedded(settings))
        reach = await asyncio.to_thread(configured.registry, settings, url)
        reached = await stack.enter_async_context(reach.opened())
        registry = Registry(reached.session, url, reached.login)
        await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
        state = await stack.enter_async_context(configured.open_state(settings))
        await state.check()
        await registry.repositories(1)  # it answers, and lets us in
        keeper = stack.enter_context(await asyncio.to_thread(Management, reach))
        yield _Kept(registry, keeper, state)


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[str]:
    """The origin of the embedded registry, running."""
    folder = settings.data_dir / "registry"
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    try:
        lock = await asyncio.to_thread(data_folder.lock, settings.data_dir)
    except SettingsInvalid:  # a nixfront serves from here
        yield await asyncio.to_thread(local_registry.address, folder)
        return
    try:
        async with local_registry.run(folder) as url:
            yield url
    finally:
        lock.close()
