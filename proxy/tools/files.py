"""Write a file whole or not at all. Everything here blocks.

The bytes go into a new file in the same folder, which then takes the place of the old one in a single step. So a reader
finds the old bytes or all of the new ones, also when this process is killed in between. Several writers do not mix their
bytes: the last one to finish wins. Only what `lasts` is flushed to the disk; a power failure may cost the bytes of another file.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from proxy.core.model import Buffer


def write_whole(path: Path, data: bytes, *, lasts: bool = False) -> None:
    """Write these bytes to `path`. Raises `OSError`, after which `path` is as it was."""
    with NewFile(path.parent) as file:
        file.write(data)
        if lasts:
            file.flush()
        file.move_to(path)


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
