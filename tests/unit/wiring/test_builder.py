"""The choice of a table, and what the operator is told of one that cannot be used."""

from pathlib import Path

import pytest

from proxy.core.errors import SettingsInvalid
from proxy.image import layer_table
from proxy.image.layer_table import NO_TABLE, LayerTable
from proxy.wiring import builder, files

DEBIAN = files.EXPRESSIONS / "debian"


def choose(file: str = "", kind: str = "nixpkgs", recipe: str = "") -> LayerTable:
    return builder.read_table(file, kind, recipe)


def test_a_set_that_is_not_ours_has_none() -> None:
    assert choose() == NO_TABLE
    assert choose(kind="demo", recipe="/some/recipe.json") == NO_TABLE


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        pytest.param("", "glibc bash git curl perl python3 python3-numpy", id="small"),
        pytest.param("big", "glibc bash git gcc clang ffmpeg go openjdk-17-jre-headless", id="big"),
    ],
)
def test_the_demo_set_has_one_that_knows_its_packages_whatever_their_version(recipe: str, names: str) -> None:
    table = choose(kind="demo", recipe=recipe)

    for name in names.split():
        assert table.group(f"/nix/store/{'0' * 32}-{name}-99.1-2+deb12u3") is not None, name


@pytest.mark.parametrize("file", ["packages.table.json", "packages-big.table.json"])
def test_what_is_shipped_is_the_text_that_popularity_writes(file: str) -> None:
    text = (DEBIAN / file).read_bytes()

    assert text == layer_table.write(layer_table.read(text)) + b"\n"


def test_the_operators_file_comes_first(tmp_path: Path) -> None:
    table = LayerTable({"glibc": 0})
    (tmp_path / "table.json").write_bytes(layer_table.write(table))

    assert choose(str(tmp_path / "table.json"), kind="demo") == table


@pytest.mark.parametrize("text", [None, "{}"], ids=["no file", "no table"])
def test_one_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "table.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(SettingsInvalid, match=rf"^layers\.table: {file} cannot be used: "):
        choose(str(file))
