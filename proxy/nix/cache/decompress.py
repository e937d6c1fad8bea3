"""The files of a cache -> the NARs in them, piece by piece. What a file can grow to in one step is bounded.

All of it runs in threads: the libraries release the interpreter's lock while they work.
"""

import bz2
import lzma
from collections.abc import Callable, Iterator, Mapping
from typing import IO, cast

import zstandard

#: The next bytes of a file, and none at its end.
Read = Callable[[], bytes]

_PIECE = 1 << 18  # bytes of a NAR in one piece, at most
_XZ_MEMORY = 256 << 20  # xz -9 needs 65 MB
_ZSTD_WINDOW = 1 << 27  # the largest that zstd takes by default


def _whole(read: Read) -> Iterator[bytes]:
    return iter(read, b"")


def _streams(
    make: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor],
) -> Callable[[Read], Iterator[bytes]]:
    """A file of one stream or several, one after another, as parallel compressors write them."""

    def pieces(read: Read) -> Iterator[bytes]:
        data = read()
        while data:
            stream = make()
            while not stream.eof:
                if not data and stream.needs_input:
                    data = read()
                    if not data:
                        raise EOFError("the file ends too early")
                piece = stream.decompress(data, _PIECE)
                data = b""
                if piece:
                    yield piece
            data = stream.unused_data or read()

    return pieces


class _File:
    """What a zstd stream reads from. A frame that breaks off is an error, which the library alone would not report."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most so many bytes, none at the end."""
        data = self._rest or self._read()
        self._rest = data[size:]
        return data[:size]


def _zstd(read: Read) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
        cast(IO[bytes], _File(read)), read_size=_PIECE, read_across_frames=True
    )
    while piece := reader.read(_PIECE):
        yield piece


#: How to read a file, by `Compression` of its narinfo.
DECOMPRESSORS: Mapping[str, Callable[[Read], Iterator[bytes]]] = {
    "none": _whole,
    "xz": _streams(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
    "bzip2": _streams(bz2.BZ2Decompressor),
    "zstd": _zstd,
}
