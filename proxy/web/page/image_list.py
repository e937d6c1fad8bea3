"""The images of the registry for people: size, layers, and how many other images share each layer.

The list comes from the registry alone; it builds and evaluates nothing. It is bounded in length and cached for a while.
Manifests never change, so they are cached by digest.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from cachetools import LRUCache

from proxy.core.errors import NixfrontError
from proxy.registry.client import Registry

_MOST_REPOSITORIES = 100
_MOST_TAGS = 8  # of a repository, the newest alphabetically last
_MOST_IMAGES = 300
_AT_ONCE = 8
_FRESH = 10.0  # seconds for which a list is cached


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """`shared_by` counts the images of the list that hold it."""

    digest: str
    size: int
    what: str = ""
    shared_by: int = 1


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One manifest with all tags that name it; `platforms` where it is a list of several."""

    repository: str
    tags: tuple[str, ...]
    digest: str
    created: str = ""
    description: str = ""
    layers: tuple[ListedLayer, ...] = ()
    platforms: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all layers, as they are sent."""
        return sum(layer.size for layer in self.layers)

    @property
    def own(self) -> int:
        """Bytes of the layers that no other image of the list holds."""
        return sum(layer.size for layer in self.layers if layer.shared_by == 1)

    @property
    def name(self) -> str:
        """What to pull."""
        tag = next((tag for tag in self.tags if tag == "latest"), self.tags[0] if self.tags else "")
        return self.repository if tag == "latest" else f"{self.repository}:{tag}"


class ImageList:
    """The images of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._documents: LRUCache[str, Any] = LRUCache(2048)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._reading: asyncio.Task[tuple[ListedImage, ...]] | None = None
        self._until = 0.0
        self._generation = 0

    async def all(self, generation: int) -> tuple[ListedImage, ...]:
        """By name; at most some hundreds. Raises a `NixfrontError`.

        The registry is read again when `generation` is another one than before, since it may have further images then.
        """
        stale = generation != self._generation or time.monotonic() > self._until
        if self._reading is None or (self._reading.done() and stale):
            self._generation = generation
            self._reading = asyncio.create_task(self._read())
        return await asyncio.shield(self._reading)

    async def listing(self, generation: int) -> tuple[tuple[ListedImage, ...], str]:
        """As `all`; or no images, and why the registry cannot list them."""
        try:
            return await self.all(generation), ""
        except (NixfrontError, ValueError) as error:
            return (), str(error)

    async def close(self) -> None:
        """Cancel what is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> tuple[ListedImage, ...]:
        try:
            repositories = await self._registry.repositories(_MOST_REPOSITORIES)
            listed = await asyncio.gather(*(self._repository(name) for name in repositories))
        finally:
            self._until = time.monotonic() + _FRESH
        images = [image for images in listed for image in images][:_MOST_IMAGES]
        holders = Counter(digest for image in images for digest in {layer.digest for layer in image.layers})
        return tuple(
            replace(
                image, layers=tuple(replace(layer, shared_by=holders[layer.digest]) for layer in image.layers)
            )
            for image in images
        )

    async def _repository(self, repository: str) -> list[ListedImage]:
        try:
            async with self._slots:
                tags = await self._registry.tag_names(repository)
            chosen = sorted(tags, key=lambda tag: (tag != "latest", tag))[:_MOST_TAGS]
            digests = await asyncio.gather(*(self._digest(repository, tag) for tag in chosen))
            by_digest: dict[str, list[str]] = {}
            for tag, digest in zip(chosen, digests, strict=True):
                if digest:
                    by_digest.setdefault(digest, []).append(tag)
            return [
                await self._image(repository, digest, tuple(names)) for digest, names in by_digest.items()
            ]
        except (NixfrontError, ValueError, KeyError, TypeError):  # the list leaves a broken image out
            return []

    async def _digest(self, repository: str, tag: str) -> str | None:
        async with self._slots:
            return await self._registry.manifest_digest(repository, tag)

    async def _image(self, repository: str, digest: str, tags: tuple[str, ...]) -> ListedImage:
        manifest = await self._document(repository, "manifests", digest)
        if "manifests" in manifest:
            platforms = (child.get("platform") or {} for child in manifest["manifests"])
            names = tuple(f"{p.get('os', '?')}/{p.get('architecture', '?')}" for p in platforms)
            return ListedImage(repository, tags, digest, platforms=names)
        if "layers" not in manifest:
            return ListedImage(repository, tags, digest, description=str(manifest.get("mediaType", "")))
        config = await self._document(repository, "blobs", manifest["config"]["digest"])
        history = [entry for entry in config.get("history") or [] if not entry.get("empty_layer")]
        comments = [str(entry.get("comment") or entry.get("created_by") or "") for entry in history]
        comments += [""] * (len(manifest["layers"]) - len(comments))
        labels = (config.get("config") or {}).get("Labels") or {}
        return ListedImage(
            repository,
            tags,
            digest,
            created=str(config.get("created") or ""),
            description=str(labels.get("nixfront.packages") or ""),
            layers=tuple(
                ListedLayer(str(layer["digest"]), int(layer["size"]), comment)
                for layer, comment in zip(manifest["layers"], comments, strict=False)
            ),
        )

    async def _document(self, repository: str, kind: str, digest: str) -> Any:
        if digest not in self._documents:
            async with self._slots:
                self._documents[digest] = json.loads(await self._registry.content(repository, kind, digest))
        return self._documents[digest]
