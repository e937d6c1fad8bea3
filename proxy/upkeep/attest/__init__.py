"""Reads the documents that are attached to an image: bills of materials and provenance, as the registry has them."""

import asyncio

import aiohttp

from proxy.core.errors import RegistryUnavailable, TagUnknown
from proxy.core.foreign import DocumentInvalid
from proxy.image.documents import Index
from proxy.pipeline.attachments import reading, referrers
from proxy.registry.client import Registry
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.no_answer import why
from proxy.trust.kinds import Kind
from proxy.upkeep.explain import child_of, manifest_of

_TRIES = 40
_PAUSE = 0.5  # seconds between two tries: the documents come some time after the image
_LARGEST = 256 << 20  # bytes of a document


async def attest(endpoint: OpenEndpoint, repository: str, reference: str, kind: Kind, platform: str) -> bytes:
    """The document of this kind about an image. `endpoint` may be a nixfront, which then builds an image that is not there.

    `platform` (`linux/amd64`) chooses one image of an index; the first one, if it is empty. Raises `TagUnknown` with the reason, and `RegistryUnavailable`.
    """
    name = f"{repository}:{reference}"
    registry = Registry(endpoint)
    try:
        digest = await _image(endpoint, repository, reference, platform)
        for _ in range(_TRIES):
            entries = await referrers.listed(registry, repository, digest)
            if (attached := await reading.find(registry, repository, digest, entries, kind)) is not None:
                return await reading.read(registry, repository, attached, _LARGEST)
            await asyncio.sleep(_PAUSE)
    except DocumentInvalid as error:
        raise TagUnknown(f"{name} has no documents that nixfront can read: {error}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RegistryUnavailable(f"cannot read {name} from {endpoint.url}: {why(error)}") from error
    raise TagUnknown(
        f"{name} has no document of the kind {kind.name}: nixfront attaches documents to an image when it makes it, "
        "where trust.attach is true"
    )


async def _image(endpoint: OpenEndpoint, repository: str, reference: str, platform: str) -> str:
    """The digest of the image that this reference names, directly or in an index."""
    manifest, digest = await manifest_of(endpoint, repository, reference)
    if isinstance(manifest, Index):
        return child_of(f"{repository}:{reference}", manifest, platform).digest
    return digest
