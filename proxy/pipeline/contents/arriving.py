"""Store paths that Nix puts into a store while their layers are packed: a layer can be read as soon as all of its paths are valid.

The closure has to be clear before, so that the layers are those of an image whose paths are all there. A process of Nix
holds the paths (`nix.hold`), because the roots of a realisation come only at its end.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from typing_extensions import override

from proxy.core.errors import CacheUnusable, ProcessFailed
from proxy.nix.hold import StoreHold
from proxy.nix.store import NixStore
from proxy.pipeline.contents.store_files import DiskFiles
from proxy.tools.flight import SingleFlight

_PAUSE = 0.1  # seconds between two looks at the store


class ArrivingFiles(DiskFiles):
    """The files of `paths`, while the task `fetching` puts them into a store."""

    arriving = True

    def __init__(
        self, prefix: str, paths: Collection[str], fetching: asyncio.Task[None], hold: StoreHold
    ) -> None:
        super().__init__(prefix)
        self._paths = frozenset(paths)
        self._fetching = fetching
        self._hold = hold
        self._valid: frozenset[str] = frozenset()
        self._looks: SingleFlight[str, None] = SingleFlight()

    @override
    async def arrive(self, paths: Collection[str]) -> None:
        """As `StoreFiles.arrive`. For all paths it waits until Nix has ended. Raises what the task raises, and `CacheUnusable`."""
        wanted = frozenset(paths)
        while not self._fetching.done() and (wanted == self._paths or not wanted <= self._valid):
            await self._looks.run("", self._look)
        if self._fetching.done():
            self._fetching.result()

    @override
    async def prepare(self, unpacked: Collection[str]) -> bool:
        """As `StoreFiles.prepare`: the root tree comes last."""
        return False

    async def close(self) -> None:
        """Look no more."""
        await self._looks.close()

    async def look(self) -> None:
        """See which paths are valid. Raises `CacheUnusable` if Nix does not say: then they come in another way."""
        missing = self._paths - self._valid
        try:
            self._valid |= await self._hold.valid(missing)
        except ProcessFailed as error:
            raise CacheUnusable(f"Nix does not say which store paths are valid: {error}") from error

    async def _look(self) -> None:
        await asyncio.wait([self._fetching], timeout=_PAUSE)
        await self.look()


@asynccontextmanager
async def arriving_files(
    store: NixStore, paths: Collection[str], fetch: Coroutine[Any, Any, None]
) -> AsyncIterator[ArrivingFiles]:
    """The files of these store paths, which `fetch` puts into the store; it ends with the context. Raises `CacheUnusable`."""
    fetching = asyncio.create_task(fetch)
    try:
        async with AsyncExitStack() as stack:
            try:
                hold = await stack.enter_async_context(store.hold())
            except ProcessFailed as error:
                raise CacheUnusable(f"Nix does not hold store paths: {error}") from error
            files = ArrivingFiles(store.prefix, paths, fetching, hold)
            stack.push_async_callback(files.close)
            await files.look()
            yield files
    finally:
        fetching.cancel()
        await asyncio.wait([fetching])
        _ = fetching.cancelled() or fetching.exception()  # read here, so that asyncio does not log it
