"""How many bytes are attached to an image, and how few questions that costs a registry."""

import asyncio
from collections import Counter

from typing_extensions import override

from proxy.core.model import OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json, digest_of
from proxy.core.names import referrers_tag
from proxy.pipeline.destination import MemoryDestination
from proxy.trust import kinds
from proxy.trust.kinds import SPDX
from proxy.trust.signatures import signature_tag
from proxy.upkeep.attest.sizes import AttachedSizes
from tests.support.destinations import CONFIG, manifest

IMAGES = [manifest(f"image {number}") for number in range(6)]
DIGESTS = [digest_of(image) for image in IMAGES]


class Counting(MemoryDestination):
    """A registry in memory that counts what it is asked."""

    def __init__(self, *, lists_referrers: bool = False) -> None:
        super().__init__(lists_referrers=lists_referrers)
        self.asked: Counter[str] = Counter()

    @override
    async def referrers(self, repository: str, digest: str) -> bytes | None:
        self.asked["referrers"] += 1
        await asyncio.sleep(0)
        return await super().referrers(repository, digest)

    @override
    async def manifest(self, repository: str, reference: str) -> bytes | None:
        self.asked["manifest"] += 1
        return await super().manifest(repository, reference)


async def with_images(destination: Counting) -> None:
    await destination.put_blob("one", CONFIG)
    for image in IMAGES:
        await destination.put_manifest("one", digest_of(image), OCI_MANIFEST, image)


async def attach(destination: Counting, image: bytes, document: bytes) -> bytes:
    """The descriptor of an artifact about this image, which is in the registry now."""
    made = kinds.artifact(SPDX, document, Descriptor(OCI_MANIFEST, len(image), digest_of(image)))
    for blob in (document, made.config):
        await destination.put_blob("one", blob)
    await destination.put_manifest("one", made.manifest_descriptor.digest, OCI_MANIFEST, made.manifest)
    entry = kinds.entry(SPDX, made.manifest_descriptor)
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})


async def sizes(destination: Counting) -> list[dict[str, int]]:
    attached = AttachedSizes(destination, asyncio.Semaphore(8))
    tags = [*destination.tags("one")]
    return await asyncio.gather(*(attached.blobs("one", tags, [digest]) for digest in DIGESTS))


async def test_without_the_api_only_what_tags_name_is_asked_for() -> None:
    destination = Counting()
    await with_images(destination)
    listed = await attach(destination, IMAGES[0], b"a document")
    await destination.put_manifest("one", referrers_tag(DIGESTS[0]), OCI_INDEX, listed)
    # What cosign keeps: an image under a tag.
    await attach(destination, IMAGES[1], b"signatures")
    signatures = kinds.artifact(SPDX, b"signatures", Descriptor(OCI_MANIFEST, 1, DIGESTS[1]))
    await destination.put_manifest("one", signature_tag(DIGESTS[1]), OCI_MANIFEST, signatures.manifest)

    found = await sizes(destination)

    assert found == [{digest_of(b"a document"): 10}, {digest_of(b"signatures"): 10}, {}, {}, {}, {}]
    assert destination.asked == {"referrers": 1, "manifest": 3}


async def test_with_the_api_no_tag_is_needed() -> None:
    destination = Counting(lists_referrers=True)
    await with_images(destination)
    await attach(destination, IMAGES[0], b"a document")

    assert await sizes(destination) == [{digest_of(b"a document"): 10}, {}, {}, {}, {}, {}]
    assert destination.asked == {"referrers": len(IMAGES), "manifest": 1}


async def test_what_is_no_list_counts_nothing() -> None:
    destination = Counting()
    await with_images(destination)
    await destination.put_manifest("one", referrers_tag(DIGESTS[0]), OCI_MANIFEST, IMAGES[1])

    assert await sizes(destination) == [{}] * len(IMAGES)
