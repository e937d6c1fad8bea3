"""Reads the documents that are attached to an image: bills of materials and provenance, as the registry has them."""

import asyncio
from collections.abc import Iterable

import aiohttp

from proxy.core.errors import RegistryUnavailable, TagUnknown
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import digest_of
from proxy.image.documents import ImageManifest, Index, read_manifest
from proxy.pipeline.attachments import referrers
from proxy.pipeline.attachments.referrers import Entry
from proxy.registry.client import Registry
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import pull_scopes
from proxy.trust.kinds import Kind
from proxy.upkeep.explain import child_of, manifest_of

_TRIES = 40
_PAUSE = 0.5  # seconds between two tries: the documents come some time after the image
_LARGEST = 256 << 20  # bytes of a document
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)


async def attest(endpoint: OpenEndpoint, repository: str, reference: str, kind: Kind, platform: str) -> bytes:
    """The document of this kind about an image. `endpoint` may be a nixfront, which then builds an image that is not there.

    `platform` (`linux/amd64`) chooses one image of an index; the first one, if it is empty. Raises `TagUnknown` with the reason, and `RegistryUnavailable`.
    """
    name = f"{repository}:{reference}"
    registry = Registry(endpoint)
    try:
        digest = await _image(endpoint, repository, reference, platform)
        for _ in range(_TRIES):
            chosen = _choose(await referrers.listed(registry, repository, digest), kind)
            if chosen is not None:
                return await _document(endpoint, registry, repository, chosen)
            await asyncio.sleep(_PAUSE)
    except DocumentInvalid as error:
        raise TagUnknown(f"{name} has no documents that nixfront can read: {error}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RegistryUnavailable(f"cannot read {name} from {endpoint.url}: {error}") from error
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


def _choose(entries: Iterable[Entry], kind: Kind) -> str | None:
    """The digest of the artifact of this kind: one of nixfront if there is one, else that of somebody else."""
    fitting = [entry for entry in entries if entry.get("artifactType") == kind.media_type]
    chosen = referrers.ours(fitting).get(kind.name) or next(iter(fitting), None)
    return None if chosen is None else str(chosen["digest"])


async def _document(endpoint: OpenEndpoint, registry: Registry, repository: str, artifact: str) -> bytes:
    """The document that an artifact holds. Raises `DocumentInvalid`, and what aiohttp raises."""
    data = await registry.manifest(repository, artifact)
    if data is None:
        raise DocumentInvalid(f"the registry lacks the artifact {artifact}")
    manifest = read_manifest(data)
    if digest_of(data) != artifact or not isinstance(manifest, ImageManifest) or len(manifest.layers) != 1:
        raise DocumentInvalid(f"{artifact} is no artifact with one document")
    blob = manifest.layers[0]
    if blob.size > _LARGEST:
        raise DocumentInvalid(f"the document has {blob.size} bytes; nixfront reads {_LARGEST}")
    path = f"/v2/{repository}/blobs/{blob.digest}"
    async with endpoint.ask("GET", path, pull_scopes(repository), timeout=_TIMEOUT) as answer:
        answer.raise_for_status()
        document = bytearray()
        async for chunk in answer.content.iter_any():
            document += chunk
            if len(document) > blob.size:
                break
    if digest_of(bytes(document)) != blob.digest:
        raise DocumentInvalid(f"the registry sent other bytes than {blob.digest}")
    return bytes(document)
