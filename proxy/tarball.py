"""Entries -> the bytes of a tar archive, every header field set by hand so that nothing comes from this host.

Owner by number without names, mtime 1 (as Nix itself stores files), entries in the order given. Only names that need it
get a PAX header, written by the standard library's tarfile, which adds neither clock nor process id.
"""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

DIRECTORY: Literal["directory"] = "directory"
FILE: Literal["file"] = "file"
SYMLINK: Literal["symlink"] = "symlink"
Kind = Literal["directory", "file", "symlink"]

#: Part of every layer's key: another number when the bytes of an archive change.
FORMAT = 1
MTIME = 1  # seconds since the epoch
END = bytes(2 * tarfile.BLOCKSIZE)

_TYPES = {DIRECTORY: tarfile.DIRTYPE, FILE: tarfile.REGTYPE, SYMLINK: tarfile.SYMTYPE}


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: `path` without a leading slash. A file has its `content` here, or `size` bytes at `source`."""

    path: str
    kind: Kind
    mode: int
    target: str = ""
    content: bytes = b""
    source: str = ""
    size: int = 0
    owner: tuple[int, int] = (0, 0)  # UID, GID


def directory(path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    """A directory."""
    return Entry(path, DIRECTORY, mode, owner=owner)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link; 0777, as the kernel shows every link."""
    return Entry(path, SYMLINK, 0o777, target=target)


def file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """A file whose bytes are known."""
    return Entry(path, FILE, mode, content=content, size=len(content))


def header(entry: Entry) -> bytes:
    """The header block(s) of a member, PAX where a plain one cannot say it."""
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode = entry.mode
    info.size = entry.size if entry.kind == FILE else 0
    info.mtime = MTIME
    info.linkname = entry.target
    info.uid, info.gid = entry.owner
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """The zero bytes that fill a file of `size` bytes up to a whole block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def archive(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A whole archive of entries whose content is known; a part for each header, content and padding."""
    for entry in entries:
        yield header(entry)
        if entry.content:
            yield entry.content
            yield padding(entry.size)
    yield END
