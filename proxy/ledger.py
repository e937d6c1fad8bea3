"""What a set of store paths became: layer records in SQLite, written only after the registry has the blob.

A record is a memory, not a truth: whoever recalls one asks the registry before believing it. Losing the file costs
uploads, never a wrong image. Two tables: `layers` (key -> digest, size, diff_id and the store paths for people to
read) and `blobs` (in which repositories a digest was seen, since a registry keeps blobs by repository).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite

from proxy.model import Layer, LayerPlan, canonical_json, sha256_hex

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE layers (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    store_paths TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE blobs (
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, repository)
) WITHOUT ROWID;
"""
_MOST_ORIGINS = 3  # repositories that are tried as the source of a mount


def layer_key(plan: LayerPlan, codec: str) -> str:
    """The key of a layer: a hash of everything its bytes depend on, which is its store paths and the codec."""
    return sha256_hex(canonical_json({"codec": codec, "paths": list(plan.paths)}))


class Ledger:
    """The records of one data folder."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        """Use `open_ledger`."""
        self._connection = connection

    async def recall(self, key: str) -> tuple[Layer, tuple[str, ...]] | None:
        """The layer that this key became, and a few repositories that had its blob; None if it is not known."""
        rows = await self._connection.execute_fetchall(
            "SELECT digest, size, diff_id FROM layers WHERE key = ?", (key,)
        )
        for digest, size, diff_id in rows:
            origins = await self._connection.execute_fetchall(
                "SELECT repository FROM blobs WHERE digest = ? ORDER BY repository LIMIT ?",
                (digest, _MOST_ORIGINS),
            )
            return Layer(digest, size, diff_id), tuple(repository for (repository,) in origins)
        return None

    async def record(self, key: str, plan: LayerPlan, layer: Layer, repository: str) -> None:
        """Remember that the registry has this layer's blob in this repository."""
        await self._connection.execute(
            "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?)",
            (key, layer.digest, layer.size, layer.diff_id, canonical_json(list(plan.paths)).decode()),
        )
        await self.seen(layer.digest, repository)

    async def seen(self, digest: str, repository: str) -> None:
        """Remember that a repository has a blob."""
        await self._connection.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest, repository))
        await self._connection.commit()

    async def forget(self, digest: str, repository: str) -> None:
        """The registry says that this repository has no such blob (any more)."""
        await self._connection.execute(
            "DELETE FROM blobs WHERE digest = ? AND repository = ?", (digest, repository)
        )
        await self._connection.commit()


@asynccontextmanager
async def open_ledger(file: Path) -> AsyncIterator[Ledger]:
    """The ledger in this file, made if it is not there (write-ahead log, one writer).

    A file of another schema version, or of none, is put aside as `<name>.old`: its records can be made again.
    """
    connection = await aiosqlite.connect(file)
    try:
        version = await _version(connection)
        if version not in (0, _SCHEMA_VERSION):
            await connection.close()
            await asyncio.to_thread(file.replace, file.with_name(file.name + ".old"))
            connection = await aiosqlite.connect(file)
            version = 0
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = NORMAL")
        if version == 0:  # all or nothing, also when we are killed in between
            await connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;")
        yield Ledger(connection)
    finally:
        await connection.close()


async def _version(connection: aiosqlite.Connection) -> int | None:
    """The schema version of the file, 0 for a new one, None for one that is no database."""
    try:
        ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    except sqlite3.DatabaseError:
        return None
    return int(version)
