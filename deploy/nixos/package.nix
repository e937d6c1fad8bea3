# nixfront as a package of Nix: `pkgs.callPackage ./deploy/nixos/package.nix { }`. The wrapper puts the programs that it starts on its PATH.
# `source` is the folder of a checkout.
{ lib, python3Packages, makeWrapper, nix, git, util-linux, docker-distribution ? null, source ? ../.. }:
python3Packages.buildPythonApplication {
  pname = "nixfront";
  version = builtins.head (builtins.match ''.*__version__ = "([^"]+)".*'' (builtins.readFile (source + "/proxy/__init__.py")));
  pyproject = true;
  src = builtins.path {
    name = "nixfront-source";
    path = source;
    filter = path: _: !(builtins.elem (baseNameOf path) [ ".git" ".venv" ".nixfront" "tests" "deploy" ]);
  };
  build-system = [ python3Packages.setuptools ];
  dependencies = with python3Packages; [
    aiohttp
    aiohttp-jinja2
    aiohttp-sse
    aiosqlite
    brotli
    cachetools
    cryptography
    cyclonedx-python-lib
    deflate
    h11
    license-expression
    packageurl-python
    prometheus-client
    pydantic
    python-debian
    pyyaml
    rapidfuzz
    redis
    rich
    shtab
    spdx-tools
    structlog
    tenacity
    typing-extensions
    zstandard
  ];
  # setup.cfg requires docker-registry-client, which nixpkgs lacks. Only `registry/management` needs it.
  pythonRemoveDeps = [ "docker-registry-client" ];
  pythonRelaxDeps = true;
  nativeBuildInputs = [ makeWrapper ];
  makeWrapperArgs = [
    "--prefix" "PATH" ":" (lib.makeBinPath ([ nix git util-linux ] ++ lib.optional (docker-distribution != null) docker-distribution))
  ];
  doCheck = false;
  meta = {
    description = "Build container images when they are pulled";
    license = lib.licenses.mit;
    mainProgram = "nixfront";
    platforms = lib.platforms.linux;
  };
}
