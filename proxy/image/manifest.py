"""Layers and facts about the packages -> config and manifest, byte for byte. Nothing is sorted or guessed here.

`layering` decides the order of layers, `pipeline.publish` computes their digests. JSON has sorted keys and no spaces, so
equal input gives equal digests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.core import foreign, platforms
from proxy.core.model import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    Document,
    Image,
    Layer,
    canonical_json,
    digest_of,
    sha256_hex,
)

#: The label that `sealed` adds.
SEAL = "nixfront.seal"

Format = Literal["docker", "oci"]
Compression = Literal["gzip", "zstd", "none"]

_LAYER_TYPES = {
    ("docker", "gzip"): DOCKER_LAYER_GZIP,
    ("docker", "none"): DOCKER_LAYER,
    ("oci", "gzip"): OCI_LAYER_GZIP,
    ("oci", "zstd"): OCI_LAYER_ZSTD,  # Docker's own types have none
    ("oci", "none"): OCI_LAYER,
}


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """The contents of the config beside its layers. `system` is Nix's (`x86_64-linux`), `created` is RFC 3339.

    `user` is `UID:GID` or a name, `directory` is where the command starts; if empty, root and `/`. `ports`: `80/tcp`.
    """

    system: str
    created: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    directory: str = ""
    environment: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()


def assemble(
    facts: ConfigFacts,
    layers: Sequence[Layer],
    comments: Sequence[str],
    *,
    form: Format,
    compression: Compression,
) -> Image:
    """The image of these layers, lowest first; `comments` has one line of history for each.

    image-spec: `diff_ids` is "an array of layer content hashes (DiffIDs), in order from first to last", and
    history that is not `empty_layer` [has one entry for each of them, or registry pages break].
    """
    run: dict[str, object] = {"Env": list(facts.environment), "Labels": dict(facts.labels)}
    if facts.command:
        run["Cmd"] = list(facts.command)
    if facts.entrypoint:
        run["Entrypoint"] = list(facts.entrypoint)
    if facts.ports:  # [an object whose values are empty objects: that is how Go writes a set]
        run["ExposedPorts"] = {port: {} for port in facts.ports}
    if facts.user:
        run["User"] = facts.user
    if facts.directory:
        run["WorkingDir"] = facts.directory
    config_value: dict[str, object] = {
        **platforms.of_system(facts.system).fields,
        "config": run,  # [never null: Kubernetes reads its fields without a check]
        "created": facts.created,
        "history": [
            {"created": facts.created, "created_by": "nixfront", "comment": comment}
            for _, comment in zip(layers, comments, strict=True)
        ],
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    config = sealed(config_value)

    docker = form == "docker"
    config_descriptor = Descriptor(
        DOCKER_CONFIG if docker else OCI_CONFIG, size=len(config), digest=digest_of(config)
    )
    layer_type = _LAYER_TYPES[form, compression]
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _json(config_descriptor),
            "layers": [_json(Descriptor(layer_type, layer.size, layer.digest)) for layer in layers],
        }
    )
    return Image(
        config=config,
        config_descriptor=config_descriptor,
        manifest=manifest,
        manifest_descriptor=Descriptor(media_type, len(manifest), digest_of(manifest)),
    )


def assemble_index(
    children: Sequence[tuple[str, Descriptor]], missing: Mapping[str, str], *, form: Format
) -> Document:
    """The index of these manifests, each with its Nix system, in their order.

    `missing`: the reason for each platform that the index lacks.
    """
    media_type = DOCKER_LIST if form == "docker" else OCI_INDEX
    value: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [
            {**_json(descriptor), "platform": platforms.of_system(system).fields}
            for system, descriptor in children
        ],
    }
    if missing:  # [a Docker list has no annotations, and its readers skip what they do not know]
        value["annotations"] = {platforms.MISSING: canonical_json(dict(missing)).decode()}
    return Document.of(media_type, canonical_json(value))


def sealed(config: Mapping[str, Any]) -> bytes:
    """The config with a label that is a hash of all the rest: an image that is built on this one, or a change, breaks the seal.

    The seal proves no more than that: anybody who can compute a hash can seal a config.
    """
    run = config["config"]
    labels = {**run["Labels"], SEAL: sha256_hex(canonical_json(config))}
    return canonical_json({**config, "config": {**run, "Labels": labels}})


def unsealed(config: bytes) -> dict[str, Any] | None:
    """The config without its seal; None if the config has no seal, or a broken one."""
    try:
        value: dict[str, Any] = foreign.parse(config)
        value["config"]["Labels"].pop(SEAL)
        return value if sealed(value) == config else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _json(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "digest": descriptor.digest,
    }
