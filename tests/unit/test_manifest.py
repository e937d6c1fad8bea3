"""Config and manifest: byte for byte, in the order given, for both families of media types."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import manifest
from proxy.manifest import Compression, Facts, Format
from proxy.model import Image, Layer, digest_of
from tests.support.documents import check_config, check_conventions, check_manifest

FACTS = Facts(
    system="x86_64-linux",
    created="2026-01-31T00:00:00Z",
    command=("/bin/bash",),
    environment=("PATH=/bin", "LANG=C.UTF-8"),
    labels={"nixfront.revision": "0123", "nixfront.package-set": "nixpkgs"},
)
LAYERS = tuple(Layer(f"sha256:{n:064x}", 1000 + n, f"sha256:{n + 100:064x}") for n in (7, 3, 5))
COMMENTS = ("glibc", "bash", "root of bash")
CONFIG = "sha256:77caba685bac1ed4a16b56ab3bacc1abeffbfa43315ba6374dcbaf5ba3c1e64c"
GOLDEN = {
    ("docker", "gzip"): (CONFIG, "sha256:ee827b577ceea3c2b1bf618d067ff0e437aa9b54159d5282bd54cc6047a72397"),
    ("docker", "none"): (CONFIG, "sha256:ed49dbb977451a3bc972bf936cb8a9299d627ccf7b0f1e959bd64ad0073b5aa9"),
    ("oci", "gzip"): (CONFIG, "sha256:bbc825e7d65ed0e4f7b3212c97130d32e8fa151731ce76a037e49eb0c3bd4409"),
    ("oci", "none"): (CONFIG, "sha256:d10c0ec6cd88c9221c8bf0dbfb0e39fd269743fbeacce28f55d31ec94bef0f93"),
}
DOCKER = "application/vnd.docker."
OCI = "application/vnd.oci.image."


def assemble(facts: Facts = FACTS, form: Format = "docker", compression: Compression = "gzip") -> Image:
    return manifest.assemble(facts, LAYERS, COMMENTS, form=form, compression=compression)


def config(facts: Facts) -> dict[str, Any]:
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
    assert config(FACTS) == {
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
    assert check_config(image.config, tuple(layer.diff_id for layer in layers))["config"]["Labels"] == labels


@pytest.mark.parametrize("facts", [FACTS, replace(FACTS, command=(), environment=(), labels={})])
def test_an_image_keeps_our_conventions(facts: Facts) -> None:
    check_conventions(config(facts), len(LAYERS))
