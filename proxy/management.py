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
from functools import partial

from proxy import app, local_registry, store
from proxy.catalog import Management
from proxy.errors import NixfrontError, SettingsInvalid
from proxy.model import Layer, LayerPlan
from proxy.packing import CODECS, LayerStream
from proxy.prune import Pruner
from proxy.registry import Registry
from proxy.registry_login import Login
from proxy.reindex import Reindexer, SetWords, Summary
from proxy.settings import Settings
from proxy.state import State

_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class _Kept:
    url: str
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
                app.vocabulary(settings),
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
        registry, login, _ = await app.registry_of(settings, stack, url)
        await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
        state = await stack.enter_async_context(app.open_state(settings))
        await state.check()
        chosen, loop = settings.registry, asyncio.get_running_loop()
        secret = await asyncio.to_thread(chosen.secret)
        keeper = await asyncio.to_thread(
            partial(
                Management,
                url,
                login=(chosen.username, secret) if chosen.username else None,
                token=lambda scope: _token(login, scope, loop),
                ca=chosen.ca,
                certificate=(chosen.client_certificate, chosen.client_key)
                if chosen.client_certificate
                else None,
            )
        )
        await registry.repositories(1)  # it answers, and `login` knows what it wants
        yield _Kept(url, registry, keeper, state)


def _token(login: Login, scope: str, loop: asyncio.AbstractEventLoop) -> str:
    """The token of a registry that has a token service; called in another thread than the loop's."""
    value = asyncio.run_coroutine_threadsafe(login.authorization((scope,)), loop).result()
    return value.removeprefix("Bearer ") if value.startswith("Bearer ") else ""


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[str]:
    """The origin of the embedded registry, running."""
    folder = settings.data_dir / "registry"
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    try:
        lock = await asyncio.to_thread(app.lock, settings.data_dir)
    except SettingsInvalid:  # a nixfront serves from here
        yield await asyncio.to_thread(local_registry.address, folder)
        return
    try:
        async with local_registry.run(folder) as url:
            yield url
    finally:
        lock.close()
