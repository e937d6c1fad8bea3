"""Layer records on a real SQLite file."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from proxy.ledger import layer_key, open_ledger
from proxy.model import Layer, LayerPlan

PLAN = LayerPlan(("/nix/store/a", "/nix/store/b"))
LAYER = Layer("sha256:aa", 123, "sha256:bb")
KEY = layer_key(PLAN, "tar1")


@pytest.mark.parametrize(
    ("plan", "codec"),
    [
        pytest.param(LayerPlan(("/nix/store/a",)), "tar1", id="a path less"),
        pytest.param(LayerPlan(("/nix/store/a", "/nix/store/c")), "tar1", id="another path"),
        pytest.param(LayerPlan(("/nix/store/a /nix/store/b",)), "tar1", id="paths run together"),
        pytest.param(PLAN, "tar2", id="another codec"),
    ],
)
def test_whatever_the_bytes_depend_on_changes_the_key(plan: LayerPlan, codec: str) -> None:
    assert layer_key(plan, codec) != KEY


async def test_an_empty_ledger_knows_nothing(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger") as ledger:
        assert await ledger.recall(KEY) is None


async def test_a_record_is_recalled_with_where_its_blob_was(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.record(KEY, PLAN, LAYER, "git")

        assert await ledger.recall(KEY) == (LAYER, ("git",))
        assert await ledger.recall(layer_key(PLAN, "tar2")) is None


async def test_records_outlive_the_program(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.record(KEY, PLAN, LAYER, "git")

    async with open_ledger(tmp_path / "ledger") as ledger:
        assert await ledger.recall(KEY) == (LAYER, ("git",))


async def test_a_few_repositories_are_recalled_in_a_fixed_order(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.record(KEY, PLAN, LAYER, "z")
        for repository in ("c", "a", "d", "b", "a"):
            await ledger.seen(LAYER.digest, repository)

        assert await ledger.recall(KEY) == (LAYER, ("a", "b", "c"))


async def test_a_repository_that_lost_the_blob_is_forgotten_and_the_layer_is_not(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.record(KEY, PLAN, LAYER, "a")
        await ledger.seen(LAYER.digest, "b")

        await ledger.forget(LAYER.digest, "a")
        assert await ledger.recall(KEY) == (LAYER, ("b",))
        await ledger.forget(LAYER.digest, "b")
        await ledger.forget(LAYER.digest, "never")

    async with open_ledger(tmp_path / "ledger") as ledger:
        assert await ledger.recall(KEY) == (LAYER, ())


async def test_a_later_record_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    other = Layer("sha256:cc", 456, "sha256:dd")
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.record(KEY, PLAN, LAYER, "a")
        await ledger.record(KEY, PLAN, other, "b")

        assert await ledger.recall(KEY) == (other, ("b",))


async def test_many_records_at_once_are_all_kept(tmp_path: Path) -> None:
    plans = [LayerPlan((f"/nix/store/{number}",)) for number in range(50)]
    layers = [Layer(f"sha256:{number}", number, f"sha256:{number}") for number in range(50)]
    async with open_ledger(tmp_path / "ledger") as ledger:
        await asyncio.gather(
            *(
                ledger.record(layer_key(plan, "tar1"), plan, layer, "git")
                for plan, layer in zip(plans, layers, strict=True)
            )
        )

        recalled = await asyncio.gather(*(ledger.recall(layer_key(plan, "tar1")) for plan in plans))

    assert recalled == [(layer, ("git",)) for layer in layers]


async def test_a_new_ledger_is_of_the_first_schema_and_puts_nothing_aside(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger"):
        pass

    assert version(tmp_path / "ledger") == 1
    assert files_of(tmp_path) == ["ledger"]


async def test_a_ledger_of_another_schema_is_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    async with open_ledger(file) as ledger:
        await ledger.record(KEY, PLAN, LAYER, "git")
    set_version(file, 99)

    async with open_ledger(file) as ledger:
        assert await ledger.recall(KEY) is None
        await ledger.record(KEY, PLAN, LAYER, "new")

    assert version(tmp_path / "ledger.old") == 99
    async with open_ledger(file) as ledger:
        assert await ledger.recall(KEY) == (LAYER, ("new",))


async def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    await asyncio.to_thread(file.write_bytes, b"this is no database, however long it is" * 100)

    async with open_ledger(file) as ledger:
        await ledger.record(KEY, PLAN, LAYER, "git")

    assert "ledger.old" in files_of(tmp_path)
    async with open_ledger(file) as ledger:
        assert await ledger.recall(KEY) == (LAYER, ("git",))


async def test_the_store_paths_can_be_read_by_people(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.record(KEY, PLAN, LAYER, "git")

    connection = sqlite3.connect(tmp_path / "ledger")
    rows = connection.execute("SELECT store_paths FROM layers").fetchall()
    connection.close()

    assert rows == [('["/nix/store/a","/nix/store/b"]',)]


def files_of(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def set_version(file: Path, number: int) -> None:
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA user_version = {number}")
    connection.close()


def version(file: Path) -> int:
    connection = sqlite3.connect(file)
    ((number,),) = connection.execute("PRAGMA user_version")
    connection.close()
    return int(number)
