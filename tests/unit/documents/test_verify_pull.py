"""`deploy/verify-pull` finds every way in which an image can differ from what its manifest says."""

import gzip
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
TAR = "application/vnd.docker.image.rootfs.diff.tar"
TREE = bytes(range(256)) * 5000  # stands for a tar; long enough for several pieces


def load() -> ModuleType:
    """The program as a module: it has no .py at its end."""
    path = Path(__file__).parents[3] / "deploy" / "verify-pull"
    loader = importlib.machinery.SourceFileLoader("verify_pull", str(path))
    spec = importlib.util.spec_from_loader("verify_pull", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["verify_pull"] = module  # dataclasses look their module up by name
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


verify_pull = load()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Answer(io.BytesIO):
    """What the port of the program asks for: headers and a stream."""

    def __init__(self, body: bytes, **headers: str) -> None:
        super().__init__(body)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Registry:
    """A registry of one image, held in memory; a test spoils a part of it and pulls."""

    def __init__(self, layers: list[bytes], trees: list[bytes], layer_type: str = GZIP) -> None:
        self.config: dict[str, Any] = {
            "rootfs": {"type": "layers", "diff_ids": [digest(tree) for tree in trees]}
        }
        self.blobs = {digest(layer): layer for layer in layers}
        self.layers = [self.descriptor(layer_type, layer) for layer in layers]
        self.manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": DOCKER, "layers": self.layers}
        self.headers: dict[str, str] = {"Content_Type": DOCKER}
        self.index: dict[str, Any] | None = None
        self.store_config()

    @staticmethod
    def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "size": len(data), "digest": digest(data)}

    def store_config(self) -> None:
        data = json.dumps(self.config).encode()
        self.blobs[digest(data)] = data
        self.manifest["config"] = self.descriptor("application/vnd.docker.container.image.v1+json", data)

    def get(self, path: str, accept: tuple[str, ...], timeout: float) -> Answer:
        assert timeout > 0
        kind, name = path.removeprefix("/v2/shell/git/").split("/")
        if kind == "blobs":
            return Answer(self.blobs[name])
        assert kind == "manifests"
        assert DOCKER in accept
        body = json.dumps(self.manifest).encode()
        if self.index is not None and name == "latest":
            body = json.dumps(self.index).encode()
            return Answer(body, Docker_Content_Digest=digest(body), Content_Type=LIST)
        return Answer(body, **{"Docker_Content_Digest": digest(body), **self.headers})

    def pull(self) -> list[str]:
        return list(verify_pull.verify(self.get, "shell/git", "latest"))


def two_layers() -> Registry:
    other = TREE[::-1]
    return Registry([gzip.compress(TREE), gzip.compress(other)], [TREE, other])


def test_a_line_for_each_part_and_the_digest_at_last() -> None:
    registry = two_layers()

    lines = registry.pull()

    assert [line.split()[0] for line in lines] == ["manifest", "config", "layer", "layer", "ok:"]
    assert lines[-1] == f"ok: shell/git@{digest(json.dumps(registry.manifest).encode())}"


