"""Who signed an image, as its page says it: from the signatures themselves, which anybody may have pushed."""

from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typing_extensions import override

from proxy.core.errors import RegistryUnavailable
from proxy.core.model import OCI_INDEX, OCI_MANIFEST, canonical_json, digest_of
from proxy.pipeline.destination import MemoryDestination
from proxy.registry.client import Registry
from proxy.trust.signatures import Signer, SigningKey, signature_tag
from proxy.web.page.documents import Documents
from proxy.web.page.documents.section import Signed
from tests.support.destinations import CONFIG, manifest

IMAGE = digest_of(manifest("an image"))
NO_LIST = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


def signer(number: int) -> Signer:
    key = ec.derive_private_key(number, ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Signer(SigningKey(pem), "images.example.org")


OURS, THEIRS = signer(7), signer(8)


def signatures(*signers: Signer) -> bytes:
    """The manifest of the signatures by these."""
    there: bytes | None = None
    for each in signers:
        if (signed := each.add("one", IMAGE, there)) is not None:
            there = signed.image.manifest
    assert there is not None
    return there


class Holding(MemoryDestination):
    """A registry that has this manifest under the tag of signatures."""

    def __init__(self, there: bytes | None) -> None:
        super().__init__()
        self._there = there

    @override
    async def manifest(self, repository: str, reference: str) -> bytes | None:
        return self._there if reference == signature_tag(IMAGE) else None


@pytest.mark.parametrize(
    ("there", "by", "says"),
    [
        (None, OURS, Signed.NO),
        (None, None, Signed.NO),
        (signatures(OURS), OURS, Signed.BY_US),
        (signatures(THEIRS, OURS), OURS, Signed.BY_US),
        (signatures(THEIRS), OURS, Signed.BY_OTHERS),
        (signatures(OURS), THEIRS, Signed.BY_OTHERS),  # the key is another one now
        (signatures(OURS), None, Signed.BY_OTHERS),  # this host has no key
        (canonical_json({"mediaType": OCI_MANIFEST, "layers": []}), OURS, Signed.NO),
        (canonical_json(NO_LIST), OURS, Signed.BROKEN),
        (canonical_json(NO_LIST), None, Signed.BROKEN),
        (b"no JSON", OURS, Signed.BROKEN),
    ],
)
async def test_the_signature_decides_and_not_who_claims_it(
    there: bytes | None, by: Signer | None, says: Signed
) -> None:
    documents = Documents(cast(Registry, Holding(there)), by)

    section = await documents.section("one", IMAGE)

    assert (section.signed, section.troubles) == (says, ())


async def test_a_signature_of_another_image_is_none_of_ours() -> None:
    """Somebody copied the signatures of one image to the tag of another."""
    other = OURS.add("one", digest_of(CONFIG), None)
    assert other is not None

    section = await Documents(cast(Registry, Holding(other.image.manifest)), OURS).section("one", IMAGE)

    assert section.signed is Signed.BY_OTHERS


async def test_a_registry_that_is_away_leaves_it_open() -> None:
    class Away(MemoryDestination):
        @override
        async def manifest(self, repository: str, reference: str) -> bytes | None:
            raise RegistryUnavailable("the registry is away")

    section = await Documents(cast(Registry, Away()), OURS).section("one", IMAGE)

    assert (section.signed, section.troubles) == (Signed.UNCLEAR, ("the registry is away",))
