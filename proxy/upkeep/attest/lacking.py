"""Attaches documents to images of nixfront's that lack them: those that were made without, or whose documents are gone.

Only who makes an image knows the facts of its documents. So it is made again, and an image with another digest gets none.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import ImageRequest
from proxy.core.names import Vocabulary
from proxy.pipeline.attachments import referrers
from proxy.registry.client import Registry
from proxy.upkeep.stored_images import each_digest, stored_images


@dataclass(frozen=True, slots=True)
class Result:
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

    async def all(self, images: AsyncIterator[tuple[str, Sequence[str]]]) -> AsyncIterator[Result]:
        """Each image of ours that lacks documents; the images come as repositories with their tags.

        Raises `RegistryUnavailable`.
        """
        async for repository, tag, digest in each_digest(self._registry, images):
            if (result := await self._one(repository, tag, digest)) is not None:
                yield result

    async def _one(self, repository: str, tag: str, digest: str) -> Result | None:
        """None for an image that lacks nothing, or is not ours."""
        result = Result(f"{repository}:{tag}", digest)
        try:
            stored = (await stored_images(self._registry, repository, digest)).values()
            revision = next((image.revision for image in stored), "")
            request = names.parse(repository, revision, self._words) if revision else None
            if request is None or not await self._lacking(repository, [image.digest for image in stored]):
                return None
            await self._make(request)
            if await self._lacking(repository, [image.digest for image in stored]):
                return replace(result, error="this host makes another image of the same revision now")
        except (NixfrontError, DocumentInvalid) as error:
            return replace(result, error=str(error))
        return result

    async def _lacking(self, repository: str, digests: Sequence[str]) -> bool:
        """Whether one of these images lacks a document."""
        for digest in digests:
            if await referrers.lacking(self._registry, repository, digest):
                return True
        return False
