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
