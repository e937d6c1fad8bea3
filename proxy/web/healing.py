"""Which image of ours lost a manifest or blob, when the registry answers 404 to a digest.

A digest that no record of ours has gets the registry's own answer, so nobody makes us build by guesses. A record says
at which revision the image was made, and its repository says the rest; see `pipeline.own_tags.heal` for the comparison.
"""

from dataclasses import replace

from cachetools import LRUCache, TTLCache

from proxy.core import names
from proxy.core.errors import DigestLost, DigestMismatch, NameInvalid, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import ImageRequest
from proxy.core.names import Vocabulary, is_revision
from proxy.core.request import RegistryPath
from proxy.image.documents import ImageManifest, read_manifest
from proxy.pipeline.own_tags import lost
from proxy.registry.client import Registry
from proxy.state import ImageRecord, State

_MOST_READ = 16  # manifests of a repository in which a blob is looked for
_MOST_BLOBS = 1 << 16  # whose digests are in memory, those of all manifests together
_MOST_REFUSED = 4096  # manifests
_REFUSED = 10.0  # seconds until nixfront asks again for a manifest that the registry does not give


class Healing:
    """What the registry lost, by the records of the state."""

    def __init__(self, registry: Registry, state: State, words: Vocabulary) -> None:
        self._registry = registry
        self._state = state
        self._words = words
        self._blobs: LRUCache[str, frozenset[str]] = LRUCache(_MOST_BLOBS, _weight)
        self._refused: TTLCache[tuple[str, str], None] = TTLCache(_MOST_REFUSED, _REFUSED)

    async def image(self, path: RegistryPath) -> ImageRequest | None:
        """The image of ours that has this manifest or blob; None if no record has it. Raises `DigestLost`."""
        if not (path.is_digest and path.is_canonical):
            return None
        repository, blob = path.repository, ""
        if path.kind == "manifest":
            record = await self._state.recall_image(repository, path.reference)
            self._refused.pop((repository, path.reference), None)  # it may come back now
        else:
            blob = path.reference
            record = await self._holder(repository, blob)
        if record is None:
            return None
        revision = record.revision or await self._pinned(record)
        if not revision:
            raise DigestLost(lost(repository, record.digest, "its record does not say its revision"))
        try:
            request = names.parse(repository, revision, self._words)
        except NameInvalid as error:
            raise DigestLost(lost(repository, record.digest, str(error))) from error
        return request and replace(request, digest=record.digest, blob=blob)

    async def _pinned(self, record: ImageRecord) -> str:
        """The revision of an image whose record is older than such records: that of its tag, or empty."""
        tags = await self._state.tags(record.repository)
        pinned = (tag.tag for tag in tags if tag.digest == record.digest and is_revision(tag.tag))
        return next(pinned, "")

    async def _holder(self, repository: str, blob: str) -> ImageRecord | None:
        """The newest image of ours in this repository that has this blob. A client has its manifest, so it is there."""
        for record in await self._state.newest_images(repository, _MOST_READ):
            if blob in await self._blobs_of(record):
                return record
        return None

    async def _blobs_of(self, record: ImageRecord) -> frozenset[str]:
        """The blobs that the manifest of this image names; none if the registry does not have the manifest.

        What a digest names never changes, so it is read once, and an index or a damaged manifest too.
        """
        if (blobs := self._blobs.get(record.digest)) is not None:
            return blobs
        place = (record.repository, record.digest)
        if place in self._refused:
            return frozenset()
        try:
            data = await self._registry.content(record.repository, "manifests", record.digest)
        except (RegistryRefused, DigestMismatch):
            self._refused[place] = None
            return frozenset()
        blobs = self._blobs[record.digest] = _blobs(data)
        return blobs


def _blobs(data: bytes) -> frozenset[str]:
    """The blobs of a manifest; none of an index, or of what is no manifest."""
    try:
        manifest = read_manifest(data)
    except DocumentInvalid:
        return frozenset()
    if not isinstance(manifest, ImageManifest):
        return frozenset()
    return frozenset(blob.digest for blob in (manifest.config, *manifest.layers))


def _weight(blobs: frozenset[str]) -> int:
    """What a manifest takes in memory: an index costs something too."""
    return 1 + len(blobs)
