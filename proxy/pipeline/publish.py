"""Puts the layers of an image, and other blobs, into a destination: looks for them, mounts them, or packs and sends them.

The order of attempts is the order of their cost. A record of the state counts only once the registry confirms
the blob in this repository; a blob that the registry has in another repository is mounted; else the layer is packed. Two
images that need the same new layer at once pack it once: the second one waits, then mounts.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

from cachetools import LRUCache

from proxy.core.errors import CacheUnusable, RegistryRefused, RegistryUnavailable
from proxy.core.events import LayerStored, Sink
from proxy.core.model import Layer, LayerPlan, digest_of
from proxy.image.manifest import Compression
from proxy.image.tar import Entry
from proxy.pipeline.contents.store_files import StoreFiles
from proxy.pipeline.destination import Destination
from proxy.pipeline.packing import CODECS, LayerStream
from proxy.state import State, layer_key
from proxy.tools.flight import SingleFlight
from proxy.tools.retry import retry

_log = logging.getLogger(__name__)
_TRIES = 3
_TRIES_AWAY = 4  # while the registry does not answer at all
_TRIES_OF_CACHES = 20  # each cache may fail twice for each store path of a layer
_MOST_PACKED = 1024  # layers
_PAUSE = 0.5  # seconds before an upload is tried again; doubled for each further try


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """The plan of a layer, and what the state has recorded: the layer, and a few repositories that have its blob."""

    plan: LayerPlan
    key: str
    layer: Layer | None = None
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RootLayer:
    """The layer of a root tree; `unsent` are its bytes, empty if the destination has them."""

    layer: Layer
    unsent: bytes = b""


class Publisher:
    """Puts layers into one registry."""

    def __init__(
        self,
        registry: Destination,
        state: State,
        executor: Executor,
        *,
        compression: Compression,
        uploads: int,
        fetchers: Executor | None = None,
        sink: Sink = lambda _: None,
    ) -> None:
        """At most `uploads` layers are sent at once. `executor` reads and compresses what is on disk, `fetchers` what a cache sends."""
        self._sink = sink
        self._registry = registry
        self._state = state
        self._executor = executor
        self._fetchers = fetchers or executor
        self._compression: Compression = compression
        self._slots = asyncio.Semaphore(uploads)
        self._packing: SingleFlight[tuple[str, str], tuple[Layer, str]] = SingleFlight()
        # What was packed after somebody had recalled the records of an image, such as that of the other platform.
        self._packed: LRUCache[str, tuple[Layer, str]] = LRUCache(_MOST_PACKED)
        # By key, as long as an image looks at one.
        self._descriptions: WeakValueDictionary[str, asyncio.Future[Layer]] = WeakValueDictionary()

    def executor_of(self, files: StoreFiles) -> Executor:
        """The threads that read these files."""
        return self._executor if files.at_hand else self._fetchers

    async def recall(self, repository: str, plans: Sequence[LayerPlan]) -> tuple[LayerRecord, ...]:
        """What the state has recorded of these layers, in their order; it may be out of date."""
        keys = [layer_key(plan, CODECS[self._compression]) for plan in plans]
        layers = await self._state.recall(keys, repository)
        return tuple(
            LayerRecord(plan, key, *layers.get(key, (None, ())))
            for key, plan in zip(keys, plans, strict=True)
        )

    def description(self, record: LayerRecord) -> asyncio.Future[Layer]:
        """The layer of this plan, as soon as its last byte is packed; `layer` has to run meanwhile."""
        future = self._descriptions.get(record.key)
        if future is None:
            future = self._descriptions[record.key] = asyncio.get_running_loop().create_future()
        if record.layer is not None:
            _describe(future, record.layer)
        return future

    async def layer(self, repository: str, record: LayerRecord, files: StoreFiles) -> Layer:
        """The layer of this plan, which the repository has when this returns; `files` has its store paths."""
        layer = await self._layer(repository, record, files)
        _describe(self._descriptions.get(record.key), layer)
        return layer

    async def _layer(self, repository: str, record: LayerRecord, files: StoreFiles) -> Layer:
        if record.layer is None and (packed := self._packed.get(record.key)):
            record = replace(record, layer=packed[0], origins=packed[1:])
        # Packed once for all repositories, then mounted; if the registry does not mount, packed for this repository itself.
        for shared_with in ("", repository):
            layer = await self._reuse(repository, record)
            if layer is not None:
                return layer
            await files.arrive(record.plan.paths)  # here, as the packing may be of another image's files
            layer, where = await self._packing.run(
                (record.key, shared_with), partial(self._pack, repository, record.key, record.plan, files)
            )
            if where == repository:
                return layer
            record = replace(record, layer=layer, origins=(where,))
        raise AssertionError("unreachable: what is packed for a repository is packed in it")

    async def pack_root(self, repository: str, entries: Sequence[Entry]) -> RootLayer:
        """The layer of these members. One with files of the store may be large, so it is sent while it is packed."""
        if any(entry.source for entry in entries):
            return RootLayer(await self._upload(repository, lambda: entries, self._executor))
        stream = LayerStream(entries, self._compression, self._executor)
        data = b"".join([block async for block in stream])
        return RootLayer(stream.layer, data)

    async def root_layer(self, repository: str, root: RootLayer, *, look: bool) -> None:
        """Send the bytes that `pack_root` left; `look` as for `blob`."""
        if root.unsent:
            async with self._slots:
                await self.blob(repository, root.unsent, look=look)

    async def blob(self, repository: str, data: bytes, *, look: bool) -> None:
        """Send these bytes. With `look` only if the repository lacks them: then a blob that it lacks costs a request more."""
        if not (look and await self._registry.has_blob(repository, digest_of(data))):
            await self._registry.put_blob(repository, data)

    async def record(self, repository: str, records: Sequence[LayerRecord], layers: Sequence[Layer]) -> None:
        """Write into the state that the repository has these layers, as far as the records do not say so."""
        here = {record.layer.digest for record in records if record.layer and repository in record.origins}
        await self._state.seen(repository, *(layer.digest for layer in layers if layer.digest not in here))

    async def settle(self, repository: str, records: Sequence[LayerRecord]) -> None:
        """Wait until none of these layers is being packed: packing reads the store."""
        await self._packing.settle(_packings(repository, records))

    async def abandon(self, repository: str, records: Sequence[LayerRecord]) -> None:
        """The same, and cancel the packing of those that no other image waits for."""
        await self._packing.abandon(_packings(repository, records))

    async def close(self) -> None:
        """Cancel the packing of layers."""
        await self._packing.close()

    async def _reuse(self, repository: str, record: LayerRecord) -> Layer | None:
        """The recorded layer, if the registry has it or mounts it. None: its bytes have to be sent."""
        layer, origins = record.layer, record.origins
        if layer is None:
            return None
        async with self._slots:
            if repository in origins:
                if await self._registry.has_blob(repository, layer.digest):
                    self._sink(LayerStored("present", layer.size))
                    return layer
                await self._state.forget(layer.digest, repository)
            for origin in origins:
                if origin != repository and await self._registry.mount(repository, layer.digest, origin):
                    self._sink(LayerStored("mounted", layer.size))
                    _log.debug("mounted layer=%s repository=%s from=%s", layer.digest, repository, origin)
                    return layer
            # Somebody else may have put it there.
            if repository in origins or not await self._registry.has_blob(repository, layer.digest):
                return None
        self._sink(LayerStored("present", layer.size))
        return layer

    async def _pack(self, repository: str, key: str, plan: LayerPlan, files: StoreFiles) -> tuple[Layer, str]:
        """Pack and send a layer: the layer, and the repository that it was packed for."""
        description = self._descriptions.get(key)
        layer = await self._upload(
            repository, lambda: files.entries(plan.paths), self.executor_of(files), description
        )
        await self._state.record(key, plan, layer, repository)
        self._packed[key] = (layer, repository)
        self._sink(LayerStored("packed", layer.size))
        _log.debug("packed layer=%s bytes=%d repository=%s", layer.digest, layer.size, repository)
        return layer, repository

    async def _upload(
        self,
        repository: str,
        entries: Callable[[], Iterable[Entry]],
        executor: Executor,
        description: asyncio.Future[Layer] | None = None,
    ) -> Layer:
        """Pack and send, again from the first byte if the registry or a binary cache breaks off."""
        return await retry(partial(self._send, repository, entries, executor, description), _tries, _PAUSE)

    async def _send(
        self,
        repository: str,
        entries: Callable[[], Iterable[Entry]],
        executor: Executor,
        description: asyncio.Future[Layer] | None,
    ) -> Layer:
        stream = LayerStream(entries(), self._compression, executor, description)
        try:
            async with self._slots:
                await self._registry.upload(repository, stream)
        except (RegistryUnavailable, RegistryRefused) as error:
            if stream.failure is not None:
                raise stream.failure from error
            _log.warning("upload broke off repository=%s error=%s", repository, error)
            raise
        except CacheUnusable as error:
            _log.warning("%s", error)
            raise
        return stream.layer


def _describe(future: asyncio.Future[Layer] | None, layer: Layer) -> None:
    if future is not None and not future.done():
        future.set_result(layer)


def _packings(repository: str, records: Sequence[LayerRecord]) -> list[tuple[str, str]]:
    return [(record.key, where) for record in records for where in ("", repository)]


def _tries(error: Exception) -> int:
    """How often an upload may run in all when it ends with this error."""
    if isinstance(error, RegistryUnavailable):
        return _TRIES_AWAY
    if isinstance(error, CacheUnusable):
        return _TRIES_OF_CACHES if error.elsewhere else 1
    return _TRIES if isinstance(error, RegistryRefused) and error.temporary else 1
