"""Layers, and the configuration that names them: make the registry have them. Known | mounted | packed while it is uploaded.

The order of attempts is the order of their cost. A record of the state counts only once the registry confirms
the blob in this repository; a blob that it has under another repository is mounted; else the bytes are made. Two
images that need the same new layer at once pack it once: the second waits, then mounts. Where all layers are known nothing waits
for them: the root tree is made, and the configuration sent, while they are mounted.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from proxy.core.errors import RegistryRefused, RegistryUnavailable
from proxy.core.events import LayerStored, Sink
from proxy.core.model import Layer, LayerPlan, digest_of
from proxy.image.manifest import Compression
from proxy.image.tar import Entry
from proxy.pipeline.destination import Destination
from proxy.pipeline.packing import CODECS, LayerStream
from proxy.state import State, layer_key
from proxy.tools.flight import SingleFlight

_log = logging.getLogger(__name__)
T = TypeVar("T")
_TRIES = 3
_TRIES_AWAY = 4  # while it does not answer at all
_PAUSE = 0.5  # seconds before an upload is made anew; doubled for each further try


class Publisher:
    """Puts layers into one registry."""

    def __init__(
        self,
        registry: Destination,
        state: State,
        executor: Executor,
        entries: Callable[[Iterable[str]], Iterable[Entry]],
        *,
        compression: Compression,
        uploads: int,
        sink: Sink = lambda _: None,
    ) -> None:
        """`entries` yields the members of a layer of store paths; at most `uploads` layers are sent at once."""
        self._sink = sink
        self._registry = registry
        self._state = state
        self._executor = executor
        self._entries = entries
        self._compression: Compression = compression
        self._slots = asyncio.Semaphore(uploads)
        self._packing: SingleFlight[tuple[str, str], tuple[Layer, str]] = SingleFlight()

    async def publish(
        self,
        repository: str,
        plans: Sequence[LayerPlan],
        root: Callable[[], Awaitable[Sequence[Entry]]],
        config: Callable[[tuple[Layer, ...]], bytes],
        on_ready: Callable[[int], None] = lambda _: None,
    ) -> tuple[Layer, ...]:
        """The layers of these plans, in their order, and that of `root`'s members.

        All of them are in the repository then, and what `config` makes of them; `on_ready` hears how many layers are.
        """
        ready = itertools.count(1)
        keys = [layer_key(plan, CODECS[self._compression]) for plan in plans]
        known = await self._state.recall(keys, repository)
        all_known = known.keys() >= set(keys)
        # Then root layer and configuration may be here as well.
        all_here = all_known and all(repository in origins for _, origins in known.values())

        async def counted(work: Callable[[], Awaitable[T]]) -> T:
            done = await work()
            on_ready(next(ready))
            return done

        on_ready(0)
        early = b""
        tree = asyncio.ensure_future(root())
        try:
            if not all_known:  # what is wrong with it is told before anything is packed
                await asyncio.shield(tree)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(counted(partial(self._one, repository, key, plan, known.get(key))))
                    for key, plan in zip(keys, plans, strict=True)
                ]
                top, data = await self._root(repository, await asyncio.shield(tree))
                group.create_task(counted(partial(self._send, repository, data, look=all_here)))
                if all_known:
                    early = config((*(known[key][0] for key in keys), top))
                    group.create_task(self._put(repository, early, look=all_here))
        except ExceptionGroup as failed:  # the first error ended the others: it is the one to tell
            # What is being packed reads the store: the caller's roots have to stay until it has ended.
            await self._packing.settle((key, joined) for key in keys for joined in ("", repository))
            raise failed.exceptions[0] from failed
        finally:
            await asyncio.gather(tree, return_exceptions=True)  # it reads the store too
        layers = tuple(task.result() for task in tasks)
        whole = config((*layers, top))
        if whole != early:
            await self._put(repository, whole, look=False)
        there = {layer.digest for layer, origins in known.values() if repository in origins[:1]}
        await self._state.seen(repository, *(layer.digest for layer in layers if layer.digest not in there))
        return (*layers, top)

    async def _root(self, repository: str, entries: Sequence[Entry]) -> tuple[Layer, bytes]:
        """A layer of these members, and the bytes that are still to be sent: none for one with files of the store, which is sent."""
        if any(entry.source for entry in entries):
            return await self._upload(repository, lambda: entries), b""
        stream = LayerStream(entries, self._compression, self._executor)
        data = b"".join([block async for block in stream])
        return stream.layer, data

    async def _send(self, repository: str, root: bytes, *, look: bool) -> None:
        """As many layers at once as uploads may be, this one among them."""
        if root:
            async with self._slots:
                await self._put(repository, root, look=look)

    async def _put(self, repository: str, data: bytes, *, look: bool) -> None:
        """Send these bytes, if we `look` only where the repository lacks them: that is a question more where it does."""
        if not (look and await self._registry.has_blob(repository, digest_of(data))):
            await self._registry.put_blob(repository, data)

    async def close(self) -> None:
        """Cancel what is being packed."""
        await self._packing.close()

    async def _one(
        self, repository: str, key: str, plan: LayerPlan, known: tuple[Layer, Sequence[str]] | None
    ) -> Layer:
        # Packed by anyone, then mounted; if the registry does not mount, packed for this repository itself.
        for joined in ("", repository):
            layer = await self._reuse(repository, known)
            if layer is not None:
                return layer
            layer, where = await self._packing.run((key, joined), lambda: self._pack(repository, key, plan))
            if where == repository:
                return layer
            known = (layer, (where,))
        raise AssertionError("unreachable: what is packed for a repository is packed in it")

    async def _reuse(self, repository: str, known: tuple[Layer, Sequence[str]] | None) -> Layer | None:
        """The layer if it is known and the registry has it, or can be made to have it, without its bytes."""
        if known is None:
            return None
        layer, origins = known
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

    async def _pack(self, repository: str, key: str, plan: LayerPlan) -> tuple[Layer, str]:
        """The layer, and the repository that it was packed for."""
        layer = await self._upload(repository, lambda: self._entries(plan.paths))
        await self._state.record(key, plan, layer, repository)
        self._sink(LayerStored("packed", layer.size))
        _log.debug("packed layer=%s bytes=%d repository=%s", layer.digest, layer.size, repository)
        return layer, repository

    async def _upload(self, repository: str, entries: Callable[[], Iterable[Entry]]) -> Layer:
        """Pack and send, anew from the first byte where the registry broke off for a while."""
        for attempt in range(_TRIES_AWAY):
            stream = LayerStream(entries(), self._compression, self._executor)
            try:
                async with self._slots:
                    await self._registry.upload(repository, stream, lambda stream=stream: stream.layer.digest)  # type: ignore[misc]
            except (RegistryUnavailable, RegistryRefused) as error:
                if stream.failure is not None:
                    raise stream.failure from error
                tries = _TRIES if isinstance(error, RegistryRefused) else _TRIES_AWAY
                if attempt == tries - 1 or (isinstance(error, RegistryRefused) and not error.temporary):
                    raise
                _log.warning("upload broke off, trying again repository=%s error=%s", repository, error)
                await asyncio.sleep(_PAUSE * 2**attempt)
            else:
                return stream.layer
        raise AssertionError("unreachable: the last attempt returns or raises")
