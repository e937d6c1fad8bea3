"""Signatures in cosign's form: what is signed, by which key, and what stands beside signatures of others."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from proxy.core.errors import SettingsInvalid
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import canonical_json, digest_of
from proxy.trust.signatures import PAYLOAD, SIGNATURE, Signatures, Signer, SigningKey, signature_tag

KEY = ec.derive_private_key(7, ec.SECP256R1())
DIGEST = digest_of(b"an image")
THEIRS = {"mediaType": PAYLOAD, "size": 1, "digest": digest_of(b"theirs"), "annotations": {SIGNATURE: "AAAA"}}


def pem(key: Any = KEY, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> bytes:
    made: bytes = key.private_bytes(
        Encoding.PEM, form, BestAvailableEncryption(password) if password else NoEncryption()
    )
    return made


def signer(data: bytes | None = None) -> Signer:
    return Signer(SigningKey(data or pem()), "images.example.org")


def test_the_signature_is_of_the_payload_and_by_the_public_key() -> None:
    signed = signer().add("shell/git", DIGEST, None)

    assert signed is not None
    assert json.loads(signed.payload) == {
        "critical": {
            "identity": {"docker-reference": "images.example.org/shell/git"},
            "image": {"docker-manifest-digest": DIGEST},
            "type": "cosign container image signature",
        },
        "optional": {"creator": "nixfront"},
    }
    (layer,) = json.loads(signed.image.manifest)["layers"]
    assert (layer["digest"], layer["size"]) == (digest_of(signed.payload), len(signed.payload))
    public = load_pem_public_key(signer().public_pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    signature = base64.b64decode(layer["annotations"][SIGNATURE])
    public.verify(signature, signed.payload, ec.ECDSA(hashes.SHA256()))
    assert json.loads(signed.image.config)["rootfs"]["diff_ids"] == [layer["digest"]]


def test_two_machines_with_one_key_write_the_same_bytes() -> None:
    one, two = (
        signer().add("git", DIGEST, None),
        signer(pem(form=PrivateFormat.TraditionalOpenSSL)).add("git", DIGEST, None),
    )

    assert one == two


def test_a_signature_is_added_once_and_those_of_others_stay() -> None:
    theirs = Signatures((THEIRS,))
    assert not theirs.are_ours_alone

    both = signer().add("git", DIGEST, theirs.image.manifest)
    assert both is not None
    layers = json.loads(both.image.manifest)["layers"]
    assert layers[0] == THEIRS
    assert len(layers) == 2
    assert signer().add("git", DIGEST, both.image.manifest) is None
    only = signer().add("git", DIGEST, None)
    assert only is not None
    assert Signatures.read(only.image.manifest).are_ours_alone

    other = signer(pem(ec.derive_private_key(8, ec.SECP256R1()))).add("git", DIGEST, only.image.manifest)
    assert other is not None
    assert len(json.loads(other.image.manifest)["layers"]) == 2, "another key, another signature"


@pytest.mark.parametrize(
    "manifest",
    [
        b"no JSON",
        b"[]",
        canonical_json({"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}),
        Signatures((THEIRS,) * 65).image.manifest,
        Signatures(({**THEIRS, "annotations": 7},)).image.manifest,
    ],
)
def test_what_is_no_manifest_of_signatures_is_refused(manifest: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        signer().add("git", DIGEST, manifest)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no private key"),
        (pem(password=b"secret"), "without a passphrase"),
        (pem(ec.derive_private_key(7, ec.SECP384R1())), "none of ECDSA on P-256"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "none of ECDSA on P-256"),
        (
            b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
            "cosign",
        ),
    ],
)
def test_a_key_of_another_kind_is_a_wrong_setting(data: bytes, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        SigningKey(data)


def test_the_tag_is_where_cosign_looks() -> None:
    assert signature_tag("sha256:" + "0" * 64) == "sha256-" + "0" * 64 + ".sig"
