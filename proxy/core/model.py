"""The values that travel from a request to an image: frozen, comparable, without behaviour.

Quotes are from the OCI distribution and image specifications, with our remarks in [brackets].
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

#: All types that a manifest can have. A registry answers 404 for a stored manifest whose type is not accepted.
EVERY_MANIFEST_TYPE = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))
SHORT_DIGITS = 12  #: of a hash in a short tag, which `core.names` reads

#: Any of the types that hold bytes on their way. Code that passes bytes on takes each of them without a copy.
Buffer = bytes | bytearray | memoryview


def revision_tag(revision: str) -> str:
    """The short tag of a revision."""
    return f"revision-{revision[:SHORT_DIGITS]}"


def contents_tag(outputs: str) -> str:
    """The short tag of a hash of outputs."""
    return f"contents-{outputs[:SHORT_DIGITS]}"


def canonical_json(value: object) -> bytes:
    """The canonical JSON of a value: sorted keys, no spaces, UTF-8. Keys and digests are hashes of such texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of some bytes, as 64 lowercase hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(data: bytes) -> str:
    """The digest of some bytes as registries write it: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + sha256_hex(data)


def without_credentials(text: str) -> str:
    """The text without the user names and passwords of its URLs, fit for logs, labels and responses."""
    return _USERINFO.sub("", text)


_USERINFO = re.compile(r"(?<=://)[^/@\s'\"]+@")


def accepts_every_manifest(lines: Iterable[str]) -> bool:
    """Whether these Accept lines name every type of `EVERY_MANIFEST_TYPE`, without a parameter such as `q`."""
    types = {kind.strip() for line in lines for kind in line.split(",")}
    return types.issuperset(EVERY_MANIFEST_TYPE.split(", "))


@dataclass(frozen=True, slots=True)
class Preset:
    """A meta-package: what its name at the front of a repository path stands for.

    `packages`: attributes that come before those of the request. `command`, `system`: empty to change nothing. `user` is
    `UID:GID`; that user gets an entry in passwd and a home. `environment`: (name, value) pairs.
    """

    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    system: str = ""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """The image that a repository path and a tag stand for.

    `first`: the first attribute that the client named, else of the meta-packages: the image has its version.
    `hints`: pairs of an attribute and what the client may have meant, if the package set has no such attribute.
    `package_set`: its name, empty for the default one. `presets`: the names of the meta-packages, in order;
    `preset` merges all of them. `attributes`: as the client wrote them, in order, without repetitions. `image`: the name of a
    named image as the client wrote it; then all else is empty.

    `digest`: of the manifest that the image has to have, for a client that asked by digest for one that the registry
    lost; `tag` is its revision then. `blob`: the digest of its blob that the registry lost, where it is that.
    """

    repository: str
    tag: str
    attributes: tuple[str, ...]
    package_set: str = ""
    presets: tuple[str, ...] = ()
    preset: Preset = Preset()
    image: str = ""
    first: str = ""
    hints: tuple[tuple[str, str], ...] = ()
    digest: str = ""
    blob: str = ""

    @property
    def reference(self) -> str:
        """What the client asked for in the repository: a tag or a digest."""
        return self.blob or self.digest or self.tag

    @property
    def key(self) -> str:
        """The repository and the tag or digest of the image, as people write both: all blobs of an image are one build."""
        return f"{self.repository}{'@' if self.digest else ':'}{self.digest or self.tag}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the request as the client wrote them, for messages."""
        return self.attributes or (f"image {self.image}",)


