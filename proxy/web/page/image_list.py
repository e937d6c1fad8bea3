"""The images of the registry for people: size, layers, what is in each. `visitor` chooses those that a person may see.

The list comes from the registry alone; it builds and evaluates nothing. It is bounded in length and cached for a while.
Documents never change, so what the list needs of them is cached by repository and digest. A document that is wrong, or
larger than the page can show, is the failure of its one image.
"""

import asyncio
import time
from dataclasses import replace

from cachetools import LRUCache

from proxy.core.errors import DigestMismatch, NixfrontError, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.names import is_referrers_tag
from proxy.image.documents import Child, ImageManifest, Index, Manifest, read_config, read_manifest
from proxy.registry.client import Registry
from proxy.state import State
from proxy.web.page import views
from proxy.web.page.listed import ListedImage, ListedLayer

_MOST_REPOSITORIES = 100
_MOST_TAGS = 8  # of a repository, the newest alphabetically last
_MOST_IMAGES = 300
_MOST_LAYERS = 256  # of an image; no engine takes more than 127
_MOST_PLATFORMS = 32
_MOST_CHILDREN = 8  # of an index, whose layers the page shows
_LONGEST_TEXT = 300  # characters of a label, and of what a layer holds
_AT_ONCE = 8
_FRESH = 10.0  # seconds for which a list is cached


class ImageList:
    """The images of one registry."""

    def __init__(self, registry: Registry, state: State) -> None:
        """`state` says which images are ours, when each was last pulled, and how often."""
        self._registry = registry
        self._state = state
        self._images: LRUCache[tuple[str, str], ListedImage] = LRUCache(2048)
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
        except NixfrontError as error:
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
            images = [image for images in listed for image in images][:_MOST_IMAGES]
            return tuple(await asyncio.gather(*map(self._with_record, images)))
        finally:
            self._until = time.monotonic() + _FRESH

    async def _repository(self, repository: str) -> list[ListedImage]:
        try:
            async with self._slots:
                names = await self._registry.tag_names(repository)
            tags = [name for name in names if not is_referrers_tag(name)]
            chosen = sorted(tags, key=lambda tag: (tag != "latest", tag))[:_MOST_TAGS]
            digests = await asyncio.gather(*(self._digest(repository, tag) for tag in chosen))
            by_digest: dict[str, list[str]] = {}
            for tag, digest in zip(chosen, digests, strict=True):
                if digest:
                    by_digest.setdefault(digest, []).append(tag)
            return [
                await self._image(repository, digest, tuple(names)) for digest, names in by_digest.items()
            ]
        except NixfrontError:  # somebody deletes it at this moment, or the registry is away
            return []

    async def _digest(self, repository: str, tag: str) -> str | None:
        async with self._slots:
            return await self._registry.manifest_digest(repository, tag)

    async def _image(self, repository: str, digest: str, tags: tuple[str, ...]) -> ListedImage:
        key = (repository, digest)
        image = self._images.get(key)
        if image is None:
            try:
                image = await self._read_image(repository, digest)
            except DocumentInvalid as error:
                image = ListedImage(repository, (), digest, trouble=_short(str(error)))
            except (DigestMismatch, RegistryRefused) as error:  # may be over in a moment
                return ListedImage(repository, tags, digest, trouble=_short(str(error)))
            self._images[key] = image
        return replace(image, tags=tags)

    async def _read_image(self, repository: str, digest: str) -> ListedImage:
        manifest = await self._manifest(repository, digest)
        if isinstance(manifest, Index):
            return await self._read_index(repository, digest, manifest)
        if not isinstance(manifest, ImageManifest):
            return ListedImage(repository, (), digest, description=_short(manifest.media_type))
        if len(manifest.layers) > _MOST_LAYERS:
            raise DocumentInvalid(f"it has {len(manifest.layers)} layers, and the page shows {_MOST_LAYERS}")
        async with self._slots:
            data = await self._registry.content(repository, "blobs", manifest.config.digest)
        config = await asyncio.to_thread(read_config, data)
        comments = [step.comment or step.command for step in config.steps]
        comments += [""] * (len(manifest.layers) - len(comments))
        return ListedImage(
            repository,
            (),
            digest,
            created=_short(config.created),
            description=_short(config.labels.get("nixfront.packages", "")),
            platforms=(_short(config.platform),) if config.platform else (),
            layers=tuple(
                ListedLayer(layer.digest, layer.size, _short(views.contents(comment)))
                for layer, comment in zip(manifest.layers, comments, strict=False)
            ),
        )

    async def _read_index(self, repository: str, digest: str, index: Index) -> ListedImage:
        """The index with what its first image is, and every image of it as one of the list."""
        platforms = tuple(_short(child.platform) for child in index.children[:_MOST_PLATFORMS])
        chosen = [child for child in index.children[:_MOST_CHILDREN] if not child.is_index]
        children = [
            image for child in chosen if (image := await self._read_child(repository, child)) is not None
        ]
        first = children[0] if children else ListedImage(repository, (), digest)
        missing = tuple((_short(name), _short(text)) for name, text in index.missing)
        return replace(first, digest=digest, platforms=platforms, children=tuple(children), missing=missing)

    async def _read_child(self, repository: str, child: Child) -> ListedImage | None:
        """The image of an index; None for one that the page cannot show, such as an attestation."""
        try:
            image = await self._read_image(repository, child.digest)
        except (DocumentInvalid, DigestMismatch, RegistryRefused):
            return None
        return replace(image, platforms=(_short(child.platform),))

    async def _with_record(self, image: ListedImage) -> ListedImage:
        """The image with what we know of one that we made."""
        record = await self._state.recall_image(image.repository, image.digest)
        if record is None:
            return image
        return replace(image, is_ours=True, made=record.made, pulled=record.pulled, pulls=record.pulls)

    async def _manifest(self, repository: str, digest: str) -> Manifest:
        async with self._slots:
            data = await self._registry.content(repository, "manifests", digest)
        return await asyncio.to_thread(read_manifest, data)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
