"""Manifests, indexes and configurations that strangers pushed, as checked values.

The registry takes any JSON from whoever may push. So each reader of such a document reads it here and nowhere else: the page,
`explain`, `popularity`, `prune` and `reindex`. A wrong document is a `DocumentInvalid`, and the failure of one image alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from proxy.core import foreign
from proxy.core.foreign import DocumentInvalid, to_list, to_object, to_size, to_text
from proxy.core.model import DOCKER_LIST, OCI_INDEX
from proxy.core.platforms import MISSING, Platform

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
#: The media types of an index.
INDEX_TYPES = frozenset({DOCKER_LIST, OCI_INDEX})
_MOST_LAYERS = 4096
_MOST_CHILDREN = 4096
_MOST_HISTORY = 16384
_MOST_PLATFORMS = 32
_LONGEST_REASON = 400
_MOST_LABELS = 4096
# Go reads `Layers` as `layers`. Such a document says one thing to the registry and another to us.
_WORDS = frozenset({"mediaType", "config", "layers", "manifests", "digest", "size"})
_WORD_OF = {word.lower(): word for word in _WORDS}


@dataclass(frozen=True, slots=True)
class Blob:
    """A descriptor: digest, bytes, media type."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """The manifest of one image: its configuration, and its layers, lowest first."""

    media_type: str
    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """A manifest that an index names; `is_index` by its media type. `platform` is `os/architecture` or longer by a variant."""

    digest: str
    is_index: bool
    platform: str
    size: int = 0
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """A manifest that names other manifests. `missing`: the platforms that an index of ours lacks, each with the reason."""

    media_type: str
    children: tuple[Child, ...]
    missing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OtherManifest:
    """A manifest of something else, such as schema 1."""

    media_type: str


Manifest: TypeAlias = ImageManifest | Index | OtherManifest


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the history: its comment, and the command that created the layer."""

    comment: str
    command: str


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A configuration. `steps` are those of the history that made a layer.

    `run` holds what image-spec calls the execution parameters (`Entrypoint`, `Cmd`, `User`, ...), without labels. Its
    values are any JSON, of bounded depth. `platform` is as that of `Child`, or empty.
    """

    created: str
    labels: Mapping[str, str]
    steps: tuple[Step, ...]
    diff_ids: tuple[str, ...]
    run: Mapping[str, Any]
    platform: str = ""


def read_manifest(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises `DocumentInvalid`."""
    document = _spelled(to_object(foreign.parse(data), "the manifest"), "the manifest")
    media_type = to_text(document.get("mediaType"), "mediaType")
    if "manifests" in document or media_type in INDEX_TYPES:
        children = _at_most(_MOST_CHILDREN, to_list(document.get("manifests"), "manifests"), "manifests")
        return Index(media_type, tuple(map(_child, children)), _missing(document.get("annotations")))
    if "layers" not in document:
        return OtherManifest(media_type)
    layers = _at_most(_MOST_LAYERS, to_list(document["layers"], "layers"), "layers")
    return ImageManifest(
        media_type,
        _blob(document.get("config"), "config"),
        tuple(_blob(layer, "a layer") for layer in layers),
    )


def read_config(data: bytes) -> ImageConfig:
    """The configuration in these bytes. Raises `DocumentInvalid`."""
    document = to_object(foreign.parse(data), "the configuration")
    run = dict(to_object(document.get("config"), "config"))
    labels = to_object(run.pop("Labels", None), "Labels")
    if len(labels) > _MOST_LABELS:
        raise DocumentInvalid(f"there are more than {_MOST_LABELS} labels")
    history = _at_most(_MOST_HISTORY, to_list(document.get("history"), "history"), "history")
    steps = [to_object(step, "a step of history") for step in history]
    root = to_object(document.get("rootfs"), "rootfs")
    diff_ids = _at_most(_MOST_LAYERS, to_list(root.get("diff_ids"), "diff_ids"), "diff_ids")
    return ImageConfig(
        created=to_text(document.get("created"), "created"),
        labels={name: to_text(value, f"label {name[:60]!r}") for name, value in labels.items()},
        steps=tuple(_step(step) for step in steps if not step.get("empty_layer")),
        diff_ids=tuple(_digest(value, "a DiffID") for value in diff_ids),
        run=run,
        platform=_platform(document),
    )


def _platform(document: Mapping[str, Any]) -> str:
    names = [to_text(document.get(key), key) for key in ("os", "architecture", "variant")]
    return Platform(*names).name if all(names[:2]) else "".join(names[:2])


def _step(value: Mapping[str, Any]) -> Step:
    return Step(
        to_text(value.get("comment"), "a comment of history"),
        to_text(value.get("created_by"), "created_by of history"),
    )


def _child(value: Any) -> Child:
    descriptor = _spelled(to_object(value, "a manifest of the index"), "a manifest of the index")
    media_type = to_text(descriptor.get("mediaType"), "mediaType")
    platform = to_object(descriptor.get("platform"), "platform")
    names = [to_text(platform.get(key), key) for key in ("os", "architecture", "variant")]
    digest = _digest(descriptor.get("digest"), "a manifest of the index")
    size = to_size(descriptor.get("size", 0), "the size of a manifest of the index")
    name = Platform(names[0] or "?", names[1] or "?", names[2]).name
    return Child(digest, media_type in INDEX_TYPES, name, size, media_type)


def _missing(annotations: Any) -> tuple[tuple[str, str], ...]:
    """The reasons by platform in our annotation; none where a stranger wrote something else there."""
    try:
        reasons = foreign.parse(to_text(to_object(annotations, "annotations").get(MISSING), MISSING).encode())
        pairs = sorted(to_object(reasons, MISSING).items())[:_MOST_PLATFORMS]
        return tuple((name[:_LONGEST_REASON], to_text(text, name)[:_LONGEST_REASON]) for name, text in pairs)
    except ValueError:
        return ()


def _blob(value: Any, place: str) -> Blob:
    descriptor = _spelled(to_object(value, place), place)
    return Blob(
        _digest(descriptor.get("digest"), place),
        to_size(descriptor.get("size"), f"the size of {place}"),
        to_text(descriptor.get("mediaType"), "mediaType"),
    )


def is_digest(value: object) -> bool:
    """Whether this is a digest as registries have them."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _digest(value: Any, place: str) -> str:
    text = to_text(value, place)
    if not is_digest(text):
        raise DocumentInvalid(f"{place} has no digest: {text[:80]!r}")
    return text


def _spelled(value: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    for name in value:
        if name not in _WORDS and name.lower() in _WORD_OF:
            raise DocumentInvalid(f"{place} spells {_WORD_OF[name.lower()]} as {name[:60]!r}")
    return value


def _at_most(most: int, values: list[Any], place: str) -> list[Any]:
    if len(values) > most:
        raise DocumentInvalid(f"{place} has {len(values)} entries, and nixfront reads {most}")
    return values
