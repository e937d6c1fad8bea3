"""The state in one SQLite file: what a single nixfront needs, and nothing to install.

Write-ahead log, each write a transaction of its own. A connection with one thread of its own reads, and writes what can be made
again: after a power failure its last writes may be gone. A second one writes which tags and images are ours, and returns once
they are on the disk (`synchronous = FULL`): `prune` and moving tags need to know them. The file has a schema version, and an
older file is migrated, step by step, all or nothing. Leases and failures concern a single process, so they are in memory.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import aiosqlite

from proxy.core.errors import SettingsInvalid
from proxy.core.model import Layer, LayerPlan, canonical_json
from proxy.state import (
    INTERRUPTED,
    MOST_BUILDS,
    MOST_DELETED,
    MOST_ORIGINS,
    MOST_REVISIONS,
    BuildRecord,
    ImageRecord,
    TagRecord,
)
from proxy.state.memory import OneProcess
from proxy.state.outage import WriteBehind
from proxy.state.sqlite_schema import MIGRATIONS, RECORD_IMAGE

_log = logging.getLogger(__name__)
# Whether a blob is in one repository, and the first few of the others: both by the index, however many there are.
_RECALL = """
    SELECT key, digest, size, diff_id,
        EXISTS (SELECT 1 FROM blobs WHERE digest = layers.digest AND repository = ?),
        (SELECT group_concat(repository, ' ') FROM (
            SELECT repository FROM blobs WHERE digest = layers.digest AND repository <> ?
            ORDER BY repository LIMIT ?))
    FROM layers WHERE key IN (KEYS)
