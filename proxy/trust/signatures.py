"""Signatures of images in cosign's form: "simple signing" by an ECDSA key on the curve P-256.

A payload names a repository and the digest of a manifest, and the signature is of the payload. Both are a layer of one more
manifest, which stands under the tag `sha256-<hex>.sig` beside the image. cosign, podman, skopeo and CRI-O look there.

Signatures are deterministic (RFC 6979): two machines with one key write the same bytes, so neither undoes the other's work.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.core import foreign
from proxy.core.errors import SettingsInvalid
from proxy.core.foreign import DocumentInvalid, to_list, to_object, to_text
from proxy.core.model import OCI_CONFIG, OCI_MANIFEST, Descriptor, Image, canonical_json, digest_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

#: The media type of a payload, and the annotation that holds its signature.
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
#: The annotation of a signature that nixfront made.
OURS = "nixfront.signature"
_MOST = 64  # signatures of one image
_NO_TIME = "0001-01-01T00:00:00Z"
_HOW = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE"


def signature_tag(digest: str) -> str:
    """The tag of the signatures of the manifest with this digest."""
    return f"{digest.replace(':', '-')}.sig"


def payload(image: str, digest: str) -> bytes:
    """What is signed: that the manifest with this digest is one of `image`, a repository with its host."""
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": image},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": {"creator": "nixfront"},
        }
    )


class SigningKey:
    """A private key."""

    def __init__(self, pem: bytes) -> None:
        """`pem`: a key on P-256 without a passphrase (PKCS 8 or SEC 1). Raises `SettingsInvalid`."""
        # An import of a twentieth of a second, for those who sign.
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            what = "a key of cosign's own form" if b"ENCRYPTED" in pem else "no private key in PEM"
            raise SettingsInvalid(
                f"trust.key: {what}; it has to be an ECDSA key on P-256 without a passphrase: {_HOW}"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SettingsInvalid(f"trust.key: the key is none of ECDSA on P-256: {_HOW}")
        self._key: EllipticCurvePrivateKey = key

    @property
    def public_pem(self) -> bytes:
        """The public key, for those who check signatures."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes) -> str:
        """The signature of these bytes, in base 64; the same each time."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return base64.b64encode(
            self._key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        ).decode()


@dataclass(frozen=True, slots=True)
class Signed:
    """A manifest of signatures that is to be put, and the payload that is new in it."""

    image: Image
    payload: bytes


class Signer:
    """Signs manifests of one host with one key."""

    def __init__(self, key: SigningKey, identity: str) -> None:
        """`identity`: the host, or host and path, that stands before a repository in what is signed."""
        self._key = key
        self._identity = identity

    @property
    def public_pem(self) -> bytes:
        """The public key, for those who check signatures."""
        return self._key.public_pem

    def add(self, repository: str, digest: str, there: bytes | None) -> Signed | None:
        """The signatures of the manifest with this digest; `there` is the manifest of those that it has, or None.

        None if ours is among them. Signatures of others stay. Raises `DocumentInvalid` for what is no manifest of signatures.
        """
        before = Signatures.read(there)
        data = payload(f"{self._identity}/{repository}", digest)
        signatures = before.added(data, self._key.sign(data))
        return None if signatures == before else Signed(signatures.image, data)


@dataclass(frozen=True, slots=True)
class Signatures:
    """The layers of a manifest of signatures, as their writers wrote them."""

    layers: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, manifest: bytes | None) -> "Signatures":
        """Those in this manifest; none where there is no manifest. Raises `DocumentInvalid`."""
        if manifest is None:
            return cls()
        document = to_object(foreign.parse(manifest), "the manifest of signatures")
        if to_text(document.get("mediaType"), "mediaType") != OCI_MANIFEST:
            raise DocumentInvalid("the signatures are no OCI manifest")
        layers = [to_object(item, "a signature") for item in to_list(document.get("layers"), "layers")]
        if len(layers) > _MOST:
            raise DocumentInvalid(f"the image has more than {_MOST} signatures")
        for layer in layers:
            to_object(layer.get("annotations"), "the annotations of a signature")
            if not to_text(layer.get("digest"), "digest"):
                raise DocumentInvalid("a signature has no digest")
        return cls(tuple(layers))

    @property
    def are_ours_alone(self) -> bool:
        """Whether nixfront made all of them, and there is one."""
        return bool(self.layers) and all(OURS in (layer.get("annotations") or {}) for layer in self.layers)

    def added(self, data: bytes, signature: str) -> "Signatures":
        """These and one more; just these if it is among them."""
        for layer in self.layers:
            there = (layer.get("annotations") or {}).get(SIGNATURE)
            if layer["digest"] == digest_of(data) and there == signature:
                return self
        annotations = {SIGNATURE: signature, OURS: ""}
        layer = {
            "mediaType": PAYLOAD,
            "size": len(data),
            "digest": digest_of(data),
            "annotations": annotations,
        }
        return Signatures((*self.layers, layer))

    @property
    def image(self) -> Image:
        """The manifest that holds them, with the configuration that cosign writes."""
        config = canonical_json(
            {
                "architecture": "",
                "config": {},
                "created": _NO_TIME,
                "history": [{"created": _NO_TIME} for _ in self.layers],
                "os": "",
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in self.layers]},
            }
        )
        descriptor = Descriptor(OCI_CONFIG, len(config), digest_of(config))
        manifest = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": descriptor.media_type,
                    "size": descriptor.size,
                    "digest": descriptor.digest,
                },
                "layers": list(self.layers),
            }
        )
        return Image(
            config, descriptor, manifest, Descriptor(OCI_MANIFEST, len(manifest), digest_of(manifest))
        )
