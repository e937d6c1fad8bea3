"""Checks of the two documents of an image, manifest and config. Pure: bytes in, values out, AssertionError otherwise."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.core.model import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)

MOST_LAYERS = 100

#: Manifest type -> the type of its config, and the types that its layers may have.
FAMILIES: Mapping[str, tuple[str, frozenset[str]]] = {
    DOCKER_MANIFEST: (DOCKER_CONFIG, frozenset({DOCKER_LAYER, DOCKER_LAYER_GZIP})),
    OCI_MANIFEST: (OCI_CONFIG, frozenset({OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD})),
}
#: The layer types whose blob is a gzip stream; the others are plain archives.
GZIP_LAYERS = frozenset({DOCKER_LAYER_GZIP, OCI_LAYER_GZIP})


@dataclass(frozen=True, slots=True)
class Blob:
    """What a manifest says about a blob."""

    media_type: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that passed: the digest of its bytes, its type, and what it refers to."""

    digest: str
    media_type: str
    config: Blob
    layers: tuple[Blob, ...]


def check_manifest(document: bytes, content_type: str, content_digest: str) -> Manifest:
    """The manifest in these bytes; its type and digest agree with the headers that came with it."""
    digest = "sha256:" + hashlib.sha256(document).hexdigest()
    assert content_digest == digest, f"Docker-Content-Digest is {content_digest!r}, the bytes are {digest}"
    value = _object(document, "manifest")
    assert value.get("schemaVersion") == 2, f"schemaVersion is {value.get('schemaVersion')!r}, not 2"
    assert content_type in FAMILIES, f"Content-Type {content_type!r} is not that of an image manifest"
    media_type = value.get("mediaType", content_type)
    assert media_type == content_type, f"mediaType is {media_type!r}, Content-Type {content_type!r}"

    config_type, layer_types = FAMILIES[content_type]
    config = _blob(value.get("config"), "config")
    assert config.media_type == config_type, f"a {content_type} names a config of type {config.media_type!r}"
    listed = value.get("layers")
    assert isinstance(listed, list), "manifest has no list of layers"
    layers = tuple(_blob(entry, f"layer {number}") for number, entry in enumerate(listed))
    for number, layer in enumerate(layers):
        assert layer.media_type in layer_types, (
            f"layer {number} of a {content_type} is of type {layer.media_type!r}"
        )
    return Manifest(digest, content_type, config, layers)


def check_config(document: bytes, diff_ids: tuple[str, ...]) -> Mapping[str, Any]:
    """The config in these bytes; it names exactly these DiffIDs in this order."""
    value = _object(document, "config")
    for key in ("architecture", "os"):
        assert isinstance(value.get(key), str), f"config: {key} is {value.get(key)!r}"
        assert value[key], f"config: {key} is empty"
    rootfs = value.get("rootfs")
    assert isinstance(rootfs, dict), f"config: rootfs is {rootfs!r}"
    assert rootfs.get("type") == "layers", f"config: rootfs.type is {rootfs.get('type')!r}"
    claimed = tuple(rootfs.get("diff_ids") or ())
    assert len(claimed) == len(diff_ids), f"config: {len(claimed)} diff_ids for {len(diff_ids)} layers"
    for number, (claim, diff_id) in enumerate(zip(claimed, diff_ids, strict=True)):
        assert claim == diff_id, f"config: diff_id {number} is {claim}, the layer decompresses to {diff_id}"
    return value


def check_conventions(config: Mapping[str, Any], layers: int) -> None:
    """What holds for every image that nixfront makes, beyond the specification."""
    assert 1 <= layers <= MOST_LAYERS, f"{layers} layers, at most {MOST_LAYERS} are allowed"
    # Kubernetes reads the fields of `config` unasked, so null there is a crash.
    assert isinstance(config.get("config"), dict), (
        f"config: config is {config.get('config')!r}, not an object"
    )
    _check_time(config.get("created"), "created")
    history = [entry for entry in config.get("history") or () if not entry.get("empty_layer")]
    assert len(history) == layers, f"config: {len(history)} entries of history for {layers} layers"
    for number, entry in enumerate(history):
        for key in ("created", "created_by", "comment"):
            text = entry.get(key)
            assert isinstance(text, str), f"config: history {number}: {key} is {text!r}"
            assert text, f"config: history {number}: {key} is empty"
        _check_time(entry["created"], f"history {number}: created")


def _check_time(text: object, where: str) -> None:
    assert isinstance(text, str), f"config: {where} is {text!r}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise AssertionError(f"config: {where} is {text!r}, not a time") from None
    assert moment.tzinfo is not None, f"config: {where} is {text!r}, without a time zone"


def _object(document: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(document)
    except ValueError as error:
        raise AssertionError(f"{name} is not JSON: {error}") from None
    assert isinstance(value, dict), f"{name} is not a JSON object"
    return value


def _blob(value: object, where: str) -> Blob:
    assert isinstance(value, dict), f"{where} is {value!r}, not a descriptor"
    media_type, size, digest = (value.get(key) for key in ("mediaType", "size", "digest"))
    assert isinstance(media_type, str), f"{where}: mediaType is {media_type!r}"
    assert isinstance(size, int), f"{where}: size is {size!r}"
    assert isinstance(digest, str), f"{where}: digest is {digest!r}"
    return Blob(media_type, size, digest)
