"""What the operator's own files of Nix set: the files that Nix reads, and what they include."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.nix.commands import configuration


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("file", "environment"),
    [
        ("system/nix.conf", {}),
        ("home/.config/nix/nix.conf", {}),
        ("xdg/nix/nix.conf", {"XDG_CONFIG_HOME": "{at}/xdg"}),
        ("shared/nix/nix.conf", {"XDG_CONFIG_DIRS": "{at}/other:{at}/shared"}),
        ("mine.conf", {"NIX_USER_CONF_FILES": "{at}/none.conf:{at}/mine.conf"}),
    ],
)
def test_each_file_that_nix_reads_counts(tmp_path: Path, file: str, environment: Mapping[str, str]) -> None:
    base = {"NIX_CONF_DIR": "{at}/system", "HOME": "{at}/home", "XDG_CONFIG_DIRS": "{at}/none", **environment}
    chosen = {name: value.format(at=tmp_path) for name, value in base.items()}

    before = configuration.names(chosen)
    write(tmp_path / file, "# cores = 3\n  max-jobs = 0 # comment\nextra-substituters = http://c\n")

    assert before == frozenset()
    assert configuration.names(chosen) == {"max-jobs", "substituters"}


def test_included_files_count_and_a_file_may_include_itself(tmp_path: Path) -> None:
    write(tmp_path / "nix.conf", "include more.conf\n!include none.conf\ncores = 1\n")
    write(tmp_path / "more.conf", "!include nix.conf\nmax-jobs = 4\n")

    assert configuration.names({"NIX_CONF_DIR": str(tmp_path), "HOME": str(tmp_path)}) == {
        "cores",
        "max-jobs",
    }


def test_the_variable_counts(tmp_path: Path) -> None:
    nowhere = {"NIX_CONF_DIR": str(tmp_path), "HOME": str(tmp_path)}

    assert configuration.names({**nowhere, "NIX_CONFIG": "max-jobs = 1\n"}) == {"max-jobs"}
