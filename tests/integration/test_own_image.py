"""The container image of nixfront, made by nixfront: deploy/nixos/make-image, twice, on a stand-in for nixpkgs.

What cannot be had without nixpkgs is a stand-in: Nix itself, and the Python packages. The recipe, the source of nixfront, the
expressions and the image are real.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

from proxy import __version__
from tests.support.front import PACKAGES
from tests.support.image import ValidatedImage
from tests.support.layout import read_layout
from tests.support.processes import run, search_path, write
from tests.support.validate import check_image

RECIPE = Path(__file__).parents[2] / "deploy/nixos/make-image"
SET = """
arguments@{ system, config ? { }, overlays ? [ ] }:
let
  set = import ./packages.nix arguments;
  make = name: script: derivation { inherit system name; builder = "/bin/sh"; args = [ "-euc" script ]; PATH = "/usr/bin:/bin"; };
  program = name: text: make "${name}-1.0" ''
    mkdir -p $out/bin; printf '#!/bin/sh\\n${text}\\n' > $out/bin/${name}; chmod +x $out/bin/${name}
  '';
  python = builtins.listToAttrs (map (name: { inherit name; value = null; }) [ NAMES ]) // {
    buildPythonApplication = given: make "nixfront-${given.version}" ''
      mkdir -p $out/bin $out/share; cp -r ${given.src} $out/share/source; chmod -R u+w $out
      printf '#!/bin/sh\\necho nixfront ${given.version} "$@"\\n' > $out/bin/nixfront; chmod +x $out/bin/nixfront
    '' // { inherit (given) meta; };
  };
  lib = {
    makeBinPath = builtins.concatStringsSep ":";
    optional = condition: value: if condition then [ value ] else [ ];
    licenses.mit.spdxId = "MIT";
    platforms.linux = [ system ];
  };
in
set // rec {
  nix = program "nix-store" "cat > /loaded";
  gitMinimal = program "git" "";
  cacert = make "cacert" "mkdir $out";
  closureInfo = { rootPaths }: make "closure-info" ''
    mkdir $out; printf '%s\\n' ${builtins.concatStringsSep " " (map toString rootPaths)} > $out/registration
  '';
  callPackage = file: given: import file ({
    inherit lib nix; python3Packages = python; makeWrapper = null; git = gitMinimal; util-linux = nix;
  } // given);
}
"""


async def make(folder: Path, packages: Path) -> ValidatedImage:
    """The image, made with a store and a data folder of its own."""
    environment = {
        **os.environ,
        "PATH": search_path(),
        "NIXFRONT_DATA_DIR": str(folder / "data"),
        "NIXFRONT_NIX_STORE": str(folder / "store"),
        "NIXFRONT_PACKAGES_KIND": "path",
        "NIXFRONT_PACKAGES_PATH": str(packages),
    }
    made = await run((str(RECIPE), str(folder / "image")), env=environment, deadline=300)
    assert made.returncode == 0, made.output
    fetched = await asyncio.to_thread(read_layout, folder / "image", "latest")
    return await asyncio.to_thread(check_image, fetched)


async def test_nixfront_makes_its_own_image_to_the_same_digest(tmp_path: Path) -> None:
    text = (RECIPE.parent / "package.nix").read_text()
    names = text.partition("python3Packages; [")[2].partition("]")[0].split()
    packages = tmp_path / "set"
    write(packages / "packages.nix", (PACKAGES / "default.nix").read_text())
    quoted = " ".join(f'"{name}"' for name in [*names, "setuptools"])
    write(packages / "default.nix", SET.replace("NAMES", quoted))

    image = await make(tmp_path / "first", packages)

    config: Any = image.config
    assert config["config"]["Entrypoint"] == ["/start"]
    assert config["config"]["Cmd"] == ["serve"]
    assert "NIXFRONT_HTTP_ADDR=0.0.0.0:8080" in config["config"]["Env"]
    assert list(config["config"]["ExposedPorts"]) == ["8080/tcp"]
    assert image.files["start"].mode == 0o755
    assert image.files["registration"].target.endswith("-closure-info/registration")
    program = image.files["bin/nixfront"].target
    assert f"-nixfront-{__version__}/bin/nixfront" in program
    source = program.lstrip("/").removesuffix("bin/nixfront") + "share/source"
    assert f"{source}/proxy/__init__.py" in image.files
    assert f"{source}/nix/resolve.nix" in image.files
    again = await make(tmp_path / "second", packages)
    assert again == image, "another store, another folder, the same bytes"
