"""`nix/build-registry-image.nix`: Nix alone makes the image that the proxy pushes, digest by digest."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.core.model import DOCKER_LIST
from proxy.wiring import files
from tests.support.clients import skopeo_copy
from tests.support.front import PACKAGES, Front, front
from tests.support.image import FetchedImage, ValidatedImage
from tests.support.processes import run
from tests.support.servers import stock_registry
from tests.support.validate import check_image

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENTRY = files.EXPRESSIONS / "build-registry-image.nix"
PYTHON = Path(sys.executable).resolve()
# The set of the other tests, with the Python that runs this one.
SET = """
{ system, ... }:
let set = import ./packages { inherit system; }; in
set // {
  python3 = derivation {
    name = "python3";
    inherit system;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-euc" "mkdir -p $out/bin; printf '#!/bin/sh\\nexec PYTHON \\"$@\\"\\n' > $out/bin/python3; chmod +x $out/bin/python3" ];
  };
}
"""
COMMANDS = """\
mkdir -p srv/www
echo hi > srv/www/index.html
chmod 640 srv/www/index.html
rm bin/alpha
ln -s "$(readlink bin/hello)" bin/greet
"""
IMAGES = f"""
{{
  whole = {{
    packages = [ "hello" "alpha" ];
    contents = [ "STORE_PATH" ];
    extraCommands = ''{COMMANDS}'';
    uid = 7;
    gid = 8;
    maxLayers = 6;
  }};
}}
"""


@dataclass(frozen=True, slots=True)
class Built:
    """The document, and the image that it tells of, checked."""

    document: dict[str, Any]
    image: ValidatedImage


@dataclass(frozen=True, slots=True)
class Host:
    """A store with the set, and a proxy on it that compresses nothing."""

    folder: Path
    front: Front
    other: str  # a store path that is there

    def nix_build(self, *words: str, output: str = "") -> subprocess.CompletedProcess[str]:
        """How `nix-build` of our expression with these arguments ended."""
        attribute = ("-A", output) if output else ()
        entry = () if words[0] == "-E" else (str(ENTRY),)
        argv = ("nix-build", *entry, "--no-out-link", *attribute, *words)
        environment = {**os.environ, "NIX_REMOTE": str(self.folder / "store")}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    def built(self, *words: str, commanded: tuple[int, int] | None = None) -> Built:
        """What it made."""
        outcome = self.nix_build(*words)
        assert outcome.returncode == 0, outcome.stderr
        store = self.folder / "store"
        document = json.loads(Path(f"{store}{outcome.stdout.strip()}").read_bytes())
        for digest, location in document["layerLocations"].items():
            data = Path(f"{store}{location['path']}").read_bytes()
            assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
            assert location["size"] == len(data)
        stated = document["manifestLocation"]
        manifest = Path(f"{store}{stated['path']}").read_bytes()
        assert json.loads(manifest) == document["manifest"]
        paths = {digest: Path(f"{store}{at['path']}") for digest, at in document["layerLocations"].items()}
        fetched = FetchedImage(
            manifest,
            stated["mediaType"],
            stated["digest"],
            paths[document["manifest"]["config"]["digest"]].read_bytes(),
            tuple(paths[layer["digest"]] for layer in document["manifest"]["layers"]),
        )
        return Built(document, check_image(fetched, commanded=commanded))


def origin(image: ValidatedImage) -> tuple[str, ...]:
    """What the proxy says of its package set, as arguments."""
    labels: dict[str, str] = image.config["config"]["Labels"]  # type: ignore[index]
    told = {
        "name": labels["nixfront.package-set"],
        "revision": labels["nixfront.revision"],
        "narHash": labels["nixfront.nar-hash"],
        "created": image.config["created"],
    }
    return ("--argstr", "origin", json.dumps(told))


def sandbox() -> str:
    """What builds of these tests see of the host."""
    return f"/bin /usr /lib /lib64 {Path(sys.base_prefix).resolve()}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    folder = tmp_path_factory.mktemp("registry-image")
    shutil.copytree(PACKAGES, folder / "set" / "packages")
    (folder / "registry").mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("NIX_CONFIG", nix_config())
    (folder / "set" / "default.nix").write_text(SET.replace("PYTHON", str(PYTHON)))
    (folder / "images.nix").write_text("{ }")
    async with (
        stock_registry(folder / "registry") as registry,
        front(
            folder,
            folder / "nix-starts",
            registry.url,
            packages={"path": str(folder / "set")},
            images={"file": str(folder / "images.nix")},
            layers={"compression": "none", "most": 24},
        ) as running,
    ):
        await running.pull("beta")
        (other,) = (folder / "store/nix/store").glob("*-beta-1.0")
        (folder / "images.nix").write_text(IMAGES.replace("STORE_PATH", f"/nix/store/{other.name}"))
        yield Host(folder, running, f"/nix/store/{other.name}")
    patch.undo()


def nix_config() -> str:
    return f"substituters =\nsandbox = true\nsandbox-paths = {sandbox()}\nbuild-users-group =\n"


@pytest.fixture(autouse=True)
def _sandbox(nix_count: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_CONFIG", nix_config())


def given(host: Host, name: str, *packages: str) -> tuple[str, ...]:
    """The arguments for these packages."""
    return (
        "--argstr",
        "name",
        name,
        "--argstr",
        "packages",
        json.dumps(packages),
        "--arg",
        "set",
        str(host.folder / "set"),
    )


async def test_it_is_the_image_that_the_proxy_pushes(host: Host) -> None:
    pulled = await host.front.pull("hello/camelcase.innerpackage/gtk--2b")

    made = await asyncio.to_thread(
        host.built, *given(host, "any", "hello", "camelcase.innerpackage", "gtk+"), *origin(pulled)
    )

    assert made.image == pulled
    assert made.document["name"] == "any"
    _, _, body = await host.front.get("/v2/hello/camelcase.innerpackage/gtk--2b/tags/list")
    assert made.document["tag"] in json.loads(body)["tags"]
    locations = made.document["layerLocations"]
    for digest in [layer["digest"] for layer in made.document["manifest"]["layers"]]:
        assert locations[digest]["diffId"] == digest
    held = [path for at in locations.values() for path in at.get("storePaths", ())]
    assert len(held) == len(set(held)) == len(pulled.layers) - 1


async def test_systems_make_the_index_that_the_proxy_pushes(
    host: Host, tmp_path: Path, nix_count: Path
) -> None:
    both = tmp_path / "both"
    await asyncio.to_thread(shutil.copytree, PACKAGES / "platforms", both / "packages")
    text = SET.replace("PYTHON", str(PYTHON)).replace(
        "    inherit system;", "    system = builtins.currentSystem;"
    )
    (both / "default.nix").write_text(text)
    (tmp_path / "registry").mkdir()
    async with (
        stock_registry(tmp_path / "registry") as registry,
        front(
            tmp_path,
            nix_count,
            registry.url,
            packages={"path": str(both)},
            nix={"store": str(host.folder / "store")},
            layers={"compression": "none", "most": 24},
            image={"index": True, "platforms": ("linux/amd64", "linux/arm64")},
        ) as running,
    ):
        headers = {"Accept": DOCKER_LIST}
        _, answered, body = await running.get("/v2/hello/manifests/latest", headers=headers)
        index = json.loads(body)
        images = [await running.pull("hello", each["digest"]) for each in index["manifests"]]
        _, _, tags = await running.get("/v2/hello/tags/list")

    words = (
        *("--argstr", "name", "hello"),
        *("--argstr", "packages", '["hello"]'),
        *("--arg", "set", str(both)),
    )
    systems = ("--argstr", "systems", '["x86_64-linux", "aarch64-linux"]')
    outcome = await asyncio.to_thread(host.nix_build, *words, *systems, *origin(images[0]))
    assert outcome.returncode == 0, outcome.stderr
    store = host.folder / "store"
    document = json.loads(await asyncio.to_thread(Path(f"{store}{outcome.stdout.strip()}").read_bytes))

    assert document["manifest"] == index
    assert document["manifestLocation"]["digest"] == answered["Docker-Content-Digest"]
    assert document["tag"] in json.loads(tags)["tags"]
    made = {platform: each["manifestLocation"]["digest"] for platform, each in document["images"].items()}
    assert made == {"linux/amd64": images[0].digest, "linux/arm64": images[1].digest}

    other = await asyncio.to_thread(
        lambda: host.nix_build(*words, *systems, *origin(images[0]), output="image")
    )
    source, target = f"dir:{store}{other.stdout.strip()}", f"oci:{tmp_path / 'layout'}:x"
    await skopeo_copy(source, target, "--override-arch=arm64")
    inspected = await run(("skopeo", "--override-arch=arm64", "inspect", "--config", target))
    assert json.loads(inspected.stdout)["architecture"] == "arm64"


async def test_commands_contents_and_owner_make_the_named_image(host: Host) -> None:
    pulled = await host.front.pull("images/whole", commanded=(7, 8))
    words = (
        "--argstr",
        "contents",
        json.dumps([host.other]),
        "--argstr",
        "extraCommands",
        COMMANDS,
        "--arg",
        "uid",
        "7",
        "--argstr",
        "gid",
        "8",
        "--arg",
        "maxLayers",
        "6",
    )

    made = await asyncio.to_thread(
        lambda: host.built(*given(host, "whole", "hello", "alpha"), *words, *origin(pulled), commanded=(7, 8))
    )

    assert made.image == pulled
    assert made.image.files["srv/www/index.html"].mode == 0o640
    _, _, body = await host.front.get("/v2/images/whole/tags/list")
    assert made.document["tag"] in json.loads(body)["tags"]


async def test_as_oci_the_layers_are_the_same(host: Host) -> None:
    words = given(host, "any", "hello")

    docker = await asyncio.to_thread(host.built, *words)
    oci = await asyncio.to_thread(host.built, *words, "--argstr", "format", "oci", "--argstr", "tag", "v1")

    assert [layer.digest for layer in oci.image.layers] == [layer.digest for layer in docker.image.layers]
    assert oci.image.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert oci.document["tag"] == "v1"


async def test_it_follows_a_table_as_the_proxy_does(host: Host, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"format": 1, "source": "test", "groups": {"hello": 0, "common": 0}}))
    words = given(host, "any", "hello")

    alone = await asyncio.to_thread(host.built, *words)
    grouped = await asyncio.to_thread(host.built, *words, "--argstr", "table", str(table))

    assert len(grouped.image.layers) == len(alone.image.layers) - 1


async def test_without_a_word_the_set_is_nixpkgs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_PATH", f"nixpkgs={host.folder / 'set'}")

    made = await asyncio.to_thread(host.built, "--argstr", "name", "x", "--arg", "packages", '[ "hello" ]')

    labels: dict[str, str] = made.image.config["config"]["Labels"]  # type: ignore[index]
    assert labels["nixfront.package-set"] == "nixpkgs"
    assert made.image.config["created"] == "1980-01-01T00:00:00Z"


async def test_a_set_may_be_a_value(host: Host) -> None:
    path = str(host.folder / "set")
    called = f'import {path} {{ system = "x86_64-linux"; }}'

    one = await asyncio.to_thread(host.built, *given(host, "any", "hello"))
    other = await asyncio.to_thread(host.built, *given(host, "any", "hello")[:6], "--arg", "set", called)
    whole = f'import {ENTRY} {{ name = "any"; packages = [ (import {path} {{ system = "x86_64-linux"; }}).hello ]; '
    function = await asyncio.to_thread(host.built, "-E", whole + f"set = import {path}; }}")

    assert one.image.layers == other.image.layers == function.image.layers


async def test_always_can_be_left_out(host: Host) -> None:
    made = await asyncio.to_thread(host.built, *given(host, "any", "hello"), "--argstr", "always", "[]")

    assert "etc/ssl/certs/ca-bundle.crt" not in made.image.files


async def test_the_other_output_is_what_skopeo_reads(host: Host) -> None:
    words = given(host, "any", "hello")
    made = await asyncio.to_thread(host.built, *words)

    outcome = await asyncio.to_thread(lambda: host.nix_build(*words, output="image"))

    folder = Path(f"{host.folder / 'store'}{outcome.stdout.strip()}")
    digests = {digest.partition(":")[2] for digest in made.document["layerLocations"]}
    found = await asyncio.to_thread(os.listdir, folder)
    assert {*found} == {"version", "manifest.json", *digests}


MISTAKES: list[tuple[Callable[[Host], tuple[str, ...]], str]] = [
    (lambda host: given(host, "x", "helo"), "no package helo"),
    (lambda host: given(host, "x", "samename"), "samename could be sameName and samenamE"),
    (lambda host: given(host, "x", "notAPackage"), "notAPackage is no package but a set"),
    (lambda host: given(host, "x", "unfree"), "unfree-1.0 is refused (unfree: unfreeRedistributable)"),
    (lambda host: given(host, "x", "broken"), "this is how it failed"),
    (
        lambda host: (*given(host, "x", "hello"), "--argstr", "extraCommands", "echo so >&2; false"),
        "nixfront-root",
    ),
    (
        lambda host: given(host, "x", "hello", "whiteout"),
        "no image can hold the file /.wh.nix (from /nix/store/",
    ),
    (
        lambda host: (
            *("--argstr", "name", "x", "--argstr", "systems", '["x86_64-linux"]'),
            *("--arg", "set", f'import {host.folder / "set"} {{ system = "x86_64-linux"; }}'),
        ),
        "systems needs a package set that is a path or a function",
    ),
    (lambda host: given(host, "x", "whiteoutInside"), "share/deep/.wh..wh..opq): engines read a name"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
async def test_a_mistake_is_told(host: Host, words: Callable[[Host], tuple[str, ...]], message: str) -> None:
    outcome = await asyncio.to_thread(host.nix_build, *words(host))

    assert outcome.returncode != 0
    assert message in outcome.stderr


async def test_the_policy_can_allow(host: Host) -> None:
    policy = json.dumps({"allowUnfree": ["unfreeRedistributable"]})

    made = await asyncio.to_thread(host.built, *given(host, "x", "unfree"), "--argstr", "policy", policy)

    assert "bin/unfree" in made.image.files


async def test_a_newer_nix_makes_the_same(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*given(host, "any", "hello", "alpha"), "--argstr", "extraCommands", "chmod 700 etc")
    older = await asyncio.to_thread(lambda: host.built(*words, commanded=(0, 0)))

    monkeypatch.setenv("PATH", f"{Path(sys.prefix) / 'newer-nix/bin'}:/usr/bin:/bin")
    newer = await asyncio.to_thread(
        lambda: Host(tmp_path, host.front, host.other).built(*words, commanded=(0, 0))
    )

    assert newer.document == older.document
