"""The page about package sets, done as it says: its files written, its commands run."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from proxy import cli
from tests.support.front import PACKAGES
from tests.support.layout import named_in, read_layout
from tests.support.validate import check_image

PAGE = (Path(__file__).parents[2] / "config/packages.md").read_text(encoding="utf-8")
#: What the page's set takes from nixpkgs, made of the tests' packages.
NIXPKGS = """
{ system }:
let
  tests = import ./tests.nix { inherit system; };
in
{
  inherit (tests) git cacert;
  jq = tests.alpha;
  shellcheck = tests.haskellPackages.ShellCheck;
  writeShellScriptBin = name: text: derivation {
    inherit name system text;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-euc" ''mkdir -p $out/bin; printf '%s\\n' '#!/bin/sh' "$text" > $out/bin/$name; chmod +x $out/bin/$name'' ];
  };
}
"""


def block(kind: str) -> str:
    """The first block of this kind."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, kind
    return found[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is `/srv`, `/etc` and `/tmp` of the page; its environment is the settings that every reader has of their own."""
    for name in [name for name in os.environ if name.startswith("NIXFRONT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NIXFRONT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NIXFRONT_NIX_STORE", str(tmp_path / "store"))
    packages, settings = tmp_path / "srv/packages", tmp_path / "etc/nixfront"
    (packages / "nixpkgs").mkdir(parents=True)
    (packages / "nixpkgs/default.nix").write_text(NIXPKGS)
    shutil.copy(PACKAGES / "default.nix", packages / "nixpkgs/tests.nix")
    (packages / "default.nix").write_text(block("nix"))
    settings.mkdir(parents=True)
    (settings / "nixfront.yml").write_text(block("yaml").replace("/srv/", f"{tmp_path}/srv/"))
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_the_page_about_package_sets_does_what_it_says(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = re.findall(r"^\$ nixfront (.+)$", block("console"), re.MULTILINE)
    printed = {}
    for line in lines:
        words = [re.sub(r"^((?:oci:)?)(/(?:etc|tmp)/)", rf"\1{here}\2", word) for word in shlex.split(line)]
        assert cli.main(words) == 0, line
        printed[words[0]] = capsys.readouterr().out

    assert list(printed) == ["check-config", "search", "build"]
    assert printed["check-config"].endswith("nixfront.yml: fine\n")
    assert printed["search"].split()[:2] == ["tools.lint", "tools.lint"], "the attribute, and what to pull"
    check_image(read_layout(here / "tmp/lint", "latest"))
    assert printed["build"].strip().endswith(named_in(here / "tmp/lint", "latest")["digest"])


@pytest.mark.parametrize("name", re.findall(r"# HOST/([a-z./]+)$", block("nix"), re.MULTILINE))
def test_every_image_that_the_page_names_can_be_made(here: Path, name: str) -> None:
    config = str(here / "etc/nixfront/nixfront.yml")

    assert cli.main(["build", name, "--to", f"oci:{here / 'image'}", "--config", config]) == 0
    image = check_image(read_layout(here / "image", "latest"))
    assert image.layers
