"""How large the blobs are that are attached to images: documents, signatures, and what others attached.

A registry without the API of referrers names all of it by tags. So there, an image to which nothing is attached costs no question.
"""

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from itertools import islice

from proxy.core.errors import RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.names import referrers_tag
from proxy.image.documents import ImageManifest, Index, Manifest, read_manifest
from proxy.pipeline.destination import Destination

_MOST_ARTIFACTS = 64  # of one image that are read


class AttachedSizes:
    """Reads what is attached to the images of one destination."""

    def __init__(self, destination: Destination, slots: asyncio.Semaphore) -> None:
        """`slots` bounds how many questions wait at a time."""
        self._destination = destination
        self._slots = slots
        self._first = asyncio.Lock()
        self._has_api: bool | None = None

    async def blobs(self, repository: str, tags: Collection[str], digests: Iterable[str]) -> dict[str, int]:
        """The size of each blob that is attached to one of these manifests, by digest; `tags` are all of the repository.

        What nixfront cannot read counts nothing. Raises `RegistryUnavailable`.
        """
        names = await asyncio.gather(*(self._artifacts(repository, tags, digest) for digest in digests))
        artifacts = sorted(set[str]().union(*names))
        manifests = await asyncio.gather(*(self._manifest(repository, name) for name in artifacts))
        return {
            layer.digest: layer.size
            for manifest in manifests
            if isinstance(manifest, ImageManifest)
            for layer in manifest.layers
        }

    async def _artifacts(self, repository: str, tags: Collection[str], digest: str) -> set[str]:
        """Digests of what refers to this manifest, and the tags under which cosign keeps the like."""
        tag = referrers_tag(digest)
        lists = [await self._referrers(repository, digest)]
        if tag in tags:
            lists.append(await self._manifest(repository, tag))
        references = {child.digest for each in lists if isinstance(each, Index) for child in each.children}
        references.update(each for each in tags if each.startswith(f"{tag}."))
        return set(islice(sorted(references), _MOST_ARTIFACTS))

    async def _referrers(self, repository: str, digest: str) -> Manifest | None:
        """The list that the registry keeps by itself. nixfront asks one that has none only once."""
        if self._has_api is None:
            async with self._first:
                if self._has_api is None:
                    listed = await self._read(self._destination.referrers(repository, digest))
                    self._has_api = listed is not None
                    return listed
        return await self._read(self._destination.referrers(repository, digest)) if self._has_api else None

    async def _manifest(self, repository: str, reference: str) -> Manifest | None:
        return await self._read(self._destination.manifest(repository, reference))

    async def _read(self, question: Awaitable[bytes | None]) -> Manifest | None:
        """The manifest that the registry answers; None where there is none, or one that nixfront cannot read."""
        try:
            async with self._slots:
                data = await question
            return None if data is None else await asyncio.to_thread(read_manifest, data)
        except (DocumentInvalid, RegistryRefused):
            return None
