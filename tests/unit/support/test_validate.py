"""The validator finds each breach: a good image passes, and every way to spoil it is named."""

import gzip
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.core.model import DOCKER_LAYER, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST
from tests.support.handmade import (
    Change,
    digest_of,
    directory,
    gzip_members,
    image,
    link,
    member,
    store_layers,
    tar,
)
from tests.support.validate import check_image

_STORE_PATH = "nix/store/00000000000000000000000000000000-tool-1"
_TARS = tuple(tar(entries) for entries in store_layers())


def _spoilt_tree(layer: int, *extra: tarfile.TarInfo, without: str = "") -> list[bytes]:
    """The tidy image's archives; one of them has further entries at its end, or lacks one."""
    layers = store_layers()
    kept = [
        entry for entry in layers[layer] if (entry[0] if isinstance(entry, tuple) else entry).name != without
    ]
    layers[layer] = [*kept, *extra]
    return [tar(entries) for entries in layers]


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, OCI_MANIFEST])
def test_good_image_passes(tmp_path: Path, media_type: str) -> None:
    made = image(_TARS, media_type=media_type)

    checked = check_image(made.fetched(tmp_path))

    assert checked.digest == digest_of(made.manifest)
    assert [layer.diff_id for layer in checked.layers] == [digest_of(data) for data in _TARS]
    assert checked.files["bin/tool"].target == f"/{_STORE_PATH}/bin/tool"
    assert checked.files[f"{_STORE_PATH}/bin/tool"].layer == 0


def test_plain_archive_passes_as_a_layer(tmp_path: Path) -> None:
    def plain(manifest: dict[str, object]) -> None:
        manifest["layers"] = [
            {"mediaType": DOCKER_LAYER, "size": len(data), "digest": digest_of(data)} for data in _TARS
        ]

    made = replace(image(_TARS, manifest=plain), layers=_TARS)

    assert check_image(made.fetched(tmp_path)).files


