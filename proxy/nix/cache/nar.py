"""A NAR, as it arrives -> the members of a layer, the same as `image.store_tree` makes them of a store path on disk.

A NAR is a tree in one row of bytes: strings with their lengths in front, padded with zeros to eight bytes. The server that sends it
may lie, and only its end shows its hash. So nothing here trusts it. Names, depths, sizes and counts have bounds, and the names of a
directory are sorted and differ. One byte that Nix itself would not write ends the reading.
"""

import hashlib
from collections.abc import Callable, Iterator
from struct import Struct

from proxy.core.errors import CacheUnusable
from proxy.image import tar
from proxy.image.tar import Entry, raw_text

_LONGEST_NAME = 255  # bytes, as for the file systems of Linux
_LONGEST_PATH = 4095
_DEEPEST = 200
#: The largest trees of nixpkgs have some 200,000: those of TeX Live.
_MOST_MEMBERS = 1_000_000
#: A file of at most so many bytes comes with its content.
SMALL = 16 << 10
_LENGTH = Struct("<Q")


def _string(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text + bytes(-len(text) % 8)


def _words(*texts: bytes) -> bytes:
    return b"".join(map(_string, texts))


_MAGIC = _words(b"nix-archive-1")
_NODE = _words(b"(", b"type")
_REGULAR = _words(b"regular")
_EXECUTABLE = _words(b"executable", b"")
_CONTENTS = _words(b"contents")
_SYMLINK = _words(b"symlink", b"target")
_DIRECTORY = _words(b"directory")
_ENTRY = _words(b"entry", b"(", b"name")
_NODE_OF_ENTRY = _words(b"node")
_END = _words(b")")


class Feed:
    """The bytes of a NAR in the order of their arrival: counted and hashed, at most `size` of them."""

    def __init__(self, pieces: Iterator[bytes], size: int) -> None:
        self._pieces = pieces
        self._left = size
        self._piece = memoryview(b"")
        self._hash = hashlib.sha256()

    def fill(self, buffer: memoryview) -> int:
        """Put the next bytes into the buffer, at least one. Raises `CacheUnusable` where there are none."""
        if not self._piece:
            self._next()
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        if len(self._piece) >= count:
            data = bytes(self._piece[:count])
            self._piece = self._piece[count:]
            return data
        data_in_parts = bytearray(count)
        view = memoryview(data_in_parts)
        while view:
            view = view[self.fill(view) :]
        return bytes(data_in_parts)

    def starts(self, text: bytes) -> bool:
        """Whether the next bytes are these; then they are taken."""
        while len(self._piece) < len(text):
            rest = bytes(self._piece)
            self._next()
            self._piece = memoryview(rest + bytes(self._piece))
        if self._piece[: len(text)] != text:
            return False
        self._piece = self._piece[len(text) :]
        return True

    def digest(self) -> bytes:
        """The hash of the NAR, which has to end here. Raises `CacheUnusable` for one that is longer or shorter than it should be."""
        if self._piece or self._left or next(self._pieces, b""):
            raise CacheUnusable("its NAR has another size than its narinfo says")
        return self._hash.digest()

    def _next(self) -> None:
        piece = next(self._pieces, b"")
        if not piece:
            raise CacheUnusable("its NAR ends too early", elsewhere=True)
        if len(piece) > self._left:
            raise CacheUnusable("its NAR is longer than its narinfo says")
        self._left -= len(piece)
        self._hash.update(piece)
        self._piece = memoryview(piece)


def members(feed: Feed, path: str) -> Iterator[Entry]:
    """The members that this store path is, every directory before what is in it. Raises `CacheUnusable` for what is no NAR.

    The bytes of a large file are its `stream`. They have to be read before the next member.
    """
    if not feed.starts(_MAGIC):
        raise CacheUnusable("its NAR does not begin as one")
    yield from _Members(feed).node(path.lstrip("/"), 0)


class _Members:
    """The members of one NAR."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._count = 0

    def node(self, path: str, depth: int) -> Iterator[Entry]:
        """One node of the tree, with all below it."""
        feed = self._feed
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_MEMBERS or len(path) > _LONGEST_PATH:
            raise CacheUnusable(f"its NAR has more or deeper members than we take, at /{path[:200]}")
        if not feed.starts(_NODE):
            raise CacheUnusable(f"its NAR has something else than a member at /{path[:200]}")
        if feed.starts(_REGULAR):
            yield from self._file(path)
        elif feed.starts(_DIRECTORY):
            yield tar.directory(path, 0o555)
            yield from self._directory(path, depth)
            return  # which took the end too
        elif feed.starts(_SYMLINK):
            yield tar.symlink(path, raw_text(self._text(_LONGEST_PATH, path)))
        else:
            raise CacheUnusable(f"its NAR has a member of no kind at /{path[:200]}")
        if not feed.starts(_END):
            raise CacheUnusable(f"its NAR has a member without an end at /{path[:200]}")

    def _directory(self, path: str, depth: int) -> Iterator[Entry]:
        feed = self._feed
        before = b""
        while not feed.starts(_END):
            if not feed.starts(_ENTRY):
                raise CacheUnusable(f"its NAR has no list of members at /{path[:200]}")
            name = self._text(_LONGEST_NAME, path)
            if name in (b".", b"..") or b"/" in name or name <= before:
                raise CacheUnusable(f"its NAR has a name that no directory has, in /{path[:200]}")
            before = name
            if not feed.starts(_NODE_OF_ENTRY):
                raise CacheUnusable(f"its NAR has a name of nothing in /{path[:200]}")
            yield from self.node(f"{path}/{raw_text(name)}", depth + 1)
            if not feed.starts(_END):
                raise CacheUnusable(f"its NAR has a member without an end in /{path[:200]}")

    def _file(self, path: str) -> Iterator[Entry]:
        feed = self._feed
        mode = 0o555 if feed.starts(_EXECUTABLE) else 0o444
        if not feed.starts(_CONTENTS):
            raise CacheUnusable(f"its NAR has a file without contents at /{path[:200]}")
        (size,) = _LENGTH.unpack(feed.take(8))
        if size <= SMALL:
            yield Entry(path, tar.FILE, mode, content=feed.take(size), size=size)
        else:
            file = _File(feed.fill, size)
            yield Entry(path, tar.FILE, mode, size=size, stream=file.fill)
            file.check_end()
        self._padding(size, path)

    def _text(self, longest: int, path: str) -> bytes:
        """A string of at least one byte and at most so many, without NUL."""
        (size,) = _LENGTH.unpack(self._feed.take(8))
        if not 0 < size <= longest:
            raise CacheUnusable(f"its NAR has a name or target of {size} bytes in /{path[:200]}")
        text = self._feed.take(size)
        if b"\0" in text:
            raise CacheUnusable(f"its NAR has a name or target with a NUL in /{path[:200]}")
        self._padding(size, path)
        return text

    def _padding(self, size: int, path: str) -> None:
        if any(self._feed.take(-size % 8)):
            raise CacheUnusable(f"its NAR is not padded with zeros at /{path[:200]}")


class _File:
    """The bytes of one file of a NAR."""

    def __init__(self, fill: Callable[[memoryview], int], size: int) -> None:
        self._fill = fill
        self._left = size

    def fill(self, buffer: memoryview) -> int:
        """As `Feed.fill`, and no further than the end of the file."""
        count = self._fill(buffer[: self._left])
        self._left -= count
        return count

    def check_end(self) -> None:
        """The bytes of the file were all read; a reader that skips it reads them here."""
        buffer = memoryview(bytearray(min(self._left, 1 << 16)))
        while self._left:
            self.fill(buffer)
