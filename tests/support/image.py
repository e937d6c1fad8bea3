"""The values of the validator: an image as it was fetched, and what is known of it once it was checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["directory", "file", "symlink"]


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """An image as it came over the wire; `layers` are files that hold the blobs, lowest first.

    `content_digest` is the header `Docker-Content-Digest` of the answer that held the manifest.
    """

    manifest: bytes
    content_type: str
    content_digest: str
    config: bytes
    layers: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a layer's archive. `path` is the name in the archive, `mode` the 12 permission bits; UID and GID."""

    path: str
    kind: Kind
    mode: int
    size: int
    target: str
    layer: int
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class ValidatedLayer:
    """A layer whose digest, size (bytes, as stored) and DiffID were computed here, not read from a document."""

    digest: str
    size: int
    diff_id: str
    media_type: str


@dataclass(frozen=True, slots=True)
class ValidatedImage:
    """An image that passed; `files` holds every path of it, the uppermost layer winning.

    `documents`: the digests of what nixfront attached to it, by kind. They come after the image, so they are no part of it.
    """

    digest: str
    media_type: str
    config: Mapping[str, object]
    layers: tuple[ValidatedLayer, ...]
    files: Mapping[str, Member]
    documents: Mapping[str, str] = field(default_factory=dict, compare=False)
