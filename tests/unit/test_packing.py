"""Layers made of real files: the bytes, their digests, and the store as the root tree sees it."""

import asyncio
import gzip
import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import packing, tarball
from proxy.errors import DigestNotReady, PackageUnusable
from proxy.manifest import Compression
from proxy.model import Layer
from proxy.packing import BLOCK, LayerStream, StoreListing, store_entries
from proxy.tarball import Entry, directory, file, symlink

STORE = "/nix/store"
# Fixed bytes that compress about as badly as a program does, of more than two blocks.
NOISE = b"".join(hashlib.sha256(f"{number}".encode()).digest() * 3 for number in range(24_000))
DIFF_ID = "sha256:ce20c671555678e20f627dd13f9149a981205f5473ae8e129848f057d9689ae3"
GOLDEN = (directory("nix"), directory("nix/store"), file("nix/store/x-noise", NOISE, 0o444))


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder that holds a store, as `prefix`."""
    (tmp_path / "nix/store").mkdir(parents=True)
    return tmp_path


async def packed(stream: LayerStream) -> list[bytes]:
    return [block async for block in stream]


def plain(*entries: Entry) -> bytes:
    return b"".join(tarball.archive(entries))


async def test_a_gzip_layer_is_the_archive_in_members_of_one_block(executor: Executor) -> None:
    stream = LayerStream(GOLDEN, "gzip", executor)

    members = await packed(stream)

    tar = plain(*GOLDEN)
    assert len(members) == 3
    assert [gzip.decompress(member) for member in members] == [
        tar[:BLOCK],
        tar[BLOCK : 2 * BLOCK],
        tar[2 * BLOCK :],
    ]
    assert gzip.decompress(b"".join(members)) == tar


@pytest.mark.parametrize(
    ("compression", "layer"),
    [
        (
            "gzip",
            Layer("sha256:f20591b2757c3c786be44db1b0fe30b48f15cb1b4f293af1d5af635b8db75691", 810228, DIFF_ID),
        ),
        ("none", Layer(DIFF_ID, 2306560, DIFF_ID)),
    ],
)
async def test_the_bytes_are_those_that_were_agreed(
    executor: Executor, compression: Compression, layer: Layer
) -> None:
    """Another digest here means that every layer is made and pulled anew: `packing.CODECS` must change with it."""
    stream = LayerStream(GOLDEN, compression, executor)

    await packed(stream)

    assert stream.layer == layer


def test_a_codec_names_all_that_its_bytes_depend_on() -> None:
    assert packing.CODECS == {"gzip": "tar1+gzip-members-1048576-libdeflate-4", "none": "tar1"}


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_the_layer_says_what_was_read(executor: Executor, compression: Compression) -> None:
    entries = (directory("etc"), file("etc/x", b"x" * 3_000_000), symlink("y", "etc/x"))
    stream = LayerStream(entries, compression, executor)

    blob = b"".join(await packed(stream))

    assert stream.layer.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert stream.layer.size == len(blob)
    assert stream.layer.diff_id == f"sha256:{hashlib.sha256(plain(*entries)).hexdigest()}"


async def test_there_is_no_digest_before_the_end(executor: Executor) -> None:
    stream = LayerStream(GOLDEN, "none", executor)
    with pytest.raises(DigestNotReady):
        _ = stream.layer
    blocks = aiter(stream)

    for _ in range(3):
        await anext(blocks)
        with pytest.raises(DigestNotReady):
            _ = stream.layer
    with pytest.raises(StopAsyncIteration):
        await anext(blocks)

    assert stream.layer.size == len(plain(*GOLDEN))


async def test_only_what_is_asked_for_is_made(executor: Executor) -> None:
    taken: list[str] = []

    def entries() -> Iterator[Entry]:
        for number in range(100):
            taken.append(str(number))
            yield file(f"f{number}", b"x" * BLOCK)

    blocks = aiter(LayerStream(entries(), "none", executor))

    await anext(blocks)

    assert taken == ["0"]


async def test_the_loop_goes_on_while_a_block_is_made(executor: Executor) -> None:
    turns = 0

    def slow() -> Iterator[Entry]:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(
            timeout=10
        )  # answered by the loop alone
        yield directory("x")

    loop = asyncio.get_running_loop()
    stream = LayerStream(slow(), "gzip", executor)

    async for _ in stream:
        turns += 1

    assert turns == 1


@given(st.lists(st.binary(max_size=3000), max_size=20), st.lists(st.integers(0, 20), max_size=3))
def test_blocks_do_not_depend_on_how_the_input_was_cut(pieces: list[bytes], big: list[int]) -> None:
    for place in big:
        pieces[place:place] = [bytes([place]) * (BLOCK - 1000)]
    whole = b"".join(pieces)

    blocks = list(packing._blocks(pieces))

    assert b"".join(blocks) == whole
    assert all(len(block) == BLOCK for block in blocks[:-1])
    assert all(0 < len(block) <= BLOCK for block in blocks)
    assert blocks == list(packing._blocks([whole]))


async def test_a_file_of_the_store_is_read_to_the_size_that_was_seen(
    tmp_path: Path, executor: Executor
) -> None:
    source = tmp_path / "grown"
    source.write_bytes(b"y" * 2000)
    stream = LayerStream([Entry("f", "file", 0o444, source=str(source), size=1500)], "none", executor)

    blob = b"".join(await packed(stream))

    assert blob == plain(file("f", b"y" * 1500, 0o444))


async def test_a_file_that_became_shorter_is_no_layer(tmp_path: Path, executor: Executor) -> None:
    source = tmp_path / "cut"
    source.write_bytes(b"y" * 1000)
    stream = LayerStream([Entry("f", "file", 0o444, source=str(source), size=1500)], "none", executor)

    with pytest.raises(PackageUnusable, match="became 500 bytes shorter"):
        await packed(stream)
    with pytest.raises(DigestNotReady):
        _ = stream.layer


# --- the members of a layer -------------------------------------------------------------------------------


def put(store: Path, path: str, text: str = "", mode: int = 0o644) -> Path:
    target = store / "nix/store" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


def link(store: Path, path: str, target: str) -> None:
    place = store / "nix/store" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def test_a_layer_holds_its_store_paths_sorted_and_in_the_modes_of_nix(store: Path) -> None:
    put(store, "b-pkg/bin/run", "#!/bin/sh\n", 0o755)
    put(store, "b-pkg/bin.d", "x", 0o600)
    put(store, "b-pkg/a", "", 0o4711)
    link(store, "b-pkg/link", "../a-file/./x")
    (store / "nix/store/b-pkg/empty").mkdir(mode=0o700)
    put(store, "a-file", "hello", 0o640)

    entries = list(store_entries([f"{STORE}/b-pkg", f"{STORE}/a-file"], str(store)))

    real = f"{store}/nix/store"
    assert entries == [
        directory("nix"),
        directory("nix/store"),
        Entry("nix/store/a-file", "file", 0o444, source=f"{real}/a-file", size=5),
        directory("nix/store/b-pkg", 0o555),
        Entry("nix/store/b-pkg/a", "file", 0o555, source=f"{real}/b-pkg/a", size=0),
        directory("nix/store/b-pkg/bin", 0o555),
        Entry("nix/store/b-pkg/bin/run", "file", 0o555, source=f"{real}/b-pkg/bin/run", size=10),
        Entry("nix/store/b-pkg/bin.d", "file", 0o444, source=f"{real}/b-pkg/bin.d", size=1),
        directory("nix/store/b-pkg/empty", 0o555),
        symlink("nix/store/b-pkg/link", "../a-file/./x"),
    ]


def test_a_store_path_may_be_a_link(store: Path) -> None:
    link(store, "a", "/nix/store/nowhere")

    *_, last = store_entries([f"{STORE}/a"], str(store))

    assert last == symlink("nix/store/a", "/nix/store/nowhere")


def test_a_layer_of_no_paths_is_the_empty_store() -> None:
    assert list(store_entries([])) == [directory("nix"), directory("nix/store")]


def test_a_pipe_has_no_place_in_a_layer(store: Path) -> None:
    os.mkfifo(store / "nix/store/pipe")

    with pytest.raises(PackageUnusable, match="/nix/store/pipe is neither"):
        list(store_entries([f"{STORE}/pipe"], str(store)))


async def test_equal_files_give_equal_layers_whatever_the_host_says_of_them(
    tmp_path: Path, executor: Executor
) -> None:
    layers = []
    for number, umask in enumerate((0o644, 0o600)):
        prefix = tmp_path / str(number)
        first = put(prefix, "x/a", "same", umask)
        os.utime(first, (number * 1000, number * 1000))
        if number:
            (first.parent / "b").hardlink_to(first)  # as an optimised store has it
        else:
            put(prefix, "x/b", "same", umask)
        stream = LayerStream(store_entries([f"{STORE}/x"], str(prefix)), "gzip", executor)
        await packed(stream)
        layers.append(stream.layer)

    assert layers[0] == layers[1]


async def test_a_name_that_is_no_utf_8_survives(store: Path, executor: Executor) -> None:
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("names are not UTF-8 here")
    put(store, "x/" + os.fsdecode(b"caf\xe9"), "latin")
    stream = LayerStream(store_entries([f"{STORE}/x"], str(store)), "none", executor)

    blob = b"".join(await packed(stream))

    with tarfile.open(fileobj=io.BytesIO(blob), encoding="utf-8", errors="surrogateescape") as archive:
        assert [os.fsencode(name) for name in archive.getnames()][-1] == b"nix/store/x/caf\xe9"


# --- the store as the root tree sees it -------------------------------------------------------------------


def test_kinds_are_those_of_what_links_lead_to(store: Path) -> None:
    put(store, "a/bin/run", "", 0o555)
    put(store, "a/data", "", 0o444)
    link(store, "a/to-file", "data")
    link(store, "a/to-program", "/nix/store/a/bin/run")
    link(store, "a/to-directory", "./bin")
    link(store, "a/up", "bin/../bin/../bin/run")
    link(store, "a/dangling", "nothing")
    listing = StoreListing(str(store))

    kinds = listing.children(f"{STORE}/a")

    assert list(kinds.items()) == [
        ("bin", "directory"),
        ("dangling", "file"),
        ("data", "file"),
        ("to-directory", "directory"),
        ("to-file", "file"),
        ("to-program", "executable"),
        ("up", "executable"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("none", id="nothing"),
        pytest.param("a/none", id="nothing in a directory"),
        pytest.param("a/data/x", id="below a file"),
        pytest.param("a/dangling", id="a link to nothing"),
        pytest.param("a/dangling/x", id="below a link to nothing"),
        pytest.param("a/self", id="a link to itself"),
        pytest.param("a/ping", id="two links to each other"),
        pytest.param("a/deeper", id="a link below itself"),
    ],
)
def test_there_is_nothing(store: Path, path: str) -> None:
    put(store, "a/data")
    link(store, "a/dangling", "nothing")
    link(store, "a/self", "self")
    link(store, "a/ping", "pong")
    link(store, "a/pong", "/nix/store/a/ping")
    link(store, "a/deeper", "deeper/deeper")

    assert StoreListing(str(store)).kind(f"{STORE}/{path}") is None


@pytest.mark.parametrize(("length", "kind"), [(40, "file"), (41, None)])
def test_as_many_links_are_followed_as_linux_follows(store: Path, length: int, kind: str | None) -> None:
    put(store, "a/0")
    for number in range(length):
        link(store, f"a/{number + 1}", str(number))

    assert StoreListing(str(store)).kind(f"{STORE}/a/{length}") == kind


def test_a_link_into_the_store_stays_in_a_store_with_a_prefix(store: Path) -> None:
    put(store, "real/lib/x.so", "of the prefix")
    link(store, "a/lib", "/nix/store/real/lib")
    link(store, "a/escape", "/etc/passwd")
    listing = StoreListing(str(store))

    assert listing.kind(f"{STORE}/a/lib") == "directory"
    assert list(listing.children(f"{STORE}/a/lib")) == ["x.so"]
    assert listing.read(f"{STORE}/a/lib/x.so") == "of the prefix"
    assert listing.kind(f"{STORE}/a/escape") is None


def test_ways_up_never_leave_the_prefix(store: Path) -> None:
    put(store, "a/x")
    link(store, "a/out", "../../../../../../../../nix/store/a/x")

    assert StoreListing(str(store)).kind(f"{STORE}/a/out") == "file"


@pytest.mark.parametrize("prefix", ["", "/"])
def test_what_is_not_in_the_store_is_not_seen(tmp_path: Path, prefix: str) -> None:
    """A link of a package to /var/lib says something about this host, and nothing about the package."""
    (tmp_path / "text").write_text("of this host")
    listing = StoreListing(prefix.rstrip("/"))

    assert listing.kind(f"{tmp_path}/text") is None
    assert listing.children(str(tmp_path)) == {}


def test_a_link_out_of_the_store_is_a_file(tmp_path: Path) -> None:
    package = tmp_path / "nix/store/a"
    package.mkdir(parents=True)
    (tmp_path / "var/lib").mkdir(parents=True)
    (package / "state").symlink_to("/var/lib")

    assert StoreListing(str(tmp_path)).children("/nix/store/a") == {"state": "file"}
