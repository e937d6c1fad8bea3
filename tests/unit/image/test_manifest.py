"""Config and manifest: byte for byte, in the order given, for both families of media types."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import Image, Layer, canonical_json, digest_of
from proxy.image import manifest
from proxy.image.manifest import Compression, ConfigFacts, Format
from tests.support.documents import check_config, check_conventions, check_manifest

FACTS = ConfigFacts(
    system="x86_64-linux",
    created="2026-01-31T00:00:00Z",
    command=("/bin/bash",),
    environment=("PATH=/bin", "LANG=C.UTF-8"),
    labels={"nixfront.revision": "0123", "nixfront.package-set": "nixpkgs"},
)
LAYERS = tuple(Layer(f"sha256:{n:064x}", 1000 + n, f"sha256:{n + 100:064x}") for n in (7, 3, 5))
COMMENTS = ("glibc", "bash", "root of bash")
CONFIG = "sha256:20ffc6535af2d0141f87449c4b4b9dadd79a7d2a0aae472b593cfc1a19efaf73"
GOLDEN = {
    ("docker", "gzip"): (CONFIG, "sha256:e85e8bae0451db59f8b15778e072c4686cd968ab314d0073cf68844733cf1555"),
    ("docker", "none"): (CONFIG, "sha256:161cc7182d60ea3ef02247afdc70357bb142848a9f49341b7d36049a738dd000"),
    ("oci", "gzip"): (CONFIG, "sha256:c6a5631a11d78c4379a7a783f2fe4d6e20dc166e7258430f88de591e236d379d"),
    ("oci", "none"): (CONFIG, "sha256:b9f8a285b8a056d458fba9d936bb5e3f3bd666b4f9153ec3eb2490dbc209a777"),
}
DOCKER = "application/vnd.docker."
OCI = "application/vnd.oci.image."


def assemble(facts: ConfigFacts = FACTS, form: Format = "docker", compression: Compression = "gzip") -> Image:
    return manifest.assemble(facts, LAYERS, COMMENTS, form=form, compression=compression)


def config(facts: ConfigFacts) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(assemble(facts).config)
    return value


@pytest.mark.parametrize(("form", "compression"), GOLDEN)
def test_the_bytes_are_those_that_were_agreed(form: Format, compression: Compression) -> None:
    """Another digest here means that equal packages become another image than before."""
    image = assemble(form=form, compression=compression)

    assert (image.config_descriptor.digest, image.manifest_descriptor.digest) == GOLDEN[form, compression]


def test_entrypoint_and_ports_are_said_where_there_are_any() -> None:
    run = config(replace(FACTS, entrypoint=("/bin/x", "-v"), ports=("80/tcp", "53/udp")))["config"]

    assert run["Entrypoint"] == ["/bin/x", "-v"]
    assert run["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}
    assert not {"Entrypoint", "ExposedPorts"} & config(FACTS)["config"].keys()


@pytest.mark.parametrize(
    ("form", "compression", "manifest_type", "config_type", "layer_type"),
    [
        (
            "docker",
            "gzip",
            f"{DOCKER}distribution.manifest.v2+json",
            f"{DOCKER}container.image.v1+json",
            f"{DOCKER}image.rootfs.diff.tar.gzip",
        ),
        (
            "docker",
            "none",
            f"{DOCKER}distribution.manifest.v2+json",
            f"{DOCKER}container.image.v1+json",
            f"{DOCKER}image.rootfs.diff.tar",
        ),
        ("oci", "gzip", f"{OCI}manifest.v1+json", f"{OCI}config.v1+json", f"{OCI}layer.v1.tar+gzip"),
        ("oci", "zstd", f"{OCI}manifest.v1+json", f"{OCI}config.v1+json", f"{OCI}layer.v1.tar+zstd"),
        ("oci", "none", f"{OCI}manifest.v1+json", f"{OCI}config.v1+json", f"{OCI}layer.v1.tar"),
    ],
)
def test_each_family_has_its_media_types(
    form: Format, compression: Compression, manifest_type: str, config_type: str, layer_type: str
) -> None:
    image = assemble(form=form, compression=compression)

    value = json.loads(image.manifest)
    assert value["mediaType"] == image.manifest_descriptor.media_type == manifest_type
    assert value["config"]["mediaType"] == image.config_descriptor.media_type == config_type
    assert {layer["mediaType"] for layer in value["layers"]} == {layer_type}


def test_the_manifest_names_the_layers_in_the_order_given() -> None:
    value = json.loads(assemble().manifest)

    assert [(layer["digest"], layer["size"]) for layer in value["layers"]] == [
        (layer.digest, layer.size) for layer in LAYERS
    ]


def test_the_config_says_what_it_was_told() -> None:
    assert manifest.unsealed(assemble().config) == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-31T00:00:00Z",
        "config": {
            "Cmd": ["/bin/bash"],
            "Env": ["PATH=/bin", "LANG=C.UTF-8"],
            "Labels": {"nixfront.revision": "0123", "nixfront.package-set": "nixpkgs"},
        },
        "history": [
            {"created": "2026-01-31T00:00:00Z", "created_by": "nixfront", "comment": comment}
            for comment in COMMENTS
        ],
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in LAYERS]},
    }


def test_an_image_without_a_command_has_no_cmd() -> None:
    assert "Cmd" not in config(replace(FACTS, command=()))["config"]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("x86_64-linux", ("amd64", None, "linux")),
        ("i686-linux", ("386", None, "linux")),
        ("aarch64-linux", ("arm64", "v8", "linux")),
        ("armv7l-linux", ("arm", "v7", "linux")),
        ("armv6l-linux", ("arm", "v6", "linux")),
        ("riscv64-linux", ("riscv64", None, "linux")),
        ("powerpc64le-linux", ("ppc64le", None, "linux")),
        ("s390x-linux", ("s390x", None, "linux")),
        ("loongarch64-linux", ("loongarch64", None, "linux")),
        ("x86_64-freebsd", ("amd64", None, "freebsd")),
        ("x86_64", ("amd64", None, "linux")),
    ],
)
def test_a_nix_system_becomes_a_platform(system: str, expected: tuple[str, str | None, str]) -> None:
    value = config(replace(FACTS, system=system))

    assert (value["architecture"], value.get("variant"), value["os"]) == expected


def test_each_layer_has_its_line_of_history() -> None:
    with pytest.raises(ValueError, match="shorter"):
        manifest.assemble(FACTS, LAYERS, COMMENTS[:2], form="docker", compression="gzip")


@given(
    st.lists(st.builds(Layer, st.text("0123abc"), st.integers(0), st.text("0123abc")), max_size=5),
    st.dictionaries(st.text("abc.-"), st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    st.sampled_from([("docker", "gzip"), ("docker", "none"), ("oci", "gzip"), ("oci", "none")]),
)
def test_descriptors_are_of_the_very_bytes(
    layers: list[Layer], labels: dict[str, str], how: tuple[Format, Compression]
) -> None:
    facts = replace(FACTS, labels=labels)
    turned = replace(FACTS, labels=dict(reversed(labels.items())))
    comments = ["x"] * len(layers)

    image = manifest.assemble(facts, layers, comments, form=how[0], compression=how[1])

    assert image == manifest.assemble(turned, layers, comments, form=how[0], compression=how[1])
    assert image.config_descriptor.digest == digest_of(image.config)
    assert image.config_descriptor.size == len(image.config)
    made = image.manifest_descriptor
    checked = check_manifest(image.manifest, made.media_type, made.digest)
    assert (checked.config.digest, checked.config.size) == (digest_of(image.config), len(image.config))
    found = check_config(image.config, tuple(layer.diff_id for layer in layers))["config"]["Labels"]
    assert {name: value for name, value in found.items() if name != manifest.SEAL} == labels


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda value: value["rootfs"]["diff_ids"].append("sha256:00"), id="a layer on top"),
        pytest.param(lambda value: value["history"].append({"empty_layer": True}), id="a line of history"),
        pytest.param(lambda value: value["config"]["Env"].append("A=b"), id="a variable"),
        pytest.param(lambda value: value["config"]["Labels"].update(mine="yes"), id="a label"),
        pytest.param(lambda value: value["config"]["Labels"].pop(manifest.SEAL), id="no seal"),
        pytest.param(lambda value: value.pop("config"), id="no labels"),
        pytest.param(lambda value: value.update(created="2026-02-01T00:00:00Z"), id="another date"),
    ],
)
def test_whoever_changes_an_image_breaks_its_seal(change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(assemble().config)
    change(value)

    assert manifest.unsealed(json.dumps(value).encode()) is None
    assert manifest.unsealed(canonical_json(value)) is None


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{}", b'{"config": null}', b'{"config": {"Labels": null}}', b"\xff"]
)
def test_what_is_no_config_has_no_seal(config: bytes) -> None:
    assert manifest.unsealed(config) is None


@pytest.mark.parametrize("facts", [FACTS, replace(FACTS, command=(), environment=(), labels={})])
def test_an_image_keeps_our_conventions(facts: ConfigFacts) -> None:
    check_conventions(config(facts), len(LAYERS))
