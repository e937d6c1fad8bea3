"""The choice of a table, and what the operator is told of one that cannot be used."""

from pathlib import Path

import pytest

from proxy import popularity, tables
from proxy.errors import SettingsInvalid
from proxy.popularity import NO_TABLE, Table


def test_no_file_is_no_table() -> None:
    assert tables.choose("") == NO_TABLE


def test_the_operators_file_is_read(tmp_path: Path) -> None:
    table = Table({"glibc": 0})
    (tmp_path / "table.json").write_bytes(popularity.write(table))

    assert tables.choose(str(tmp_path / "table.json")) == table


@pytest.mark.parametrize("text", [None, "{}"], ids=["no file", "no table"])
def test_one_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "table.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(SettingsInvalid, match=rf"^layers\.table: {file} cannot be used: "):
        tables.choose(str(file))
