"""A NAR becomes the same members as the store path on disk, whatever the pieces it comes in; everything else is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import CacheUnusable
from proxy.image import tar
from proxy.image.store_tree import store_entries
from proxy.image.tar import Entry
from proxy.nix.cache.nar import SMALL, Feed, members
from tests.support.nars import Tree, nar, node, text, texts, write

PATH = "/nix/store/a-1"
TREE: Tree = {
    "bin": {"run": ("x", b"#!/bin/sh\n"), "run.d": {}, "link": "../lib/./x"},
    "bin-": b"",
    "lib": {"large": bytes(range(256)) * 300, "odd": b"1234567", "\udcff": b"x", "été": b"y"},
}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 1000, path: str = PATH) -> bytes:
    """The archive of these members; raises as they do."""
    feed = Feed(pieces(data, size), len(data))
    archive = b"".join(bytes(block) for block in tar.blocks(members(feed, path)))
    feed.digest()
    return archive


@pytest.mark.parametrize("size", [1, 7, 8, 1000, SMALL, 1 << 20])
def test_it_is_the_archive_of_the_same_path_on_disk(tmp_path: Path, size: int) -> None:
    for name, tree in (
        ("a-1", TREE),
        ("b-1", b"a file"),
        ("c-1", ("x", b"a program")),
        ("d-1", "/nix/store/a-1"),
    ):
        write(tree, tmp_path / "nix/store" / name)
        entries = [*store_entries([f"/nix/store/{name}"], str(tmp_path))][2:]
        on_disk = b"".join(bytes(block) for block in tar.blocks(entries))

        assert read(nar(tree), size, f"/nix/store/{name}") == on_disk


def test_what_nobody_reads_is_skipped() -> None:
    data = nar({"a": bytes(SMALL + 1), "b": b"x"})
    feed = Feed(pieces(data, 100), len(data))

    entries: list[Entry] = list(members(feed, PATH))

    assert [(entry.path, entry.size) for entry in entries[1:]] == [
        ("nix/store/a-1/a", SMALL + 1),
        ("nix/store/a-1/b", 1),
    ]
    feed.digest()


def entry(name: bytes, inner: bytes | None = None) -> bytes:
    return (
        texts(b"entry", b"(", b"name", name, b"node") + (node(b"x") if inner is None else inner) + text(b")")
    )


def folder(*entries: bytes) -> bytes:
    return text(b"nix-archive-1") + texts(b"(", b"type", b"directory") + b"".join(entries) + text(b")")


def deep(levels: int) -> bytes:
    inner = node(b"x")
    for _ in range(levels):
        inner = texts(b"(", b"type", b"directory") + entry(b"d", inner) + text(b")")
    return text(b"nix-archive-1") + inner


FILE = texts(b"(", b"type", b"regular", b"contents")
ATTACKS = {
    "nothing": b"",
    "something else": b"<html>not found</html>" * 10,
    "a name that leads up": folder(entry(b"..")),
    "the folder itself": folder(entry(b".")),
    "a name with a slash": folder(entry(b"a/b")),
    "an absolute name": folder(entry(b"/etc")),
    "a name with a NUL": folder(entry(b"a\0b")),
    "an empty name": folder(entry(b"")),
    "a long name": folder(entry(b"a" * 256)),
    "unsorted names": folder(entry(b"b"), entry(b"a")),
    "a name twice": folder(entry(b"a"), entry(b"a")),
    "an empty target": text(b"nix-archive-1") + texts(b"(", b"type", b"symlink", b"target", b"", b")"),
    "a long target": text(b"nix-archive-1") + texts(b"(", b"type", b"symlink", b"target", b"a" * 5000, b")"),
    "a target with a NUL": text(b"nix-archive-1") + texts(b"(", b"type", b"symlink", b"target", b"a\0", b")"),
    "no kind": text(b"nix-archive-1") + texts(b"(", b"type", b"device", b")"),
    "padding": text(b"nix-archive-1") + FILE + b"\1" + bytes(7) + b"xyyyyyyy" + text(b")"),
    "a size beyond the end": text(b"nix-archive-1") + FILE + b"\xff" * 8 + b"x",
    "a name of any size": folder(texts(b"entry", b"(", b"name") + b"\xff" * 8),
    "no contents": text(b"nix-archive-1") + texts(b"(", b"type", b"regular", b")"),
    "no end": nar(b"x")[:-16],
    "more after the end": nar(b"x") + nar(b"x"),
    "too deep": deep(300),
    "another mark": text(b"nix-archive-1")
    + texts(b"(", b"type", b"regular", b"executable", b"yes", b"contents", b"", b")"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_nix_would_not_write_is_refused(attack: str, size: int) -> None:
    with pytest.raises(CacheUnusable):
        read(ATTACKS[attack], size)


def read_to_the_end(feed: Feed) -> None:
    list(members(feed, PATH))
    feed.digest()


def test_a_size_is_that_of_the_narinfo() -> None:
    data = nar(b"hello")
    for size in (len(data) - 1, len(data) + 1):
        feed = Feed(pieces(data, 10), size)
        with pytest.raises(CacheUnusable, match="narinfo says"):
            read_to_the_end(feed)


@given(st.binary(max_size=400), st.integers(0, 2000), st.integers(1, 64))
def test_no_change_of_a_nar_does_more_than_fail(noise: bytes, at: int, size: int) -> None:
    data = nar(TREE)
    changed = data[:at] + noise + data[at + len(noise) :]
    try:
        archive = read(changed, size)
    except CacheUnusable:
        return
    assert changed == data or archive, "it still is a NAR, of other names or bytes; its hash tells"
