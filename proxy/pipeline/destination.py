"""Where an image goes: what the pipeline needs of a registry, or of anything else that can hold an image.

Three things are one: `registry.client.Registry`, a folder (`oci_layout.OciLayout`), and memory, for tests.
A blob is put before the manifest that names it; the manifest makes an image of its blobs.
"""

import json
from collections import defaultdict
from collections.abc import Container, Mapping
from typing import Protocol

from proxy.core.errors import DigestMismatch, RegistryRefused
from proxy.core.model import OCI_INDEX, BlobStream, SmallBlob, canonical_json, digest_of


class Destination(Protocol):
    """A holder of images, by repository. Each method may raise a `NixfrontError`."""

    async def has_blob(self, repository: str, digest: str, /) -> bool:
        """Whether the repository has this blob."""

    async def mount(self, repository: str, digest: str, origin: str, /) -> bool:
        """Give the repository a blob that the repository `origin` has; False if that cannot be."""

    async def upload(self, repository: str, stream: BlobStream, /) -> None:
        """Read a blob to its end and keep it. Raises `DigestMismatch` if other bytes arrived than were sent."""

    async def put_blob(self, repository: str, data: bytes, /) -> None:
        """Keep a small blob."""

    async def manifest_digest(self, repository: str, reference: str, /) -> str | None:
        """The digest of the manifest that `reference` names, whatever its media type; None if it names none."""

    async def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes, /) -> bool:
        """Make the reference name this manifest. Returns whether `referrers` lists it by its subject."""

    async def referrers(self, repository: str, digest: str, /) -> bytes | None:
        """The index of the manifests whose subject has this digest; None where nobody keeps such an index."""

    async def manifest(self, repository: str, reference: str, /) -> bytes | None:
        """The bytes of the manifest that `reference` names, whatever its media type; None if it names none."""


class MemoryDestination:
    """A destination in memory, with a registry's rules; the methods are described in `Destination`.

    As in a registry, blobs belong to one repository. A manifest is refused while the repository lacks a blob that it names,
    and an index while it lacks a manifest. Both have a digest and may have tags. `mounts` says whether blobs can be mounted.
    `lists_referrers`: whether it has the API of referrers.
    """

    def __init__(self, *, mounts: bool = True, lists_referrers: bool = False) -> None:
        self._mounts = mounts
        self._lists_referrers = lists_referrers
        self._blobs: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self._manifests: defaultdict[str, dict[str, tuple[str, bytes]]] = defaultdict(dict)
        self._tags: defaultdict[str, dict[str, str]] = defaultdict(dict)

    async def has_blob(self, repository: str, digest: str) -> bool:
        return digest in self._blobs[repository]

    async def mount(self, repository: str, digest: str, origin: str) -> bool:
        if not self._mounts or digest not in self._blobs[origin]:
            return False
        self._blobs[repository][digest] = self._blobs[origin][digest]
        return True

    async def upload(self, repository: str, stream: BlobStream) -> None:
        data = b"".join([bytes(piece) async for piece in stream])
        if digest_of(data) != stream.digest:
            raise DigestMismatch(f"{digest_of(data)} arrived where {stream.digest} was sent")
        self._blobs[repository][stream.digest] = data

    async def put_blob(self, repository: str, data: bytes) -> None:
        await self.upload(repository, SmallBlob(data))

    async def manifest_digest(self, repository: str, reference: str) -> str | None:
        digest = self._tags[repository].get(reference, reference)
        return digest if digest in self._manifests[repository] else None

    async def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> bool:
        digest = digest_of(data)
        document = json.loads(data)
        is_index = "manifests" in document
        parts = document["manifests"] if is_index else (document["config"], *document["layers"])
        present: Container[str] = (self._manifests if is_index else self._blobs)[repository]
        missing = [part["digest"] for part in parts if part["digest"] not in present]
        wrong = [digest] if ":" in reference and reference != digest else []
        if missing or wrong:
            path = f"/v2/{repository}/manifests/{reference}"
            code = "MANIFEST_BLOB_UNKNOWN" if missing else "DIGEST_INVALID"
            raise RegistryRefused(
                "PUT", path, 400 if wrong else 404, f"{code}: {', '.join(missing or wrong)}"
            )
        self._manifests[repository][digest] = (media_type, data)
        if ":" not in reference:
            self._tags[repository][reference] = digest
        return self._lists_referrers and "subject" in document

    async def referrers(self, repository: str, digest: str) -> bytes | None:
        if not self._lists_referrers:
            return None
        manifests = []
        for own, (media_type, data) in self._manifests[repository].items():
            document = json.loads(data)
            if document.get("subject", {}).get("digest") == digest:
                kept = {name: document[name] for name in ("artifactType", "annotations") if name in document}
                manifests.append({"mediaType": media_type, "digest": own, "size": len(data), **kept})
        return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})

    async def manifest(self, repository: str, reference: str) -> bytes | None:
        digest = await self.manifest_digest(repository, reference)
        return None if digest is None else self._manifests[repository][digest][1]

    def delete_blob(self, repository: str, digest: str) -> None:
        """Forget a blob, as a registry's keeper may do."""
        del self._blobs[repository][digest]

    def blobs(self, repository: str) -> Mapping[str, bytes]:
        """The blobs of a repository by digest."""
        return self._blobs[repository]

    def tags(self, repository: str) -> Mapping[str, str]:
        """The digest that each tag of a repository names."""
        return self._tags[repository]
