"""Write a file whole or not at all. Everything here blocks.

The bytes go into a new file in the same folder, which then takes the place of the old one in a single step. So a reader
finds the old bytes or all of the new ones, also when this process is killed in between. Several writers do not mix their
bytes: the last one to finish wins.

**After a power failure** a file that was not flushed may be empty, cut, full of zeros, or as it was before. A file `lasts` if
nothing can make it again: it is flushed, and so is the name that it got. All else is a cache: its reader takes any bytes, and
makes anew what is no record. deploy/backup.md says which files are of which kind.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from proxy.core.model import Buffer


def write_whole(path: Path, data: bytes, *, lasts: bool = False) -> None:
    """Write these bytes to `path`; `lasts`: they are on the disk when this returns.

    Raises `OSError`, after which `path` is as it was, or has the bytes.
    """
    with NewFile(path.parent) as file:
        file.write(data)
        if lasts:
            file.flush()
        file.move_to(path)
    if lasts:
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_newest(folder: Path, pattern: str, most: int) -> None:
    """Delete the files of this pattern in a folder, except for the `most` that were written last. Raises `OSError`."""
    by_age: list[tuple[float, Path]] = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process has just deleted it
            by_age.append((path.stat().st_mtime, path))
    for _, path in sorted(by_age, reverse=True)[most:]:
        path.unlink(missing_ok=True)


class NewFile:
    """A file whose place is decided last. Its context removes it unless `move_to` gave it one."""

    def __init__(self, folder: Path) -> None:
        """Create a file in `folder`, the folder of its later place or one on the same disk. Raises `OSError`."""
        self._path = folder / f".new-{secrets.token_hex(8)}"
        self._file: BinaryIO = self._path.open("xb")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what has no place."""
        self.remove()

    def write(self, data: Buffer) -> None:
        """Append these bytes. Raises `OSError`."""
        self._file.write(data)

    def flush(self) -> None:
        """Have the bytes on the disk. Raises `OSError`."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def move_to(self, path: Path) -> None:
        """Give the file its place, in the stead of what is there. Raises `OSError`."""
        self._file.close()
        self._path.replace(path)

    def remove(self) -> None:
        """Remove the file, unless it has its place."""
        self._file.close()
        self._path.unlink(missing_ok=True)
