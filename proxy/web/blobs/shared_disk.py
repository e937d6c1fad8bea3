"""Blobs in the storage folder of a registry on the same disk, once their digests are verified.

Rules of this file: it only reads, and knows no clients. A blob is there for a repository if the registry's own link
says so. It is handed out only after all its bytes were hashed, in a thread, and for as long as the file is the same one
(inode, time, size); until then, and for ever where the hash is another one, the caller has to ask the registry.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from cachetools import LRUCache

_log = logging.getLogger(__name__)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MOST_VERDICTS = 65536
_MOST_WAITING = 1024  # files that are still to be hashed; others will be when they are pulled again
_PIECE = 1 << 20
# Bytes between two looks whether a file is in memory: no more than systems read ahead at once.
_STEP = 1 << 18


@dataclass(frozen=True, slots=True)
class _Identity:
    """Which file it is: one that is written anew is another one."""

    path: str
    inode: int
    changed: int
    size: int


class SharedDisk:
    """The folder that the registry calls `rootdirectory`."""

    def __init__(self, folder: Path) -> None:
        """Files are hashed one after the other: pulls go on meanwhile."""
        self._root = folder / "docker" / "registry" / "v2"
        self._verdicts: LRUCache[_Identity, bool] = LRUCache(_MOST_VERDICTS)
        self._hashing: set[_Identity] = set()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="hashing")
        self._closed = False

    @asynccontextmanager
    async def open(self, repository: str, digest: str, size: int) -> AsyncIterator[FileIO | None]:
        """The blob of this size, verified; None where only the registry can answer."""
        found = await _shielded(
            asyncio.ensure_future(asyncio.to_thread(self._find, repository, digest, size))
        )
        if found is None:
            yield None
            return
        file, identity = found
        with file:
            if self._verdicts.get(identity):
                yield file
                return
        if identity not in self._verdicts and identity not in self._hashing:
            self._verify(identity, digest)
        yield None

    async def close(self) -> None:
        """Hash no more."""
        self._closed = True
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def _find(self, repository: str, digest: str, size: int) -> tuple[FileIO, _Identity] | None:
        """The open file, if the repository has this blob and its size is right."""
        if (match := _DIGEST.fullmatch(digest)) is None:
            return None
        hexadecimal = match[1]
        link = self._root / "repositories" / repository / "_layers" / "sha256" / hexadecimal / "link"
        data = self._root / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal / "data"
        try:
            if link.read_bytes().strip() != digest.encode("ascii"):
                return None
            file = FileIO(os.open(data, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except OSError as error:
            _log.debug("not on the shared disk digest=%s error=%s", digest, error)
            return None
        identity = _identity(data, file)
        if identity is None or identity.size != size:
            file.close()
            return None
        return file, identity

    def _verify(self, identity: _Identity, digest: str) -> None:
        """Begin to hash a file, unless too many are waiting."""
        if len(self._hashing) >= _MOST_WAITING or self._closed:
            return
        self._hashing.add(identity)
        future = asyncio.get_running_loop().run_in_executor(self._executor, self._hash, identity)
        future.add_done_callback(lambda done: self._verified(identity, digest, done))

    def _verified(self, identity: _Identity, digest: str, done: asyncio.Future[str]) -> None:
        self._hashing.discard(identity)
        if done.cancelled() or (digest_of_file := done.result()) == "":
            return
        self._verdicts[identity] = digest_of_file == digest
        if digest_of_file != digest:
            _log.warning(
                "a blob on the shared disk is damaged path=%s found=%s", identity.path, digest_of_file
            )

    def _hash(self, identity: _Identity) -> str:
        """The digest of the file; nothing if it is another one by now, cannot be read, or time is over."""
        hashed = hashlib.sha256()
        path = Path(identity.path)
        with contextlib.suppress(OSError), FileIO(path) as file:
            if _identity(path, file) == identity:
                while not self._closed and (piece := file.read(_PIECE)):
                    hashed.update(piece)
                if not self._closed and _identity(path, file) == identity:
                    return f"sha256:{hashed.hexdigest()}"
        return ""


async def _shielded(
    finding: asyncio.Future[tuple[FileIO, _Identity] | None],
) -> tuple[FileIO, _Identity] | None:
    """The open file; it is closed again if the caller was cancelled meanwhile."""

    def close(done: asyncio.Future[tuple[FileIO, _Identity] | None]) -> None:
        if not done.cancelled() and (found := done.result()) is not None:
            found[0].close()

    try:
        return await asyncio.shield(finding)
    except asyncio.CancelledError:
        finding.add_done_callback(close)
        raise


def in_memory(file: FileIO, offset: int, count: int) -> bool:
    """Whether this part of a file can be sent without a wait for the disk, as far as the system tells."""
    try:
        for at in (*range(offset, offset + count, _STEP), offset + count - 1):
            os.preadv(file.fileno(), [bytearray(1)], at, os.RWF_NOWAIT)
    except OSError:  # it would have to wait, or cannot tell
        return False
    return True


def fetch(file: FileIO, offset: int, count: int) -> None:
    """Read this part of a file, so that it is in memory; for a thread. Raises `OSError`."""
    os.preadv(file.fileno(), [bytearray(count)], offset)


def _identity(path: Path, file: FileIO) -> _Identity | None:
    """Of an open file; None if it is no regular one."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return None
    return _Identity(str(path), status.st_ino, status.st_mtime_ns, status.st_size)
