"""The images of a registry for its keeper: a value for each manifest that a tag names. It builds nothing.

A document that a stranger pushed may be wrong. That is the trouble of this one image.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from proxy.core.errors import DigestMismatch, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.names import is_referrers_tag
from proxy.image.documents import ImageManifest, Index, Manifest, OtherManifest, read_config, read_manifest
from proxy.registry.client import Registry
from proxy.state import ImageRecord, State
from proxy.upkeep.attest.sizes import AttachedSizes

_AT_ONCE = 8
_MOST_CHILDREN = 32  # of an index that the list reads
_MOST_CHILDREN_OF_ALL = 100_000  # manifests that indexes name, where bytes are counted
_NOTHING = "unknown/unknown"  # the platform of what BuildKit attaches to an image


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A manifest with all tags that name it. `size`, `attached` and `own` are bytes.

    `size`: its layers. `attached`: what is attached to it, and to the images of an index. `own`: the part of both in no other
    image of the list.

    `pulled` is in seconds since the epoch, 0 for never; `pulls` counts the fetches. `ours`: nixfront made it; None where nobody knows.
    `trouble`: why nixfront cannot read it, or empty.
    """

    repository: str
    digest: str
    tags: tuple[str, ...]
    platforms: tuple[str, ...] = ()
    size: int = 0
    attached: int = 0
    own: int = 0
    created: str = ""
    pulled: float = 0.0
    pulls: int = 0
    ours: bool | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the documents of an image say: the size of each blob by digest, platforms, date, and the digests of an index' images.

    `attached`: the size of each blob that is attached to it.
    """

    blobs: Mapping[str, int]
    platforms: tuple[str, ...]
    created: str = ""
    children: tuple[str, ...] = ()
    attached: Mapping[str, int] = field(default_factory=dict)

    @property
    def all_blobs(self) -> Mapping[str, int]:
        return {**self.attached, **self.blobs}


class Inventory:
    """Reads the images of one registry, and what a state records of them."""

    def __init__(self, registry: Registry, state: State | None) -> None:
        """Without a `state` nobody knows which images are ours."""
        self._registry = registry
        self._state = state
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._attached = AttachedSizes(registry, self._slots)

    async def read(
        self, listing: AsyncIterable[tuple[str, tuple[str, ...]]], on_repository: Callable[[str], None]
    ) -> list[StoredImage]:
        """The images of these repositories with all their tags. Raises `RegistryUnavailable`."""
        records: dict[tuple[str, str], ImageRecord] = {}
        if self._state is not None:
            records = {(record.repository, record.digest): record async for record in self._state.images()}
        images: list[tuple[StoredImage, _Contents]] = []
        async for repository, tags in listing:
            on_repository(repository)
            images += await self._repository(repository, tags, records)
        holders = Counter(digest for _, contents in images for digest in contents.all_blobs)
        return [
            replace(
                image,
                own=sum(size for digest, size in contents.all_blobs.items() if holders[digest] == 1),
            )
            for image, contents in images
        ]

    async def only_in(
        self, gone: Collection[tuple[str, str]], listing: AsyncIterable[tuple[str, tuple[str, ...]]]
    ) -> int | None:
        """The bytes of layers that the manifests `gone` (repository, digest) have, and no other image of these tags or records.

        None where a manifest is unreadable, so that nobody knows what it needs.
        """
        named = set[tuple[str, str]]()
        async for repository, tags in listing:
            digests = await asyncio.gather(*(self._digest(repository, tag) for tag in tags))
            if "" in digests:
                return None
            named.update((repository, digest) for digest in digests if digest is not None)
        if self._state is not None:  # a client may have pinned an image whose tag moved on
            named.update([(record.repository, record.digest) async for record in self._state.images()])
        stay = await self._layers(named - set(gone))
        lost = await self._layers(gone)
        if stay is None or lost is None:
            return None
        return sum(size for digest, size in lost.items() if digest not in stay)

    async def _layers(self, manifests: Collection[tuple[str, str]]) -> dict[str, int] | None:
        """The sizes of the layers of these manifests, and of all that an index among them names. None as `only_in`."""
        layers: dict[str, int] = {}
        level = seen = set(manifests)
        while level:
            read = await asyncio.gather(*(self._manifest(*each) for each in level))
            below = set[tuple[str, str]]()
            for (repository, _), manifest in zip(level, read, strict=True):
                if isinstance(manifest, ImageManifest):
                    layers.update({layer.digest: layer.size for layer in manifest.layers})
                elif isinstance(manifest, Index):
                    below.update((repository, child.digest) for child in manifest.children)
                elif manifest is not None:
                    return None
            level = below - seen
            seen = seen | level
            if len(seen) > len(manifests) + _MOST_CHILDREN_OF_ALL:
                return None
        return layers

    async def _manifest(self, repository: str, digest: str) -> Manifest | None:
        """The manifest with this digest; None where the registry does not have it. An unreadable one is an `OtherManifest`."""
        try:
            async with self._slots:
                return read_manifest(await self._registry.content(repository, "manifests", digest))
        except (DocumentInvalid, DigestMismatch):
            return OtherManifest("")
        except RegistryRefused as error:
            return None if error.status == 404 else OtherManifest("")

    async def _repository(
        self, repository: str, tags: tuple[str, ...], records: Mapping[tuple[str, str], ImageRecord]
    ) -> list[tuple[StoredImage, _Contents]]:
        every_tag = frozenset(tags)
        tags = tuple(tag for tag in tags if not is_referrers_tag(tag))
        digests = await asyncio.gather(*(self._digest(repository, tag) for tag in tags))
        by_digest: dict[str, list[str]] = {}
        for tag, digest in zip(tags, digests, strict=True):
            if digest:
                by_digest.setdefault(digest, []).append(tag)
        found = await asyncio.gather(*(self._contents(repository, digest, every_tag) for digest in by_digest))
        images = [
            (StoredImage(repository, "", (tag,), trouble="the registry does not show it"), _Contents({}, ()))
            for tag, digest in zip(tags, digests, strict=True)
            if digest == ""
        ]
        for (digest, names), contents in zip(by_digest.items(), found, strict=True):
            record = records.get((repository, digest))
            image = StoredImage(
                repository,
                digest,
                tuple(names),
                pulled=record.pulled if record else 0.0,
                pulls=record.pulls if record else 0,
                ours=None if self._state is None else record is not None,
            )
            if isinstance(contents, str):
                images.append((replace(image, trouble=contents), _Contents({}, ())))
                continue
            image = replace(
                image,
                platforms=contents.platforms,
                size=sum(contents.blobs.values()),
                attached=sum(contents.attached.values()),
                created=contents.created,
            )
            images.append((image, contents))
        return images

    async def _digest(self, repository: str, tag: str) -> str | None:
        """The digest that the tag names; None if it names none, and empty where the registry does not say."""
        try:
            async with self._slots:
                return await self._registry.manifest_digest(repository, tag)
        except RegistryRefused:
            return ""

    async def _contents(self, repository: str, digest: str, tags: Collection[str]) -> _Contents | str:
        """What the image consists of, and what is attached to it; or why nobody can say."""
        try:
            async with self._slots:
                contents = await self._read(repository, digest)
        except (DocumentInvalid, DigestMismatch, RegistryRefused) as error:
            return str(error)
        attached = await self._attached.blobs(repository, tags, (digest, *contents.children))
        return replace(contents, attached=attached)

    async def _read(self, repository: str, digest: str) -> _Contents:
        manifest = read_manifest(await self._registry.content(repository, "manifests", digest))
        if isinstance(manifest, OtherManifest):
            raise DocumentInvalid(f"it is not an image but {manifest.media_type or 'something else'}")
        if isinstance(manifest, Index):
            children = manifest.children[:_MOST_CHILDREN]
            below = [await self._read(repository, child.digest) for child in children if not child.is_index]
            blobs = {digest: size for contents in below for digest, size in contents.blobs.items()}
            platforms = tuple(child.platform for child in children if child.platform != _NOTHING)
            created = max((contents.created for contents in below), default="")
            return _Contents(blobs, platforms, created, tuple(child.digest for child in children))
        data = await self._registry.content(repository, "blobs", manifest.config.digest)
        config = await asyncio.to_thread(read_config, data)
        blobs = {layer.digest: layer.size for layer in manifest.layers}
        return _Contents(blobs, (config.platform,) if config.platform else (), config.created)
