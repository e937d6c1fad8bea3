"""Attaches documents to images of nixfront's that lack them: those that were made without, or whose documents are gone.

Only who makes an image knows the facts of its documents. So it is made again, and an image with another digest gets none.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import ImageRequest
from proxy.core.names import Vocabulary
from proxy.pipeline.attachments import referrers
from proxy.registry.client import Registry
from proxy.trust.kinds import KINDS
from proxy.upkeep.verify import read_images


@dataclass(frozen=True, slots=True)
class Attached:
    """An image or index that lacked documents. `error`: why it still does, else empty."""

    name: str
    digest: str
    error: str = ""


class Attacher:
    """Attaches documents to the images of one registry."""

    def __init__(
        self, registry: Registry, words: Vocabulary, make: Callable[[ImageRequest], Awaitable[None]]
    ) -> None:
        """`make` makes the image of a request again, and attaches its documents. It raises a `NixfrontError`."""
        self._registry = registry
        self._words = words
        self._make = make

    async def all(self, images: AsyncIterator[tuple[str, Sequence[str]]]) -> AsyncIterator[Attached]:
        """Each image of ours that lacks documents; the images come as repositories with their tags.

        Raises `RegistryUnavailable`.
        """
        async for repository, tags in images:
            seen: set[str] = set()
            for tag in tags:
                digest = await self._registry.manifest_digest(repository, tag)
                if digest is not None and digest not in seen:
                    seen.add(digest)
                    if (attached := await self._one(repository, tag, digest)) is not None:
                        yield attached

    async def _one(self, repository: str, tag: str, digest: str) -> Attached | None:
        """None for an image that lacks nothing, or is not ours."""

        async def read(kind: str, digest: str) -> bytes:
            return await self._registry.content(repository, kind, digest)

        attached = Attached(f"{repository}:{tag}", digest)
        try:
            stored = (await read_images(digest, read)).values()
            revision = next((image.revision for image in stored), "")
            request = names.parse(repository, revision, self._words) if revision else None
            if request is None or not await self._lacking(repository, [image.digest for image in stored]):
                return None
            await self._make(request)
            if await self._lacking(repository, [image.digest for image in stored]):
                return Attached(
                    attached.name, digest, "this host makes another image of the same revision now"
                )
        except (NixfrontError, DocumentInvalid) as error:
            return Attached(attached.name, digest, str(error))
        return attached

    async def _lacking(self, repository: str, digests: Sequence[str]) -> bool:
        """Whether one of these images lacks a document."""
        for digest in digests:
            there = referrers.ours(await referrers.listed(self._registry, repository, digest))
            if there.keys() != KINDS.keys():
                return True
        return False
