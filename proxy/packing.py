"""Store paths on disk -> the bytes of a layer, hashed, counted and compressed in the one pass that uploads them.

Compression is part of what a digest depends on, so its bytes must be the same on every machine: libdeflate (pinned)
gives equal bytes on every processor, unlike ISA-L, and unlike zlib, which distributions replace by others. It takes
whole blocks only, so a layer is a row of gzip members of 1 MiB of tar each (RFC 1952, section 2.2: "a gzip file
consists of a series of members"; eStargz layers are made so too). Fixed blocks also mean that the bytes do not depend
on how the input happened to be cut. Memory: one block in, one block out, whatever the size of the layer.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Executor

import deflate

from proxy import store, tarball
from proxy.errors import DigestNotReady, NixfrontError, PackageUnusable, StoreUnreadable
from proxy.manifest import Compression
from proxy.model import Layer
from proxy.tarball import Entry

BLOCK = 1 << 20  # bytes of tar in one gzip member
_LEVEL = 4

#: Names the bytes that come out: it is part of the key of a layer record and of an image.
CODECS: Mapping[Compression, str] = {
    "gzip": f"tar{tarball.FORMAT}+gzip-members-{BLOCK}-libdeflate-{_LEVEL}",
    "none": f"tar{tarball.FORMAT}",
}


class LayerStream:
    """The bytes of one layer, to be read once, with an `async for`; afterwards `layer` says what they were."""

    def __init__(self, entries: Iterable[Entry], compression: Compression, executor: Executor) -> None:
        """`entries` in their final order; reading and compressing run in `executor`, a block at a time."""
        self._blocks = self._read(entries, compression)
        self._executor = executor
        self._layer: Layer | None = None
        #: Why it could not be read, where that is so: who sends it may see no more than a broken connection.
        self.failure: NixfrontError | None = None

    @property
    def layer(self) -> Layer:
        """Digest, size and diff_id. Raises `DigestNotReady` before the last byte was read."""
        if self._layer is None:
            raise DigestNotReady("the layer was not read to its end")
        return self._layer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The layer's bytes in pieces of at most about 1 MiB; the next is made only when it is asked for."""
        loop = asyncio.get_running_loop()
        while (block := await loop.run_in_executor(self._executor, self._next)) is not None:
            yield block

    def _next(self) -> bytes | None:
        try:
            return next(self._blocks, None)
        except NixfrontError as error:
            self.failure = error
            raise
        except OSError as error:
            self.failure = StoreUnreadable(f"cannot read the Nix store: {error}")
            raise self.failure from error

    def _read(self, entries: Iterable[Entry], compression: Compression) -> Iterator[bytes]:
        diff_id, digest, size = hashlib.sha256(), hashlib.sha256(), 0
        for block in _blocks(_tar(entries)):
            diff_id.update(block)
            packed = deflate.gzip_compress(block, _LEVEL) if compression == "gzip" else block
            digest.update(packed)
            size += len(packed)
            yield bytes(packed)
        self._layer = Layer(f"sha256:{digest.hexdigest()}", size, f"sha256:{diff_id.hexdigest()}")


def _tar(entries: Iterable[Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield tarball.header(entry)
        if entry.kind == tarball.FILE:
            yield from _content(entry)
            yield tarball.padding(entry.size)
    yield tarball.END


def _content(entry: Entry) -> Iterator[bytes]:
    if not entry.source:
        yield entry.content
        return
    left = entry.size
    with open(store.raw(entry.source), "rb", buffering=0) as opened:  # noqa: PTH123 - bytes: see `store.raw`
        while left and (piece := opened.read(min(left, BLOCK))):
            left -= len(piece)
            yield piece
    if left:
        raise PackageUnusable(f"{entry.source} became {left} bytes shorter while it was read")


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of exactly `BLOCK`, the last one shorter."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        while len(pending) >= BLOCK:
            block = bytes(pending[:BLOCK])
            del pending[:BLOCK]
            yield block
    if pending:
        yield bytes(pending)