@pytest.mark.parametrize(
    ("layer", "extra", "message"),
    [
        (0, directory("/nix/x"), "absolute name"),
        (0, directory("nix/../etc"), "'..' part"),
        (0, directory("./x"), "'.' or '..'"),
        (1, member("tmp/x", tarfile.LNKTYPE, linkname="etc/passwd"), "hard link to 'etc/passwd'"),
        (1, member("tmp/x", tarfile.FIFOTYPE), "no file, directory or symlink"),
        (1, member("tmp/x", mtime=2), "mtime 2, not 1"),
        (1, member("tmp/x", uid=1000), "belongs to 1000:0"),
        (1, member("tmp/x", gid=100), "belongs to 0:100"),
        (1, member("tmp/x", uname="root"), "names its owner"),
        (1, member("tmp/x", mode=0o4755), "setuid or setgid"),
        (1, member("tmp/x", mode=0o666), "others may write"),
        (1, directory("usr", 0o777), "others may write"),
        (0, member(f"{_STORE_PATH}/x", mode=0o400), "lacks 0444"),
        (0, directory(f"{_STORE_PATH}/x", 0o700), "lacks 0555"),
        (1, member("var/x"), "without its directory var"),
        (1, directory("opt"), "not sorted: tmp before opt"),
        (1, directory("tmp", 0o1777), "tmp is there twice"),
        (
            1,
            link("usr", "/nix/store/11111111111111111111111111111111-gone/bin"),
            "11-gone is not in the image",
        ),
        (1, link("usr", f"/{_STORE_PATH}/bin/missing"), "which is not in the image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_spoilt_entry_is_found(tmp_path: Path, layer: int, extra: tarfile.TarInfo, message: str) -> None:
    made = image(_spoilt_tree(layer, extra))

    with pytest.raises(AssertionError, match=message):
        check_image(made.fetched(tmp_path))


@pytest.mark.parametrize(
    ("tars", "message"),
    [
        (_spoilt_tree(1, without="tmp"), "there is no /tmp"),
        (_spoilt_tree(0, without="nix/store"), "without its directory nix/store"),
        ([*_TARS, _TARS[1]], "bin/tool is in layer 1 and in layer 2"),
        ([*_TARS, tar([directory("nix", 0o700)])], "directory nix has mode 0755 in layer 0, 0700 in layer 2"),
        ([tar([directory("nix", 0o555), directory("nix/store")])], "/nix has mode 0555, not 0755"),
        ([_TARS[0], tar([directory("tmp", 0o755)])], "tmp has mode 0755, not 1777"),
        ([_TARS[1], _TARS[0]], "uppermost layer has no /tmp"),
        ([*([_TARS[0]] * 100), _TARS[1]], "101 layers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_spoilt_tree_is_found(tmp_path: Path, tars: list[bytes], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_image(image(tars).fetched(tmp_path))


def _drop(key: str) -> Change:
    return lambda document: document.pop(key)


def _set(key: str, value: object) -> Change:
    return lambda document: document.update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("config", None), "config is None, not an object"),
        (_drop("architecture"), "architecture is None"),
        (_set("os", ""), "os is empty"),
        (_set("created", "yesterday"), "'yesterday', not a time"),
        (_set("created", "2024-01-01T00:00:00"), "without a time zone"),
        (_drop("history"), "0 entries of history for 2 layers"),
        (lambda config: config["history"].append(config["history"][0]), "3 entries of history for 2 layers"),
        (lambda config: config["history"][1].pop("comment"), "history 1: comment is None"),
        (lambda config: config["history"][0].update(created_by=""), "history 0: created_by is empty"),
        (lambda config: config["rootfs"]["diff_ids"].reverse(), "diff_id 0 is"),
        (lambda config: config["rootfs"]["diff_ids"].pop(), "1 diff_ids for 2 layers"),
        (lambda config: config["rootfs"].update(type="tar"), "rootfs.type is 'tar'"),
    ],
)
def test_spoilt_config_is_found(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_image(image(_TARS, config=change).fetched(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("schemaVersion", 1), "schemaVersion is 1"),
        (_set("mediaType", OCI_MANIFEST), "mediaType is"),
        (_drop("config"), "config is None, not a descriptor"),
        (_drop("layers"), "no list of layers"),
        (lambda manifest: manifest["config"].update(mediaType=OCI_CONFIG), "names a config of type"),
        (lambda manifest: manifest["layers"][1].update(mediaType="text/plain"), "is of type 'text/plain'"),
        (lambda manifest: manifest["layers"][1].update(size=7), "layer 1: .* bytes, its descriptor says 7"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:0"), "layer 0: digest is"),
        (lambda manifest: manifest["layers"][0].update(mediaType=DOCKER_LAYER), "layer 0 is not a"),
    ],
)
def test_spoilt_manifest_is_found(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_image(image(_TARS, manifest=change).fetched(tmp_path))


def test_wrong_headers_are_found(tmp_path: Path) -> None:
    fetched = image(_TARS).fetched(tmp_path)

    with pytest.raises(AssertionError, match="Docker-Content-Digest is ''"):
        check_image(replace(fetched, content_digest=""))
    with pytest.raises(AssertionError, match="not that of an image manifest"):
        check_image(replace(fetched, content_type="application/json"))


def test_cut_gzip_stream_is_found(tmp_path: Path) -> None:
    whole = gzip_members(_TARS[0])
    cut = whole[:-10]

    def same_digest(manifest: dict[str, list[dict[str, object]]]) -> None:
        manifest["layers"][0].update(size=len(cut), digest=digest_of(cut))

    made = image(_TARS, manifest=same_digest)
    fetched = replace(made, layers=(cut, made.layers[1])).fetched(tmp_path)

    with pytest.raises(AssertionError, match="layer 0 is not a"):
        check_image(fetched)


def test_gzip_stream_of_several_members_is_read_to_its_end() -> None:
    stream = gzip_members(_TARS[0], piece=512)

    assert stream.count(b"\x1f\x8b\x08") > 5
    assert gzip.decompress(stream) == _TARS[0]


def test_foreign_image_may_look_as_it_likes_but_not_lie(tmp_path: Path) -> None:
    untidy = image([tar([member("etc/hosts", mode=0o666, mtime=99)])], config=_set("config", None))

    check_image(untidy.fetched(tmp_path), ours=False)

    with pytest.raises(AssertionError, match="Docker-Content-Digest"):
        check_image(replace(untidy.fetched(tmp_path), content_digest="sha256:0"), ours=False)
