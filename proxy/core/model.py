"""The values that travel from a request to an image. All frozen, all comparable, none does anything.

Quotes are from the OCI distribution and image specifications; remarks of ours stand in [brackets].
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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

#: What bytes may be held in on their way: taken as they are, never copied to have one kind.
Buffer = bytes | bytearray | memoryview


def canonical_json(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8. Every key and every digest starts here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of some bytes, 64 lowercase hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(data: bytes) -> str:
    """The digest of some bytes, as the registry writes it: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + sha256_hex(data)


def without_credentials(text: str) -> str:
    """The text with user names and passwords taken out of its URLs: what may be logged, labelled and answered."""
    return _USERINFO.sub("", text)


_USERINFO = re.compile(r"(?<=://)[^/@\s'\"]+@")


@dataclass(frozen=True, slots=True)
class Preset:
    """A meta-package: what its name at the front of a path stands for.

    `packages`: attributes, before those of the request. `command`, `system`: empty for "as without it". `user` is
    `UID:GID`; that user gets an entry in passwd and a home. `environment`: (name, value) pairs.
    """

    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    system: str = ""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a repository path and a tag ask for.

    `package_set`: its name, empty for the default one. `presets` are the meta-packages, by name, in their order;
    `preset` is all of them in one. `attributes` are as typed: first-named first, nothing twice. `image`: the name of a
    named image, as typed; then there is nothing else.
    """

    repository: str
    tag: str
    attributes: tuple[str, ...]
    package_set: str = ""
    presets: tuple[str, ...] = ()
    preset: Preset = Preset()
    image: str = ""

    @property
    def asked(self) -> tuple[str, ...]:
        """What was asked for, as a person wrote it, for messages."""
        return self.attributes or (f"image {self.image}",)


@dataclass(frozen=True, slots=True)
class PackageSet:
    """One fixed revision of a set of packages, ready to be imported by Nix.

    `expression`: absolute path of the file or folder to import; `arguments`: given to the function in it, where it
    takes them; `revision`: what makes it this one and no other; `created`: RFC 3339, never the clock;
    `nar_hash`: of the source tree (SRI), empty where there is none; `substitutes`: whether a binary cache may hold
    its packages; `import_from_derivation`: whether an evaluation may build.
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


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows beyond the usual, and what not; names as nixpkgs has them, `*` allows everything.

    `allow_unfree`, `deny_licenses`: licences (SPDX where there is one). `allow_insecure`: `name-version`.
    `allow_broken`: names. `deny_packages`, `only_packages`: attributes or names; the `only` ones are all that may be
    asked for, where they are given. `most_bytes`: of a closure, `most_layer_bytes`: of one layer, as NARs; 0 is no limit.
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
    """One resolved attribute: `outputs` are the (output name, store path) pairs to install, in order.

    `drv_path` is empty for a store path that is to be had as it is.
    """

    attribute: str
    name: str
    drv_path: str
    outputs: tuple[tuple[str, str], ...]
    main_program: str
    description: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class PathInfo:
    """A valid store path: its size as a NAR in bytes, and the store paths that it refers to (itself left out)."""

    path: str
    nar_size: int
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closure:
    """The requested packages, realised, and every store path that they need, sorted by path."""

    packages: tuple[Package, ...]
    paths: tuple[PathInfo, ...]


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The store paths of one layer, sorted. Two images that hold an equal plan share the layer."""

    paths: tuple[str, ...]


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
    """A layer that is in the registry: blob `digest` and `size` [compressed], and its DiffID.

    image-spec: "A layer DiffID is the digest over the layer's uncompressed tar archive".
    """

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image ready to be put: two documents, byte for byte, and their descriptors."""

    config: bytes
    config_descriptor: Descriptor
    manifest: bytes
    manifest_descriptor: Descriptor