"""
_RECORD_BUILD = "INSERT OR REPLACE INTO builds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROP_OLD_BUILDS = (
    "DELETE FROM builds WHERE id IN (SELECT id FROM builds ORDER BY started DESC, id DESC LIMIT -1 OFFSET ?)"
)
_DROP_OLD_REVISIONS = (
    "DELETE FROM revisions WHERE (package_set, reference) IN "
    "(SELECT package_set, reference FROM revisions ORDER BY resolved DESC LIMIT -1 OFFSET ?)"
)
_IMAGES_OF_TAGS = "INSERT OR IGNORE INTO images (repository, digest, made, pulled) VALUES (?, ?, ?, 0)"
_RECORD_TAGS = "INSERT OR REPLACE INTO tags VALUES ROWS"
_DROP_OLD_DELETED = (
    "DELETE FROM images WHERE (repository, digest) IN (SELECT repository, digest FROM images "
    "WHERE deleted > 0 ORDER BY deleted DESC LIMIT -1 OFFSET ?)"
)
_BUSY = 10.0  # seconds that a write waits for another process (`nixfront prune` beside the server)
_PAGE = 500  # rows of a listing that are in memory at once


class SqliteState(OneProcess):
    """The state of one data folder; the methods are described in `State`."""

    def __init__(self, connection: aiosqlite.Connection, lasting: aiosqlite.Connection, name: str) -> None:
        """Use `open_state`. What `lasting` writes survives a power failure."""
        super().__init__()
        self._connection = connection
        self._lasting = lasting
        self._border = WriteBehind(name, (sqlite3.Error,), self._probe)

    async def recall(
        self, keys: Sequence[str], repository: str
    ) -> Mapping[str, tuple[Layer, tuple[str, ...]]]:
        layers = {}
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            query = _RECALL.replace("KEYS", ", ".join("?" * len(page)))
            for key, *layer, here, others in await self._read(
                query, repository, repository, MOST_ORIGINS, *page
            ):
                origins = (repository,) if here else ()
                layers[key] = (Layer(*layer), (*origins, *(others or "").split()))
        return layers

    async def record(self, key: str, plan: LayerPlan, layer: Layer, repository: str) -> None:
        paths = canonical_json(list(plan.paths)).decode()
        await self._write(
            "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?)",
            (key, layer.digest, layer.size, layer.diff_id, paths),
        )
        await self.seen(repository, layer.digest)

    async def seen(self, repository: str, *digests: str) -> None:
        rows = [(digest, repository) for digest in digests]
        await self._write("INSERT OR IGNORE INTO blobs VALUES (?, ?)", *rows)

    async def forget(self, digest: str, repository: str) -> None:
        await self._write("DELETE FROM blobs WHERE digest = ? AND repository = ?", (digest, repository))

    async def recall_tag(self, repository: str, tag: str) -> TagRecord | None:
        rows = await self._read("SELECT * FROM tags WHERE repository = ? AND tag = ?", repository, tag)
        return next((_tag(*row) for row in rows), None)

    async def record_tag(self, *records: TagRecord) -> None:
        images = {(record.repository, record.digest): record.checked for record in reversed(records)}
        await self._write(_IMAGES_OF_TAGS, *((*image, made) for image, made in images.items()), lasts=True)
        # One statement, thus one transaction, and one wait for the disk.
        rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(records))
        values = [tuple(value for record in records for value in astuple(record))] if records else []
        await self._write(_RECORD_TAGS.replace("ROWS", rows), *values, lasts=True)

    async def forget_tag(self, repository: str, tag: str) -> None:
        await self._write("DELETE FROM tags WHERE repository = ? AND tag = ?", (repository, tag), lasts=True)

    async def tags(self, repository: str) -> tuple[TagRecord, ...]:
        rows = await self._read("SELECT * FROM tags WHERE repository = ? ORDER BY tag", repository)
        return tuple(_tag(*row) for row in rows)

    async def images(self) -> AsyncIterator[ImageRecord]:
        last = ("", "")
        while rows := await self._read(
            "SELECT * FROM images WHERE (repository, digest) > (?, ?) AND deleted = 0 "
            "ORDER BY repository, digest LIMIT ?",
            *last,
            _PAGE,
        ):
            for row in rows:
                yield ImageRecord(*row)
            last = rows[-1][:2]

    async def recall_image(self, repository: str, digest: str) -> ImageRecord | None:
        rows = await self._read(
            "SELECT * FROM images WHERE repository = ? AND digest = ?", repository, digest
        )
        return next((ImageRecord(*row) for row in rows), None)

    async def newest_images(self, repository: str, most: int) -> Sequence[ImageRecord]:
        rows = await self._read(
            "SELECT * FROM images WHERE repository = ? AND deleted = 0 ORDER BY made DESC, digest LIMIT ?",
            repository,
            most,
        )
        return [ImageRecord(*row) for row in rows]

    async def record_image(self, record: ImageRecord) -> None:
        await self._write(
            RECORD_IMAGE, astuple(replace(record, pulled=0.0, deleted=0.0, pulls=0)), lasts=True
        )

    async def retire_image(self, repository: str, digest: str, when: float) -> None:
        await self._write(
            "UPDATE images SET deleted = ? WHERE repository = ? AND digest = ?", (when, repository, digest)
        )
        await self._write(_DROP_OLD_DELETED, (MOST_DELETED,))

    async def record_attached(self, repository: str, digest: str) -> None:
        await self._write(
            "UPDATE images SET due = 0 WHERE repository = ? AND digest = ?", (repository, digest)
        )

    async def record_pulls(self, pulls: Mapping[tuple[str, str], tuple[float, int]]) -> None:
        await self._write(
            "UPDATE images SET pulled = max(pulled, ?), pulls = pulls + ? WHERE repository = ? AND digest = ?",
            *((*pulled, repository, digest) for (repository, digest), pulled in sorted(pulls.items())),
        )

    async def forget_image(self, repository: str, digest: str) -> None:
        await self._write("DELETE FROM images WHERE repository = ? AND digest = ?", (repository, digest))

    async def recall_revision(self, package_set: str, reference: str) -> tuple[str, float] | None:
        rows = await self._read(
            "SELECT revision, resolved FROM revisions WHERE package_set = ? AND reference = ?",
            package_set,
            reference,
        )
        return next(((revision, when) for revision, when in rows), None)

    async def record_revision(self, package_set: str, reference: str, revision: str, when: float) -> None:
        await self._write(
            "INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?)", (package_set, reference, revision, when)
        )
        await self._write(_DROP_OLD_REVISIONS, (MOST_REVISIONS,))

    async def record_build(self, build: BuildRecord) -> bool:
        async def write() -> bool:
            await self._connection.execute_fetchall(_RECORD_BUILD, astuple(build))
            await self._connection.execute_fetchall(_DROP_OLD_BUILDS, (MOST_BUILDS,))
            return True

        return await self._border.read(write, False)

    async def builds(self, most: int) -> Sequence[BuildRecord]:
        rows = await self._read("SELECT * FROM builds ORDER BY started DESC, id DESC LIMIT ?", most)
        return tuple(BuildRecord(*row) for row in rows)

    async def end_builds(self, machine: str, when: float) -> None:
        await self._write(
            "UPDATE builds SET ended = ?, error = ? WHERE ended = 0 AND machine = ?",
            (when, INTERRUPTED, machine),
        )

    async def check(self) -> None:
        await self._border.check(lambda: self._connection.execute_fetchall("SELECT count(*) FROM tags"))

    async def close(self) -> None:
        """Writes that still wait are lost."""
        await self._border.close()

    async def _probe(self) -> None:
        """Write something: a full disk still allows reads."""
        await self._connection.execute_fetchall(f"PRAGMA user_version = {len(MIGRATIONS)}")

    async def _read(self, query: str, *values: object) -> list[Any]:
        async def call() -> list[Any]:
            return list(await self._connection.execute_fetchall(query, values))

        return await self._border.read(call, [])

    async def _write(self, statement: str, *rows: Iterable[object], lasts: bool = False) -> None:
        """One statement for each row, each its own transaction: there is nothing to roll back when one fails.

        `lasts`: it is on the disk when this returns.
        """
        connection = self._lasting if lasts else self._connection

        # `execute_fetchall` returns no cursor. One that this thread deletes resets its statement, which the connection's
        # thread may be using again.
        values = [tuple(row) for row in rows]

        async def call() -> None:
            for row in values:
                await connection.execute_fetchall(statement, row)

        await self._border.write(call)


@asynccontextmanager
async def open_state(file: Path) -> AsyncIterator[SqliteState]:
    """The state in this file, which is made if it is not there, and migrated if its schema is older.

    A file that is no database, or a damaged one, is renamed to `<name>.broken`, because its records can be made again. Raises
    `SettingsInvalid` if the schema is newer than ours.
    """
    connection = await _connect(file)
    try:
        version = await _version(connection)
        if version is None:
            await connection.close()
            _log.warning("the state is damaged and begins anew file=%s", file)
            for suffix in ("", "-wal", "-shm"):  # else SQLite writes the old log into the new file
                with contextlib.suppress(FileNotFoundError):
                    await asyncio.to_thread(Path(f"{file}{suffix}").replace, f"{file}.broken{suffix}")
            connection, version = await _connect(file), 0
        if version > len(MIGRATIONS):
            raise SettingsInvalid(
                f"{file} is of a newer nixfront (schema {version}, this one knows {len(MIGRATIONS)}): use that one, "
                "or move the file away; `nixfront reindex` makes most of it again"
            )
        await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        await connection.execute_fetchall("PRAGMA synchronous = NORMAL")
        for number, step in enumerate(MIGRATIONS[version:], version + 1):
            # All or nothing, even if nixfront is killed in between.
            await connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
        lasting = await _connect(file)
        try:
            await lasting.execute_fetchall("PRAGMA synchronous = FULL")
            state = SqliteState(connection, lasting, str(file))
            try:
                yield state
            finally:
                await state.close()
        finally:
            await lasting.close()
    finally:
        await connection.close()


def _tag(*row: Any) -> TagRecord:
    repository, tag, digest, key, checked, moving, replaced = row
    return TagRecord(repository, tag, digest, key, checked, bool(moving), replaced)


async def _connect(file: Path) -> aiosqlite.Connection:
    return await aiosqlite.connect(file, timeout=_BUSY, isolation_level=None)


async def _version(connection: aiosqlite.Connection) -> int | None:
    """The schema version of the file, 0 for a new file, None if the file is no database or a damaged one."""
    try:
        ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
        ((finding,),) = await connection.execute_fetchall("PRAGMA quick_check(1)")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise  # another process writes to a file that is sound
        return None
    return int(version) if finding == "ok" else None
