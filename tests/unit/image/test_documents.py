"""Manifests and configurations that strangers pushed: what is wrong is one exception, whatever it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.foreign import DocumentInvalid
from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST
from proxy.image.documents import Blob, ImageManifest, Index, OtherManifest, read_config, read_manifest

DIGEST = "sha256:" + "a" * 64
BLOB = {"digest": DIGEST, "size": 3, "mediaType": "x/y"}


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_an_image_is_read() -> None:
    document = read_manifest(encoded({"mediaType": DOCKER_MANIFEST, "config": BLOB, "layers": [BLOB]}))

    blob = Blob(DIGEST, 3, "x/y")
    assert document == ImageManifest(DOCKER_MANIFEST, blob, (blob,))


def test_an_index_is_read() -> None:
    children = [
        {"digest": DIGEST, "mediaType": DOCKER_LIST},
        {"digest": DIGEST, "platform": {"os": "linux", "architecture": "arm64"}},
    ]
    document = read_manifest(encoded({"manifests": children}))

    assert isinstance(document, Index)
    assert [(child.is_index, child.platform) for child in document.children] == [
        (True, "?/?"),
        (False, "linux/arm64"),
    ]


def test_another_kind_of_manifest() -> None:
    assert read_manifest(encoded({"schemaVersion": 1})) == OtherManifest("")


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        {"mediaType": 1},
        {"layers": []},
        {"layers": {}, "config": BLOB},
        {"layers": [None], "config": BLOB},
        {"layers": [], "config": []},
        {"layers": [], "config": {"digest": "../../etc/passwd", "size": 1}},
        {"layers": [], "config": {"digest": DIGEST, "size": -1}},
        {"layers": [], "config": {"digest": DIGEST, "size": 1e300}},
        {"layers": [BLOB] * 5000, "config": BLOB},
        {"Layers": [], "config": BLOB},
        {"manifests": [{"Digest": DIGEST}]},
        {"manifests": [{"digest": 1}]},
        {"manifests": [{"digest": DIGEST, "platform": "linux"}]},
        {"manifests": 1},
    ],
)
def test_a_wrong_manifest(document: Any) -> None:
    with pytest.raises(DocumentInvalid):
        read_manifest(encoded(document))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"config": []},
        {"config": {"Labels": []}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Labels": {str(number): "" for number in range(5000)}}},
        {"history": {}},
        {"history": [1]},
        {"history": [{"comment": ["a"]}]},
        {"history": [{}] * 20_000},
        {"rootfs": []},
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": ["x"]}},
        {"created": 0},
    ],
)
def test_a_wrong_configuration(document: Any) -> None:
    with pytest.raises(DocumentInvalid):
        read_config(encoded(document))


def test_a_configuration_is_read() -> None:
    config = read_config(
        encoded(
            {
                "created": "now",
                "config": {"Labels": {"a": "b"}, "Cmd": ["x"]},
                "history": [{"created_by": "RUN x"}, {"empty_layer": True}, {"comment": "c"}],
                "rootfs": {"diff_ids": [DIGEST]},
            }
        )
    )

    assert (config.created, config.labels, config.run) == ("now", {"a": "b"}, {"Cmd": ["x"]})
    assert [(step.comment, step.command) for step in config.steps] == [("", "RUN x"), ("c", "")]
    assert config.diff_ids == (DIGEST,)


KEYS = st.sampled_from(
    [
        "mediaType",
        "config",
        "layers",
        "manifests",
        "digest",
        "size",
        "platform",
        "history",
        "rootfs",
        "diff_ids",
        "Labels",
        "comment",
        "x",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=40,
)


@given(JSON)
def test_any_document_is_read_or_refused(document: Any) -> None:
    for read in (read_manifest, read_config):
        try:
            read(encoded(document))
        except DocumentInvalid:
            continue
