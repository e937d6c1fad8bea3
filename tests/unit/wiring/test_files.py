"""The files that come with the package are found, in a checkout as in an installed package."""

from pathlib import Path

import pytest

from proxy.wiring import files


@pytest.mark.parametrize(
    "name",
    [
        "default.nix",
        "source.nix",
        "resolve.nix",
        "describe.nix",
        "images.nix",
        "root.nix",
        "commands.nix",
        "commands.sh",
        "attribute-path.nix",
        "build-registry-image.nix",
        "debian/default.nix",
    ],
)
def test_the_nix_expressions_are_there(name: str) -> None:
    assert (files.EXPRESSIONS / name).is_file()


@pytest.mark.parametrize("name", ["nixfront.yml", "images.nix"])
def test_the_samples_are_there(name: str) -> None:
    assert (files.SAMPLES / name).is_file()


@pytest.mark.parametrize("folder", [files.EXPRESSIONS, files.SAMPLES])
def test_the_folders_do_not_depend_on_where_nixfront_is_started(folder: Path) -> None:
    assert folder.is_absolute()


@pytest.mark.parametrize("left", [None, b"", b"\x00" * 16, b"abc"])
def test_a_machine_has_a_name_of_its_own_whatever_a_power_failure_left(
    tmp_path: Path, left: bytes | None
) -> None:
    names = set()
    for data in (tmp_path / "one", tmp_path / "two"):
        data.mkdir()
        if left is not None:
            (data / "machine").write_bytes(left)
        names.add(files.machine(data))
        assert files.machine(data) in names, "it stays"

    assert len(names) == 2
    assert all(len(name) == 16 for name in names)
