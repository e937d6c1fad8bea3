"""Entries -> the bytes of their archive, in blocks of one size, whatever the size of the files.

The standard library alone, and nothing asynchronous: the same code runs inside a Nix build under a bare Python.
"""

import io
from collections.abc import Callable, Iterable, Iterator

from proxy import store, tarball
from proxy.errors import PackageUnusable
from proxy.tarball import Entry

BLOCK = 1 << 20  # bytes of tar; also in one gzip member


def blocks(entries: Iterable[Entry], length: int = BLOCK) -> Iterator[memoryview]:
    """The archive in blocks of exactly `length` bytes, the last one shorter, each in memory of its own."""
    block, used = memoryview(bytearray(length)), 0
    for read_into, size in _sources(entries):
        left = size
        while left:
            read = read_into(block[used : used + left])  # no further than the block's end
            left -= read
            used += read
            if used == length:
                yield block
                block, used = memoryview(bytearray(length)), 0
    if used:
        yield block[:used]


def _sources(entries: Iterable[Entry]) -> Iterator[tuple[Callable[[memoryview], int], int]]:
    """What fills a buffer with the next bytes of the archive, and how many it has."""
    for entry in entries:
        header = tarball.header(entry)
        if not entry.source:
            member = b"".join((header, entry.content, tarball.padding(entry.size)))
            yield io.BytesIO(member).readinto, len(member)
            continue
        yield io.BytesIO(header).readinto, len(header)
        if entry.size:
            with io.FileIO(store.raw(entry.source)) as file:
                yield _reader(file, entry), entry.size
            padding = tarball.padding(entry.size)
            yield io.BytesIO(padding).readinto, len(padding)
    yield io.BytesIO(tarball.END).readinto, len(tarball.END)


def _reader(file: io.FileIO, entry: Entry) -> Callable[[memoryview], int]:
    """`readinto`, but that it raises `PackageUnusable` where the file has ended."""

    def read_into(buffer: memoryview) -> int:
        read = file.readinto(buffer)
        if not read:
            left = entry.size - file.tell()
            raise PackageUnusable(f"{entry.source} became {left} bytes shorter while it was read")
        return read

    return read_into
