"""What an image that says that it is ours may be believed."""

import dataclasses
import json
from typing import Any

import pytest

from proxy.core.model import ImageRequest, Layer, LayerPlan
from proxy.image import manifest
from proxy.image.documents import ImageManifest, read_manifest
from proxy.image.manifest import ConfigFacts
from proxy.upkeep import reindex

PATHS = tuple(f"/nix/store/{letter * 32}-{letter}-1.0" for letter in "ab")
LAYERS = tuple(Layer(f"sha256:{n:064x}", n, f"sha256:{n + 100:064x}") for n in (1, 2))
LABELS = {
    "nixfront.package-set": "nixpkgs",
    "nixfront.attributes": "cacert python3Packages._7zz shellcheck",
    "nixfront.revision": "r" * 40,
    "nixfront.outputs": "0" * 32,
}


def made(labels: dict[str, str] | None = None, comment: str = " ".join(PATHS)) -> tuple[ImageManifest, bytes]:
    facts = ConfigFacts("x86_64-linux", "2026-01-31T00:00:00Z", labels=labels or LABELS)
    image = manifest.assemble(facts, LAYERS, [comment, "root of all"], form="oci", compression="gzip")
    document = read_manifest(image.manifest)
    assert isinstance(document, ImageManifest)
    return document, image.config


def request(*attributes: str, image: str = "") -> ImageRequest:
    return ImageRequest("repository", "latest", attributes, image=image)


def test_a_claim_names_its_layers_but_for_the_root() -> None:
    claim = reindex.read(*made())

    assert claim is not None
    assert claim.layers == ((LayerPlan(PATHS), LAYERS[0]),)


@pytest.mark.parametrize(
    "comment",
    [
        "/nix/store/../../etc/shadow",
        f"{PATHS[0]}/../../../etc",
        f"{PATHS[0]} /etc",
        "/nix/store/short-name",
        "installed by hand",
        "",
    ],
)
def test_what_is_no_store_path_is_no_layer_of_ours(comment: str) -> None:
    claim = reindex.read(*made(comment=comment))

    assert claim is not None
    assert claim.layers == ()


def test_a_broken_seal_is_no_claim() -> None:
    document, config = made()
    value: dict[str, Any] = json.loads(config)
    value["config"]["Env"].append("A=b")

    assert reindex.read(document, json.dumps(value).encode()) is None
    assert reindex.read(document, b"{}") is None
    assert reindex.read(dataclasses.replace(document, layers=()), config) is None


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        (("python3packages.7zz", "shellcheck"), True),
        (("ShellCheck", "python3Packages._7zz", "cacert"), True),
        (("shellcheck",), False),
        (("shellcheck", "python3packages.7zz", "git"), False),
    ],
)
def test_the_labels_name_the_repository_case_aside(attributes: tuple[str, ...], named: bool) -> None:
    claim = reindex.read(*made())

    assert claim is not None
    assert claim.names(request(*attributes), "nixpkgs", frozenset({"cacert"})) is named
    assert not claim.names(request(*attributes), "team", frozenset({"cacert"}))


def test_a_named_image_is_named_by_its_name() -> None:
    claim = reindex.read(*made({**LABELS, "nixfront.image": "team/tool"}))
    plain = reindex.read(*made())

    assert claim is not None
    assert plain is not None
    assert claim.names(request(image="team/tool"), "any", frozenset())
    assert not claim.names(request(image="team/other"), "any", frozenset())
    assert not claim.names(request("shellcheck", "python3packages.7zz"), "nixpkgs", frozenset({"cacert"}))
    assert not plain.names(request(image="team/tool"), "nixpkgs", frozenset())


def test_tags_that_never_move_are_in_the_labels() -> None:
    claim = reindex.read(*made())

    assert claim is not None
    short = ("revision-" + "r" * 12, "contents-" + "0" * 12)
    assert all(claim.names_tag(tag) for tag in (*short, "r" * 40, "0" * 32))
    assert not any(claim.names_tag(tag) for tag in ("latest", "", "revision-", "contents-" + "r" * 12))
