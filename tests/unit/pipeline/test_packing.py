"""Layers made of real files: the bytes and their digests."""

import asyncio
import gzip
import hashlib
import io
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from proxy.core.errors import DigestNotReady, PackageUnusable
from proxy.core.model import Buffer, Layer
from proxy.image import tar as image_tar
from proxy.image.manifest import Compression
from proxy.image.store_tree import store_entries
from proxy.image.tar import BLOCK, Entry, directory, file, symlink
from proxy.pipeline import packing
from proxy.pipeline.packing import LayerStream

# Fixed bytes that compress about as badly as a program does, of more than two blocks.
NOISE = b"".join(hashlib.sha256(f"{number}".encode()).digest() * 3 for number in range(24_000))
DIFF_ID = "sha256:ce20c671555678e20f627dd13f9149a981205f5473ae8e129848f057d9689ae3"
GOLDEN = (directory("nix"), directory("nix/store"), file("nix/store/x-noise", NOISE, 0o444))


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def packed(stream: LayerStream) -> list[Buffer]:
    return [block async for block in stream]


def plain(*entries: Entry) -> bytes:
    return b"".join(image_tar.archive(entries))


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
            Layer("sha256:252fb578969cdcdd880d76bdeac0cec47d0792c2bdb51c3e4e7c9ce77652ffb6", 810234, DIFF_ID),
        ),
        (
            "zstd",
            Layer("sha256:c017ea57a0312cc8da6b0047c942a4de2edac1776a7250cf2c1484378f52b01a", 791571, DIFF_ID),
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
    assert packing.CODECS == {
        "gzip": "tar1+gzip-members-1048576-libdeflate-2",
        "zstd": "tar1+zstd-frames-4194304-3",
        "none": "tar1",
    }


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_the_layer_says_what_was_read(executor: Executor, compression: Compression) -> None:
    entries = (directory("etc"), file("etc/x", b"x" * 3_000_000), symlink("y", "etc/x"))
    stream = LayerStream(entries, compression, executor)

    blob = b"".join(await packed(stream))

    assert stream.layer.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert stream.layer.size == len(blob)
    assert stream.layer.diff_id == f"sha256:{hashlib.sha256(plain(*entries)).hexdigest()}"


async def test_a_zstd_layer_is_the_archive_in_frames_of_one_block(executor: Executor) -> None:
    entries = [file("noise", NOISE * 3)]
    frames = await packed(LayerStream(entries, "zstd", executor))

    tar, size = plain(*entries), 4 * BLOCK
    assert [zstandard.decompress(frame) for frame in frames] == [tar[:size], tar[size:]]
    parameters = [zstandard.get_frame_parameters(frame) for frame in frames]
    assert [each.content_size for each in parameters] == [size, len(tar) - size]


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


async def test_no_more_is_made_than_a_few_blocks_ahead(executor: Executor) -> None:
    taken: list[str] = []

    def entries() -> Iterator[Entry]:
        for number in range(100):
            taken.append(str(number))
            yield file(f"f{number}", b"x" * BLOCK)

    blocks = aiter(LayerStream(entries(), "none", executor))

    await anext(blocks)
    await asyncio.sleep(0.1)

    assert len(taken) <= 5


async def test_no_more_is_made_while_one_block_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that wait for one before them count too: else a slow one lets all others pile up in memory."""
    first_goes_on, others_are_there = threading.Event(), threading.Event()
    begun: list[int] = []

    def pack(block: memoryview) -> memoryview:
        begun.append(len(block))
        if len(begun) >= 4:
            others_are_there.set()
        if bytes(block[:3]) == b"f0\0":
            first_goes_on.wait()
        return block

    monkeypatch.setitem(packing._PACK, "none", pack)
    entries = [file(f"f{number}", b"x" * BLOCK) for number in range(40)]
    with ThreadPoolExecutor(7) as several:
        stream = LayerStream(entries, "none", several)
        whole = asyncio.create_task(packed(stream))
        await asyncio.to_thread(others_are_there.wait)
        await asyncio.sleep(0.1)
        while_one_waits = len(begun)
        first_goes_on.set()
        await whole

    assert while_one_waits <= 4
    assert len(begun) > 40


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("threads", [1, 2, 7])
async def test_the_bytes_do_not_depend_on_how_many_threads_make_them(
    threads: int, compression: Compression
) -> None:
    entries = [file(f"f{number}", NOISE[number:] * 2, 0o444) for number in range(6)]
    with ThreadPoolExecutor(threads) as several, ThreadPoolExecutor(1) as one:
        first, second = (LayerStream(entries, compression, pool) for pool in (one, several))

        blobs = [b"".join(await packed(stream)) for stream in (first, second)]

    assert blobs[0] == blobs[1]
    assert first.layer == second.layer
    assert first.layer.digest == f"sha256:{hashlib.sha256(blobs[0]).hexdigest()}"


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


async def test_equal_files_give_equal_layers_whatever_the_host_says_of_them(
    tmp_path: Path, executor: Executor
) -> None:
    layers = []
    for number, mode in enumerate((0o644, 0o600)):
        package = tmp_path / str(number) / "nix/store/x"
        package.mkdir(parents=True)
        first, second = package / "a", package / "b"
        first.write_text("same")
        first.chmod(mode)
        os.utime(first, (number * 1000, number * 1000))
        if number:
            second.hardlink_to(first)  # as an optimised store has it
        else:
            second.write_text("same")
        stream = LayerStream(store_entries(["/nix/store/x"], str(tmp_path / str(number))), "gzip", executor)
        await packed(stream)
        layers.append(stream.layer)

    assert layers[0] == layers[1]


async def test_a_name_that_is_no_utf_8_survives(tmp_path: Path, executor: Executor) -> None:
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("names are not UTF-8 here")
    package = tmp_path / "nix/store/x"
    package.mkdir(parents=True)
    (package / os.fsdecode(b"caf\xe9")).write_text("latin")
    stream = LayerStream(store_entries(["/nix/store/x"], str(tmp_path)), "none", executor)

    blob = b"".join(await packed(stream))

    with tarfile.open(fileobj=io.BytesIO(blob), encoding="utf-8", errors="surrogateescape") as archive:
        assert [os.fsencode(name) for name in archive.getnames()][-1] == b"nix/store/x/caf\xe9"
