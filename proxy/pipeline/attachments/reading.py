"""Finds and reads the documents that are attached to an image, by nixfront or by somebody else.

A pusher may have put any of them there, with any annotation. So a document that says that it is ours is no more than that.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.core import foreign
from proxy.core.foreign import DocumentInvalid, to_object
from proxy.core.model import digest_of
from proxy.image.documents import Blob, ImageManifest, read_manifest
from proxy.pipeline.attachments import referrers
from proxy.pipeline.attachments.referrers import Entry
from proxy.registry.client import Registry
from proxy.trust.kinds import Kind, is_document

_LARGEST_ARTIFACT = 64 << 10  # bytes of a manifest, which has one layer


@dataclass(frozen=True, slots=True)
class Attached:
    """A document of an image. `claims_ours`: its artifact says that nixfront made it."""

    kind: Kind
    blob: Blob
    claims_ours: bool


async def find(
    registry: Registry, repository: str, image: str, entries: Iterable[Entry], kind: Kind
) -> Attached | None:
    """The document of this kind about the manifest `image`, which has these referrers; None if there is none.

    Raises `DocumentInvalid`, and what the registry raises.
    """
    artifact = _choose(entries, kind)
    if artifact is None:
        return None
    data = await registry.manifest(repository, artifact)
    if data is None:
        raise DocumentInvalid(f"the registry lacks the artifact {artifact}")
    if len(data) > _LARGEST_ARTIFACT:
        raise DocumentInvalid(
            f"the artifact {artifact} has {len(data)} bytes; nixfront reads {_LARGEST_ARTIFACT}"
        )
    return await asyncio.to_thread(_attached, data, artifact, image, kind)


def _attached(data: bytes, artifact: str, image: str, kind: Kind) -> Attached:
    manifest = read_manifest(data)
    if digest_of(data) != artifact or not isinstance(manifest, ImageManifest) or len(manifest.layers) != 1:
        raise DocumentInvalid(f"{artifact} is no artifact with one document")
    subject = to_object(to_object(foreign.parse(data), "the artifact").get("subject"), "subject")
    if subject.get("digest") != image:
        raise DocumentInvalid(f"the artifact {artifact} is not about this image")
    return Attached(kind, manifest.layers[0], is_document(data, image))


async def read(registry: Registry, repository: str, attached: Attached, most: int) -> bytes:
    """The bytes of a document. Raises `DocumentInvalid` if these are more than `most`, and what the registry raises."""
    blob = attached.blob
    if blob.size > most:
        raise DocumentInvalid(f"the document has {blob.size} bytes; nixfront reads {most}")
    return await registry.content(repository, "blobs", blob.digest, blob.size)


def _choose(entries: Iterable[Entry], kind: Kind) -> str | None:
    """The digest of the artifact of this kind: one of nixfront if there is one, else that of somebody else."""
    fitting = [entry for entry in entries if entry.get("artifactType") == kind.media_type]
    chosen = referrers.ours(fitting).get(kind.name) or next(iter(fitting), None)
    return None if chosen is None else str(chosen["digest"])
