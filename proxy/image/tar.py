"""Entries -> the bytes of a tar archive, in blocks of one size. Every header field is set here, so none comes from this host.

An owner is a number without a name, mtime is 1 (as Nix itself stores files), the order of entries is the caller's. A name
gets a PAX header only if it needs one. This module writes the headers of nearly all members itself: the standard library's
tarfile takes 60 to 130 us for a header, this code 3 to 6, and for small files that is a quarter of a layer's time. The rare
rest (names outside ASCII, files of 8 GiB, owners beyond 21 bits) goes to tarfile, whose bytes are the same, as a test says.

The standard library alone, and nothing asynchronous: the same code runs inside a Nix build under a bare Python.
"""

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from proxy.core.errors import PackageUnusable

DIRECTORY: Literal["directory"] = "directory"
FILE: Literal["file"] = "file"
SYMLINK: Literal["symlink"] = "symlink"
Kind = Literal["directory", "file", "symlink"]

#: Part of every layer's key: another number when the bytes of an archive change.
FORMAT = 1
MTIME = 1  # seconds since the epoch
END = bytes(2 * tarfile.BLOCKSIZE)
#: image-spec, "Whiteouts": a name that begins so is no file, but the order to delete one of a lower layer.
WHITEOUT = ".wh."

_NAME = 100  # bytes of a plain header's name, and of its target
_MOST_SIZE = 8**11  # the first size that eleven octal digits cannot hold
_MOST_OWNER = 8**7
_TYPES = {DIRECTORY: tarfile.DIRTYPE, FILE: tarfile.REGTYPE, SYMLINK: tarfile.SYMTYPE}


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: `path` without a leading slash. A file has its `content` here, or `size` bytes at `source`.

    A file of an archive that is still on its way has a `stream`: it fills a buffer with the next bytes of the file, and raises
    where these break off. Its bytes are read once, before the entry after it.
    """

    path: str
    kind: Kind
    mode: int
    target: str = ""
    content: bytes = b""
    source: str = ""
    size: int = 0
    owner: tuple[int, int] = (0, 0)  # UID, GID
    stream: Callable[[memoryview], int] | None = None


def directory(path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    """A directory."""
    return Entry(path, DIRECTORY, mode, owner=owner)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link; 0777, as the kernel shows every link."""
    return Entry(path, SYMLINK, 0o777, target=target)


def file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """A file whose bytes are in memory."""
    return Entry(path, FILE, mode, content=content, size=len(content))


def check_name(path: str, origin: str = "") -> None:
    """Raises `PackageUnusable` for a path that a layer cannot say; `origin`: where its file comes from."""
    if WHITEOUT in path and any(part.startswith(WHITEOUT) for part in path.split("/")):
        whence = f" (from {origin})" if origin else ""
        raise PackageUnusable(
            f"no image can hold the file /{path.lstrip('/')}{whence}: engines read a name that begins with {WHITEOUT} "
            "as the order to delete another file"
        )


def header(entry: Entry) -> bytes:
    """The header block(s) of a member: PAX where a plain header cannot hold it. Raises as `check_name`."""
    check_name(entry.path)
    name = entry.path + "/" if entry.kind == DIRECTORY else entry.path
    size = entry.size if entry.kind == FILE else 0
    plain = name.isascii() and entry.target.isascii() and size < _MOST_SIZE and max(entry.owner) < _MOST_OWNER
    if not plain:
        return _by_tarfile(entry, size)
    path, target = name.encode("ascii"), entry.target.encode("ascii")
    block = _block(path[:_NAME], _TYPES[entry.kind], entry.mode, entry.owner, size, MTIME, target[:_NAME])
    if len(path) <= _NAME and len(target) <= _NAME:
        return block
    records = (_record(b"path", path) if len(path) > _NAME else b"") + (
        _record(b"linkpath", target) if len(target) > _NAME else b""
    )
    extended = _block(b"././@PaxHeader", tarfile.XHDTYPE, 0, (0, 0), len(records), 0, b"")
    return b"".join((extended, records, padding(len(records)), block))


