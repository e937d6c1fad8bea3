"""Which artifact becomes a document of an image, of those that anybody may push."""

from typing import cast

import pytest

from proxy.core.foreign import DocumentInvalid
from proxy.core.model import OCI_MANIFEST, canonical_json, digest_of
from proxy.pipeline.attachments import reading
from proxy.registry.client import Registry
from proxy.trust.kinds import SPDX

IMAGE = "sha256:" + "1" * 64


class Pushed:
    """A registry that holds one artifact."""

    def __init__(self, artifact: bytes) -> None:
        self.entry = {"digest": digest_of(artifact), "artifactType": SPDX.media_type}
        self._artifact = artifact

    async def manifest(self, repository: str, reference: str) -> bytes | None:
        return self._artifact if reference == self.entry["digest"] else None


def artifact(subject: str, more: str = "") -> bytes:
    blob = {"mediaType": SPDX.media_type, "digest": "sha256:" + "2" * 64, "size": 2}
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": SPDX.media_type,
            "config": {**blob, "mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": [blob],
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 2},
            "annotations": {"more": more},
        }
    )


async def find(data: bytes) -> reading.Attached | None:
    pushed = Pushed(data)
    return await reading.find(cast(Registry, pushed), "hello", IMAGE, [pushed.entry], SPDX)


async def test_an_artifact_of_somebody_else_is_a_document_that_claims_nothing() -> None:
    attached = await find(artifact(IMAGE))

    assert attached is not None
    assert not attached.claims_ours


async def test_an_artifact_about_another_image_is_refused() -> None:
    with pytest.raises(DocumentInvalid, match="not about this image"):
        await find(artifact("sha256:" + "3" * 64))


async def test_a_large_artifact_is_not_even_parsed() -> None:
    with pytest.raises(DocumentInvalid, match="nixfront reads 65536"):
        await find(artifact(IMAGE, "x" * (64 << 10)))
