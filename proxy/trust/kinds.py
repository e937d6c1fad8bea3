"""The kinds of documents that an image has, and the artifact in a registry that holds one.

image-spec, "Guidelines for Artifact Usage": a manifest with `artifactType`, an empty configuration, and the document as its one
layer. `subject` names the image. Annotations are the same everywhere, so one image has one artifact of each kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.core import foreign
from proxy.core.foreign import DocumentInvalid, to_object
from proxy.core.model import OCI_MANIFEST, Descriptor, Image, canonical_json, digest_of

#: The annotation by which nixfront knows artifacts of its own; its value is the name of the kind.
OURS = "nixfront.document"
#: The configuration of each artifact.
EMPTY = b"{}"
_EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document: its name in commands, its media type, and the name of a file that holds it."""

    name: str
    media_type: str
    file: str


SPDX = Kind("spdx", "application/spdx+json", "sbom.spdx.json")
CYCLONEDX = Kind("cyclonedx", "application/vnd.cyclonedx+json", "sbom.cdx.json")
PROVENANCE = Kind("provenance", "application/vnd.in-toto+json", "provenance.intoto.json")
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (SPDX, CYCLONEDX, PROVENANCE)}


def artifact(kind: Kind, document: bytes, subject: Descriptor) -> Image:
    """The artifact that holds this document about the image `subject`."""
    config = Descriptor(_EMPTY_CONFIG, len(EMPTY), digest_of(EMPTY))
    layer = {**_json(Descriptor(kind.media_type, len(document), digest_of(document)))}
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind.media_type,
            "config": _json(config),
            "layers": [{**layer, "annotations": {_TITLE: kind.file}}],
            "subject": _json(subject),
            "annotations": _annotations(kind),
        }
    )
    return Image(EMPTY, config, manifest, Descriptor(OCI_MANIFEST, len(manifest), digest_of(manifest)))


def entry(kind: Kind, manifest: Descriptor) -> dict[str, Any]:
    """The descriptor of an artifact in the index of referrers."""
    return {**_json(manifest), "artifactType": kind.media_type, "annotations": _annotations(kind)}


def kind_of(annotations: Mapping[str, Any]) -> str:
    """The kind of an artifact of ours by its annotations; empty for one of somebody else."""
    name = annotations.get(OURS)
    return name if isinstance(name, str) and name in KINDS else ""


def is_document(manifest: bytes, image: str) -> bool:
    """Whether this manifest says of itself that it is a document of ours about the image with this digest."""
    try:
        document = to_object(foreign.parse(manifest), "the manifest")
        subject = to_object(document.get("subject"), "subject")
        kind = KINDS.get(kind_of(to_object(document.get("annotations"), "annotations")))
    except DocumentInvalid:
        return False
    return kind is not None and (document.get("artifactType"), subject.get("digest")) == (
        kind.media_type,
        image,
    )


def _annotations(kind: Kind) -> dict[str, str]:
    return {OURS: kind.name}


def _json(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "size": descriptor.size, "digest": descriptor.digest}
