"""Store paths on disk -> the bytes of a layer, hashed, counted and compressed in the one pass that uploads them.

Compression is part of what a digest depends on, so its bytes must be the same on every machine: libdeflate (pinned)
gives equal bytes on every processor, unlike ISA-L, and unlike zlib, which distributions replace by others. It takes
whole blocks only, so a layer is a row of gzip members of 1 MiB of tar each (RFC 1952, section 2.2: "a gzip file
consists of a series of members"; eStargz layers are made so too). Fixed blocks also mean that the bytes do not depend
on how the input happened to be cut. Memory: one block in, one block out, whatever the size of the layer.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import PurePosixPath

import deflate

from proxy import tarball
from proxy.errors import DigestNotReady, NixfrontError, PackageUnusable, StoreUnreadable
from proxy.manifest import Compression
from proxy.model import Layer
from proxy.rootfs import Kind
from proxy.tarball import Entry

BLOCK = 1 << 20  # bytes of tar in one gzip member
_LEVEL = 4
_SYMLINKS_FOLLOWED = 40  # as Linux does
_STORE = "/nix/store/"

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


def store_entries(paths: Iterable[str], prefix: str = "") -> Iterator[Entry]:
    """The members of a layer that holds these store paths: `nix`, `nix/store`, then each path, sorted.

    `prefix` is where the store's file system is mounted (empty for the system's own). Modes are those that Nix
    knows: 0555 for directories and programs, 0444 for other files. A hard link is a file like any other, so a store
    that was optimised gives the same bytes.
    """
    yield tarball.directory("nix")
    yield tarball.directory("nix/store")
    for path in sorted(paths):
        yield from _walk(path, prefix)


def _walk(path: str, prefix: str) -> Iterator[Entry]:
    real = _raw(prefix + path)
    status = os.lstat(real)
    member = path.lstrip("/")
    if stat.S_ISLNK(status.st_mode):
        yield tarball.symlink(member, _text(os.readlink(real)))  # noqa: PTH115 - the link, byte for byte
    elif stat.S_ISDIR(status.st_mode):
        yield tarball.directory(member, 0o555)
        for name in sorted(os.listdir(real)):  # noqa: PTH208 - names only; a Path for each costs more
            yield from _walk(f"{path}/{_text(name)}", prefix)
    elif stat.S_ISREG(status.st_mode):
        mode = 0o555 if status.st_mode & stat.S_IXUSR else 0o444
        yield Entry(member, tarball.FILE, mode, source=prefix + path, size=status.st_size)
    else:
        raise PackageUnusable(f"{path} is neither a file, a directory nor a symlink")


def _raw(path: str) -> bytes:
    """A path for the system. Names in the store are bytes; ours are UTF-8, whatever the locale of this host is."""
    return path.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    """The other way."""
    return name.decode("utf-8", "surrogateescape")


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
    with open(_raw(entry.source), "rb", buffering=0) as opened:  # noqa: PTH123 - bytes: see `_raw`
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


class StoreListing:
    """The store as `rootfs` sees it. `prefix` as in `store_entries`: symlinks in such a store are followed in it."""

    def __init__(self, prefix: str = "") -> None:
        """Look at the store whose file system is mounted at `prefix`."""
        self._prefix = prefix

    def kind(self, path: str) -> Kind | None:
        """What is at this path once symlinks are followed."""
        real = self._resolve(path)
        if real is None:
            return None
        mode = os.lstat(_raw(self._prefix + real)).st_mode
        if stat.S_ISDIR(mode):
            return "directory"
        return "executable" if mode & stat.S_IXUSR else "file"

    def children(self, path: str) -> Mapping[str, Kind]:
        """What this directory holds, sorted by name; a symlink that leads nowhere, or out of the store, is a file."""
        real = self._resolve(path)
        if real is None:
            return {}
        names = sorted(_text(name) for name in os.listdir(_raw(self._prefix + real)))  # noqa: PTH208
        return {name: self.kind(f"{real}/{name}") or "file" for name in names}

    def read(self, path: str) -> str:
        """The text of a small file."""
        real = self._prefix + (self._resolve(path) or path)
        with open(_raw(real), encoding="utf-8", errors="surrogateescape") as opened:  # noqa: PTH123
            return opened.read()

    def real(self, path: str) -> str:
        """The same place without symlinks on the way."""
        return self._resolve(path) or path

    def _resolve(self, path: str) -> str | None:
        """The same place without symlinks on the way; None for nothing, a circle, and what is not in the store."""
        todo = list(reversed(PurePosixPath(path).parts[1:]))
        done: list[str] = []
        followed = 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = "/" + "/".join([*done, part])
            try:
                link = self._link(here)
            except OSError:
                return None
            if link is None:
                done.append(part)
                continue
            followed += 1
            if followed > _SYMLINKS_FOLLOWED:
                return None
            target = PurePosixPath(link)
            if target.is_absolute():
                done = []
            todo.extend(reversed([piece for piece in target.parts if piece != "/"]))
        found = "/" + "/".join(done)
        return found if found.startswith(_STORE) else None

    def _link(self, path: str) -> str | None:
        """The target of the symlink at `path`, None when it is something else. Raises `OSError`."""
        real = self._prefix + path
        raw = _raw(real)
        return _text(os.readlink(raw)) if stat.S_ISLNK(os.lstat(raw).st_mode) else None  # noqa: PTH115