@pytest.mark.parametrize("members", [1, 2, 7])
def test_a_layer_of_several_gzip_members(members: int) -> None:
    size = -(-len(TREE) // members)
    layer = b"".join(gzip.compress(TREE[start : start + size]) for start in range(0, len(TREE), size))

    assert len(Registry([layer], [TREE]).pull()) == 4


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("unit", [b"\0", b"abc"])
def test_a_layer_that_unpacks_to_far_more_than_it_is(level: int, unit: bytes) -> None:
    tree = unit * 3_000_001

    assert len(Registry([gzip.compress(tree, level)], [tree]).pull()) == 4


def test_a_layer_that_is_not_compressed() -> None:
    assert len(Registry([TREE], [TREE], TAR).pull()) == 4


def test_an_oci_manifest_may_leave_its_media_type_out() -> None:
    registry = two_layers()
    del registry.manifest["mediaType"]
    registry.headers["Content_Type"] = OCI

    assert registry.pull()[-1].startswith("ok: ")


def test_of_an_index_every_image_is_checked() -> None:
    registry = two_layers()
    image = registry.descriptor(DOCKER, json.dumps(registry.manifest).encode())
    registry.index = {"schemaVersion": 2, "mediaType": LIST, "manifests": [image, image]}

    lines = registry.pull()

    one = ["manifest", "config", "layer", "layer"]
    assert [line.split()[0] for line in lines] == ["index", *one, *one, "ok:"]
    assert lines[-1] == f"ok: shell/git@{digest(json.dumps(registry.index).encode())}"
    registry.index["manifests"][1] = {**image, "size": 1}
    with pytest.raises(verify_pull.PullError, match="the size in the index"):
        registry.pull()


def other_manifest_digest(registry: Registry) -> None:
    registry.headers["Docker_Content_Digest"] = digest(b"")


def other_media_type(registry: Registry) -> None:
    registry.headers["Content_Type"] = OCI


def list_of_manifests(registry: Registry) -> None:
    registry.headers["Content_Type"] = "application/vnd.oci.image.index.v1+json"


def schema_1(registry: Registry) -> None:
    registry.manifest["schemaVersion"] = 1


def no_config(registry: Registry) -> None:
    del registry.manifest["config"]


def other_config_bytes(registry: Registry) -> None:
    name = registry.manifest["config"]["digest"]
    registry.blobs[name] = registry.blobs[name].replace(b'"layers"', b'"LAYERS"')


def other_config_size(registry: Registry) -> None:
    registry.manifest["config"]["size"] += 1


def diff_id_missing(registry: Registry) -> None:
    registry.config["rootfs"]["diff_ids"].pop()
    registry.store_config()


def diff_ids_swapped(registry: Registry) -> None:
    registry.config["rootfs"]["diff_ids"].reverse()
    registry.store_config()


def layer_cut_short(registry: Registry) -> None:
    name = registry.layers[1]["digest"]
    registry.blobs[name] = registry.blobs[name][:-1]


def layer_byte_changed(registry: Registry) -> None:
    name = registry.layers[0]["digest"]
    registry.blobs[name] = registry.blobs[name][:-5] + b"\1" + registry.blobs[name][-4:]


def digest_of_another_kind(registry: Registry) -> None:
    registry.layers[0]["digest"] = "md5:" + "0" * 32


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (other_manifest_digest, r"manifest: the digest should be sha256:e3b0c44"),
        (other_media_type, r"manifest: mediaType should be .*oci.* but is .*docker"),
        (list_of_manifests, r"manifest: mediaType should be .*index.*, but is .*manifest.v2"),
        (schema_1, r"manifest: schemaVersion should be 2, but is 1"),
        (no_config, r"no dict under config"),
        (other_config_bytes, r"config: the digest should be"),
        (other_config_size, r"config: the size in bytes should be"),
        (diff_id_missing, r"config: the number of diff_ids should be 2, but is 1"),
        (diff_ids_swapped, r"layer 1/2: the diff_id should be"),
        (layer_cut_short, r"layer 2/2: the size in bytes should be"),
        (layer_byte_changed, r"layer 1/2: the digest should be"),
        (digest_of_another_kind, r"'md5:0+', which is no sha256 digest"),
    ],
)
def test_what_does_not_fit_is_said(spoil: Callable[[Registry], None], sentence: str) -> None:
    registry = two_layers()
    spoil(registry)

    with pytest.raises(verify_pull.PullError, match=sentence):
        registry.pull()


@pytest.mark.parametrize(
    "layer",
    [b"", TREE, gzip.compress(TREE)[:-9], gzip.compress(TREE) + b"rest", gzip.compress(TREE) + b"\0"],
    ids=["empty", "not gzip", "cut", "garbage after it", "padding after it"],
)
def test_a_layer_with_the_right_digest_that_cannot_be_unpacked(layer: bytes) -> None:
    with pytest.raises(verify_pull.PullError, match="cannot be unpacked"):
        Registry([layer], [TREE]).pull()


def test_the_message_of_the_registry_is_shown() -> None:
    body = (
        b'{"errors":[{"code":"NAME_UNKNOWN","message":"no package helo; did you mean hello?","detail":{}}]}'
    )

    assert verify_pull.refusal(404, "Not Found", body) == (
        "404 NAME_UNKNOWN: no package helo; did you mean hello?"
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"errors":null}', b'{"errors":[{}]}'])
def test_without_a_message_the_reason_is_shown(body: bytes) -> None:
    assert verify_pull.refusal(502, "Bad Gateway", body) == "502 Bad Gateway"


def test_nobody_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    status = verify_pull.main(["http://127.0.0.1:1", "hello"])

    assert status == 1
    assert "GET http://127.0.0.1:1/v2/hello/manifests/latest" in capsys.readouterr().err


def test_only_http_is_spoken() -> None:
    with pytest.raises(SystemExit) as ended:
        verify_pull.main(["file:///etc", "passwd"])

    assert ended.value.code == 2