@dataclass(frozen=True, slots=True)
class PackageSet:
    """One fixed revision of a set of packages, ready for Nix to import.

    `expression`: absolute path of the file or folder to import. `arguments`: for the function in it, as far as it
    takes them. `revision`: identifies the source exactly. `created`: a date in RFC 3339 that never comes from the clock.
    `nar_hash`: of the source tree (SRI), or empty. `substitutes`: whether a binary cache may hold
    its packages. `import_from_derivation`: whether an evaluation may build. `listing`: the address of a channel's own list of
    its packages, or empty. `stand_ins`: absolute path of the expression that says what this host can build in place of the
    packages, or empty where Nix builds them itself (`nix.stand_ins`). `whole`: the revision of the set that a tag chose, where
    that for this system is another one.
    """

    name: str
    expression: str
    revision: str
    source: str
    created: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    nar_hash: str = ""
    substitutes: bool = True
    import_from_derivation: bool = False
    listing: str = ""
    stand_ins: str = ""
    whole: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows beyond nixpkgs' defaults, and what the operator forbids.

    Names are those of nixpkgs; `*` allows everything.

    `allow_unfree`, `deny_licenses`: licences (SPDX where there is one). `allow_insecure`: `name-version`.
    `allow_broken`: names. `deny_packages`, `only_packages`: attributes or names. An `only` list that is not empty forbids
    everything else. `most_bytes` limits a closure, `most_layer_bytes` one layer, both as NARs; 0 is no limit.
    """

    allow_unfree: tuple[str, ...] = ()
    allow_insecure: tuple[str, ...] = ()
    allow_broken: tuple[str, ...] = ()
    deny_packages: tuple[str, ...] = ()
    deny_licenses: tuple[str, ...] = ()
    only_packages: tuple[str, ...] = ()
    only_licenses: tuple[str, ...] = ()
    most_bytes: int = 0
    most_layer_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Package:
    """One resolved attribute. `outputs`: the (output name, store path) pairs to install, in order.

    `drv_path` is empty for a plain store path, which has no derivation. `license` joins the names in `licenses`.
    `vulnerabilities`: what the set knows of, and the policy of the operator let pass.
    """

    attribute: str
    name: str
    drv_path: str
    outputs: tuple[tuple[str, str], ...]
    main_program: str
    description: str = ""
    license: str = ""
    version: str = ""
    licenses: tuple[str, ...] = ()
    homepage: str = ""
    vulnerabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathInfo:
    """A valid store path: its size as a NAR in bytes, and the other store paths that it refers to."""

    path: str
    nar_size: int
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closure:
    """Realised packages, and every store path that they need, sorted by path."""

    packages: tuple[Package, ...]
    paths: tuple[PathInfo, ...]


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The store paths of one layer, sorted. Two images with an equal plan share the layer."""

    paths: tuple[str, ...]


class BlobStream(Protocol):
    """The bytes of a blob, to be read once with `async for`."""

    @property
    def digest(self) -> str:
        """The digest of the bytes. Raises `DigestNotReady` before the last byte was read."""

    def __aiter__(self) -> AsyncIterator[Buffer]:
        """The bytes in pieces of any length."""


@dataclass(frozen=True, slots=True)
class SmallBlob:
    """A blob that is in memory, as a stream of one piece."""

    data: bytes

    @property
    def digest(self) -> str:
        """The digest of the bytes."""
        return digest_of(self.data)

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        """The bytes, in one piece."""
        yield self.data


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob.

    image-spec: "a descriptor includes the type of the content, a content identifier (digest), and the byte-size
    of the raw content".
    """

    media_type: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in the registry: `digest` and `size` of its blob [compressed], and its DiffID.

    image-spec: "A layer DiffID is the digest over the layer's uncompressed tar archive".
    """

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, ready to be put: its bytes and its descriptor."""

    data: bytes
    descriptor: Descriptor

    @classmethod
    def of(cls, media_type: str, data: bytes) -> "Document":
        """The document of this type in these bytes."""
        return cls(data, Descriptor(media_type, len(data), digest_of(data)))


@dataclass(frozen=True, slots=True)
class Image:
    """An image ready for the registry: the bytes of its two documents, and their descriptors."""

    config: bytes
    config_descriptor: Descriptor
    manifest: bytes
    manifest_descriptor: Descriptor

    @property
    def document(self) -> Document:
        """Its manifest."""
        return Document(self.manifest, self.manifest_descriptor)
