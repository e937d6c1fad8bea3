"""The SQLite file itself: its schema versions, and what happens to one that is broken. The rest: the contract test."""

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest

from proxy.core.errors import SettingsInvalid
from proxy.core.model import Layer, LayerPlan
from proxy.state import TagRecord, layer_key
from proxy.state.sqlite import open_state

PLAN = LayerPlan(("/nix/store/a", "/nix/store/b"))
LAYER = Layer("sha256:aa", 123, "sha256:bb")
KEY = layer_key(PLAN, "tar1")

#: As the first version made it.
FIRST = """
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
PRAGMA user_version = 1;
"""


async def test_a_new_file_has_the_newest_schema(tmp_path: Path) -> None:
    async with open_state(tmp_path / "state"):
        pass

    assert ask(tmp_path / "state", "PRAGMA user_version") == [(6,)]
    assert files_of(tmp_path) == ["state"]


async def test_a_file_of_the_first_schema_is_migrated_and_keeps_its_records(tmp_path: Path) -> None:
    file = tmp_path / "state"
    ask(file, FIRST)
    ask(file, f"INSERT INTO layers VALUES ('{KEY}', 'sha256:aa', 123, 'sha256:bb', '[]')")  # noqa: S608
    ask(file, "INSERT INTO blobs VALUES ('sha256:aa', 'git')")

    tag = TagRecord("git", "latest", "sha256:cc", "key", 7.0)
    async with open_state(file) as state:
        await state.record_tag(tag)
        assert await state.recall([KEY], "git") == {KEY: (LAYER, ("git",))}
    async with open_state(file) as state:
        assert await state.recall_tag("git", "latest") == tag

    assert ask(file, "PRAGMA user_version") == [(6,)]
    assert schema_of(file) == schema_of(await fresh(tmp_path)), "a migrated file is like a new one"


async def test_a_migration_that_breaks_off_is_done_again(tmp_path: Path) -> None:
    file = tmp_path / "state"
    ask(file, FIRST)
    ask(file, "CREATE TABLE builds (in_the_way TEXT)")

    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        async with open_state(file):
            pass
    assert ask(file, "PRAGMA user_version") == [(1,)]
    assert "tags" not in dict(schema_of(file)), "all or nothing"

    ask(file, "DROP TABLE builds")
    async with open_state(file) as state:
        assert await state.recall_tag("git", "latest") is None
    assert ask(file, "PRAGMA user_version") == [(6,)]


async def test_a_file_of_a_newer_nixfront_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "state"
    ask(file, "PRAGMA user_version = 99")

    with pytest.raises(SettingsInvalid, match="schema 99, this one knows 6"):
        async with open_state(file):
            pass
    assert ask(file, "PRAGMA user_version") == [(99,)]


async def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "state"
    await asyncio.to_thread(file.write_bytes, b"this is no database, however long it is" * 100)

    async with open_state(file) as state:
        await state.record(KEY, PLAN, LAYER, "git")

    assert "state.broken" in files_of(tmp_path)
    async with open_state(file) as state:
        assert await state.recall([KEY], "git") == {KEY: (LAYER, ("git",))}


async def test_the_store_paths_can_be_read_by_people(tmp_path: Path) -> None:
    async with open_state(tmp_path / "state") as state:
        await state.record(KEY, PLAN, LAYER, "git")

    assert ask(tmp_path / "state", "SELECT store_paths FROM layers") == [('["/nix/store/a","/nix/store/b"]',)]


async def test_another_process_may_write_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "state"
    async with open_state(file) as server, open_state(file) as command:
        for number in range(20):
            await server.seen("server", f"sha256:{number}")
            await command.forget_tag("git", "latest")
            await command.seen("command", f"sha256:{number}")

    assert ask(file, "SELECT count(*) FROM blobs") == [(40,)]


def files_of(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def ask(file: Path, statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement, run by SQLite itself."""
    connection = sqlite3.connect(file)
    try:
        *first, last = [part for part in statements.strip().rstrip(";").split(";") if part.strip()]
        for statement in first:
            connection.execute(statement)
        rows = connection.execute(last).fetchall()
        connection.commit()
        return rows
    finally:
        connection.close()


def schema_of(file: Path) -> list[tuple[str, str]]:
    """Each table and index by name, its columns as a text."""
    names = [str(name) for (name,) in ask(file, "SELECT name FROM sqlite_master ORDER BY name")]
    return [(name, str(ask(file, f"PRAGMA table_info({name})"))) for name in names]


async def fresh(folder: Path) -> Path:
    async with open_state(folder / "fresh"):
        pass
    return folder / "fresh"


async def test_the_same_statement_from_many_sides_is_no_misuse(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cursor that is dropped in our thread would reset a statement that the connection's thread is at."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        async with open_state(tmp_path / "state") as known:
            for _ in range(30):
                await asyncio.gather(*(known.seen("git", f"sha256:{number}") for number in range(100)))
    finally:
        sys.setswitchinterval(usual)

    assert caplog.text == ""


async def test_that_a_tag_is_ours_is_on_the_disk_before_it_is_pulled(tmp_path: Path) -> None:
    """What `synchronous = FULL` means; other records may be gone after a power failure."""
    statements: list[str] = []
    async with open_state(tmp_path / "state") as state:
        ((level,),) = await state._lasting.execute_fetchall("PRAGMA synchronous")
        await state._lasting.set_trace_callback(statements.append)
        await state.record_tag(*(TagRecord("r", tag, "sha256:d", "key", 1.0) for tag in ("t", "u", "v")))
        await state.forget_tag("r", "other")
        await state.record_tag()

    assert level == 2
    assert [statement.split()[0] for statement in statements] == ["INSERT", "INSERT", "DELETE"], (
        "the disk is waited for once, however many tags there are"
    )