def _block(
    path: bytes, kind: bytes, mode: int, owner: tuple[int, int], size: int, mtime: int, target: bytes
) -> bytes:
    """One block of 512 bytes (POSIX ustar): fields of fixed widths, numbers in octal, the sum of all bytes in it."""
    before, after, constant = _constants(kind, mode, owner, mtime)
    length = b"%011o\0" % size
    checksum = constant + sum(path) + sum(length) + sum(target)
    return b"%b%b%b%b%06o\0 %b%b%b" % (
        path.ljust(_NAME, b"\0"), before, length, after[:12], checksum, kind, target.ljust(_NAME, b"\0"), after[12:]
    )  # fmt: skip


@lru_cache
def _constants(kind: bytes, mode: int, owner: tuple[int, int], mtime: int) -> tuple[bytes, bytes, int]:
    """The fields before the size; mtime and the fields after the target; the share of all of them and `kind` in the checksum."""
    before = b"%07o\0%07o\0%07o\0" % (mode & 0o7777, *owner)
    after = b"%011o\0" % mtime + b"ustar\x0000" + bytes(247)
    return before, after, sum(before) + sum(after) + sum(kind) + 8 * ord(" ")


def _record(key: bytes, value: bytes) -> bytes:
    """A record of an extended header: its own length in decimal, a space, `key=value`, a line break."""
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    length = bare + len(str(length))  # the length counts its own digits, which may be one more
    return b"%d %b=%b\n" % (length, key, value)


def _by_tarfile(entry: Entry, size: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode = entry.mode
    info.size = size
    info.mtime = MTIME
    info.linkname = entry.target
    info.uid, info.gid = entry.owner
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """The zero bytes that fill a file of `size` bytes up to a whole block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def archive(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A whole archive of entries whose content is in memory; a piece for each header, content and padding."""
    for entry in entries:
        yield header(entry)
        if entry.content:
            yield entry.content
            yield padding(entry.size)
    yield END


def raw(path: str) -> bytes:
    """A path as bytes, for the operating system. Names are UTF-8 here, whatever the locale of this host is."""
    return path.encode("utf-8", "surrogateescape")


def raw_text(name: bytes) -> str:
    """The text of a name that the operating system gave as bytes: the reverse of `raw`."""
    return name.decode("utf-8", "surrogateescape")


BLOCK = 1 << 20  # bytes of tar; also in one gzip member


def blocks(entries: Iterable[Entry], length: int = BLOCK) -> Iterator[memoryview]:
    """The archive in blocks of exactly `length` bytes, the last one shorter; no two blocks share memory."""
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
    """Pairs of a function that fills a buffer with the next bytes of the archive, and the number of bytes that it has."""
    for entry in entries:
        head = header(entry)
        if not entry.source and entry.stream is None:
            member = b"".join((head, entry.content, padding(entry.size)))
            yield io.BytesIO(member).readinto, len(member)
            continue
        yield io.BytesIO(head).readinto, len(head)
        if entry.size:
            if entry.stream is not None:
                yield entry.stream, entry.size
            else:
                with io.FileIO(raw(entry.source)) as file:
                    yield _reader(file, entry), entry.size
            end = padding(entry.size)
            yield io.BytesIO(end).readinto, len(end)
    yield io.BytesIO(END).readinto, len(END)


def _reader(file: io.FileIO, entry: Entry) -> Callable[[memoryview], int]:
    """As `readinto`, but raises `PackageUnusable` if the file ends too early."""

    def read_into(buffer: memoryview) -> int:
        read = file.readinto(buffer)
        if not read:
            left = entry.size - file.tell()
            raise PackageUnusable(f"{entry.source} became {left} bytes shorter while it was read")
        return read

    return read_into
