"""Named images: an operator's file, real Nix, a real registry; what is pulled is what the file says."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.core.errors import SettingsInvalid
from proxy.core.events import LogLine
from proxy.registry.endpoint import Endpoint
from proxy.upkeep import explain
from proxy.wiring import files as wiring_files
from tests.support.front import PACKAGES, Front, front
from tests.support.image import ValidatedImage
from tests.support.servers import Server, stock_registry

pytestmark = pytest.mark.asyncio(loop_scope="module")
Start = Callable[..., AbstractAsyncContextManager[Front]]

FILE = """
{ pkgs, system, ... }:
let neighbour = import ./neighbour.nix; in
{
  plain.packages = [ "hello" ];

  Whole = {
    packages = [ "camelcase.innerPackage" pkgs.alpha "7zz" "gtk-plus" ];
    contents = [ ./files pkgs.beta "${pkgs.nano}" ];
    extraCommands = ''
      echo to the log >&2
      mkdir -p srv/www
      echo hi > srv/www/index.html
      chmod 640 srv/www/index.html
      chmod 2750 srv 2>/dev/null || chmod 710 srv
      echo '#!/bin/sh' > bin/mine
      chmod +x bin/mine
      rm bin/inner
      echo changed >> etc/passwd
      ln -s ${pkgs.twice}/bin/twice bin/renamed
      touch "$(printf 'srv/latin\\351')" 'srv/sp ace'
      chmod 000 srv/www
    '';
    uid = 7;
    gid = 8;
    user = "1000:1000";
    cmd = [ "-v" ];
    entrypoint = [ "${pkgs.several}/bin/several" ];
    env = { LANG = "C"; WHERE = "${pkgs.several.doc}"; };
    labels = { "org.opencontainers.image.title" = "whole"; };
    workdir = "/srv";
    exposedPorts = [ 80 "53/udp" ];
    maxLayers = 4;
  };

  "team/web" = { packages = [ "hello" ]; cmd = [ neighbour.text ]; };
  "a+b".packages = [ pkgs.hello ];
  sameName.packages = [ ];
  samenamE.packages = [ ];
  empty = { };
  system.cmd = [ system ];
  elsewhere = { packages = [ "hello" "onlyHere" ]; contents = [ pkgs.alpha ]; set = "other"; };

  # mistakes
  misspelt = { packges = [ ]; entryPoint = [ ]; };
  types = {
    packages = "hello"; contents = [ 1 ]; extraCommands = [ ]; uid = "0"; gid = -1; user = 1; cmd = "x"; entrypoint = [ 1 ];
    env.A = 1; labels = [ ]; workdir = 1; exposedPorts = 80; maxLayers = true; set = [ ];
  };
  texts = {
    contents = [ "/nix/store/short" "/etc" ]; uid = 4294967295; user = "a b"; env."A=B" = ""; labels."nixfront.x" = "";
    workdir = "srv"; exposedPorts = [ 0 "80/sctp" "80/x" 65536 ]; maxLayers = 126;
  };
  noSet = { set = "nosuch"; };
  noImage = pkgs.hello;
  unknown = { packages = [ "hello" "helo" ]; contents = [ pkgs.nothing or pkgs.alpha ]; extraCommands = "true"; };
  notAPackage.packages = [ "notAPackage" ];
  unfree.packages = [ "hello" pkgs.unfree ];
  insecure.contents = [ pkgs.insecure ];
  denied.packages = [ "copyleft" ];
  large.packages = [ pkgs.large "large" ];
  removed.packages = [ pkgs.refused ];
  curious.cmd = [ (builtins.readFile /etc/hostname) ];
  imports.packages = [ "importing" ];
  nowhere.contents = [ "/nix/store/00000000000000000000000000000000-nowhere" ];
  broken.packages = [ "broken" ];
  failing.extraCommands = "echo this is how it failed >&2; false; echo never";
  intoStore.extraCommands = "mkdir -p nix/store";
  whiteout.extraCommands = "touch bin/.wh.hello";
  versioned = { packages = [ "hello" ]; labels."org.opencontainers.image.version" = "3.1+x"; };
  holder.contents = [ pkgs.whiteout ];
  inside.packages = [ "whiteoutInside" ];
  socket.extraCommands = "exec 3<> /dev/null; /usr/bin/mkfifo etc/fifo";
}
"""

MISTAKES = [
    ("holder", "no image can hold the file /.wh.nix (from /nix/store/"),
    ("inside", "share/deep/.wh..wh..opq): engines read a name that begins with .wh."),
    ("who", "no image who, did you mean Whole?"),
    ("team", "no image team"),
    ("samename", "image samename could be sameName and samenamE, which differ only in case"),
    ("misspelt", "image misspelt: entryPoint is no key of an image, did you mean entrypoint?"),
    ("misspelt", "packges is no key of an image, did you mean packages?"),
    ("types", "packages has to be a list of attribute paths (strings) and derivations, and is a string"),
    ("types", "contents has to be a list of store paths (strings) and derivations, and is a list of int"),
    ("types", "extraCommands has to be a string, and is a list;"),
    ("types", "uid has to be a number that is not negative, and is a string"),
    ("types", "gid has to be a number that is not negative, and is a int"),
    ("types", "user has to be a string, and is a int"),
    ("types", "cmd has to be a list of strings, and is a string"),
    ("types", "entrypoint has to be a list of strings, and is a list of int"),
    ("types", "env has to be a set of strings, and is a set of int"),
    ("types", "labels has to be a set of strings, and is a list;"),
    ("types", "workdir has to be a string, and is a int"),
    ("types", "exposedPorts has to be a list of ports, each a number or a string"),
    ("types", "maxLayers has to be a number that is not negative, and is a bool"),
    ("types", "image types: cmd has to be"),
    ("types", "set has to be a string, and is a list;"),
    ("texts", "contents holds '/nix/store/short', which is no store path (/nix/store/HASH-NAME)"),
    ("texts", "contents holds '/etc', which is no store path"),
    ("texts", "uid is 4294967295, but the highest possible is 4294967294"),
    ("texts", "user 'a b' is no UID:GID and no name"),
    ("texts", "env holds 'A=B', which is no name of a variable"),
    ("texts", "labels holds 'nixfront.x'; names that start with nixfront. are nixfront's own"),
    ("texts", "workdir 'srv' is no absolute path"),
    ("texts", "exposedPorts holds 0, which is no port like 8080 or 53/udp"),
    ("texts", "exposedPorts holds '80/x', which is no port"),
    ("texts", "exposedPorts holds 65536, which is no port"),
    ("texts", "maxLayers has to be from 2 to 125"),
    ("noset", 'image noSet: set names no package set, but "nosuch"; there are other'),
    ("noimage", "image noImage: has to be a set that defines an image, and is a derivation"),
    ("unknown", "image unknown: no package helo, did you mean hello?"),
    ("notapackage", "image notAPackage: notAPackage is no package but a set"),
    ("unfree", "image unfree: unfree-1.0 has the unfree licence"),
    ("insecure", "image insecure: insecure-1.0 is insecure: CVE-2026-0001"),
    ("denied", "copyleft-1.0 has the licence GPL-3.0-or-later, which policy.deny_licenses"),
    ("large", "image large and what it needs are 5 MB"),
    ("removed", "refused has been removed, use hello"),
    ("curious", "forbidden in restricted mode"),
    ("imports", "import from derivation"),
    ("nowhere", "no binary cache has /nix/store/00000000000000000000000000000000-nowhere"),
    ("broken", "building image broken failed"),
    ("broken", "this is how it failed"),
    ("failing", "building the extraCommands of image failing failed"),
    ("failing", "this is how it failed"),
    ("intostore", "extraCommands: /nix is in other layers: nothing may be put there"),
    ("whiteout", "extraCommands: bin/.wh.hello has the name of a whiteout"),
    ("socket", "extraCommands: etc/fifo is neither a file, a directory nor a symlink"),
]


@dataclass(frozen=True, slots=True)
class Served:
    """nixfront with the file, and the folder of its store."""

    front: Front
    store: Path


def written(folder: Path, text: str = FILE) -> str:
    """The path of the operator's file, with what lies beside it."""
    (folder / "files" / "etc").mkdir(parents=True)
    (folder / "files" / "etc" / "motd").write_text("welcome\n")
    (folder / "neighbour.nix").write_text('{ text = "from a neighbour"; }')
    (folder / "images.nix").write_text(text)
    return str(folder / "images.nix")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("images")
    other = folder / "other"
    shutil.copytree(PACKAGES, other)
    text = (other / "default.nix").read_text()
    (other / "default.nix").write_text(text.replace("rec {", "rec {\n  onlyHere = twice;", 1))
    patch = pytest.MonkeyPatch()
    nix = "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
    patch.setenv("NIX_CONFIG", nix)
    (folder / "registry").mkdir()
    async with (
        stock_registry(folder / "registry") as registry,
        front(
            folder,
            folder / "nix-starts",
            registry.url,
            images={"file": written(folder / "operator")},
            names={"aliases": {"gtk-plus": "gtk+"}},
            sets={"other": {"kind": "path", "path": str(other)}},
            policy={"deny_licenses": ("GPL-3.0-or-later",), "most_bytes": 4_000_000},
            builds={"failure_seconds": 60},
        ) as running,
    ):
        yield Served(running, folder / "store")
    patch.undo()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(served: Served) -> ValidatedImage:
    return await served.front.pull("images/whole", commanded=(7, 8))


def run_of(image: ValidatedImage) -> dict[str, Any]:
    """What the config says about containers."""
    found: dict[str, Any] = image.config["config"]  # type: ignore[assignment]
    return found


async def refused(front: Front, image: str, tag: str = "latest") -> str:
    """The message of a 404."""
    status, _, body = await front.get(f"/v2/images/{image}/manifests/{tag}")
    assert status == 404, body
    return str(json.loads(body)["errors"][0]["message"])


async def test_it_runs_as_its_file_says(whole: ValidatedImage) -> None:
    run = run_of(whole)

    (entrypoint,) = run["Entrypoint"]
    assert entrypoint.startswith("/nix/store/")
    assert entrypoint.endswith("-several-1.0/bin/several")
    assert run["Cmd"] == ["-v"]
    assert run["User"] == "1000:1000"
    assert run["WorkingDir"] == "/srv"
    assert run["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert {
        "LANG=C",
        "HOME=/home/user",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    } <= {*run["Env"]}
    assert run["Labels"]["org.opencontainers.image.title"] == "whole"
    assert run["Labels"]["nixfront.image"] == "Whole"
    assert len(whole.layers) <= 4


async def test_it_holds_what_its_file_names(whole: ValidatedImage) -> None:
    names = {path.split("/")[2][33:] for path in whole.files if path.count("/") == 2 and "store/" in path}

    assert {"alpha-1.0", "beta-1.0", "7zz-1.0", "gtk-1.0", "nano-1.0", "files", "nss-cacert-3.0"} <= names
    assert {"several-1.0", "several-1.0-doc"} <= names, "what command and environment name"
    assert "twice-1.0" in names, "what the commands put into the root"
    assert not {"bash-5.0", "coreutils-9.0", "nixfront-root"} & names, "what only the commands needed"
    assert whole.files["etc/motd"].target.endswith("-files/etc/motd")


async def test_commands_add_change_and_remove(whole: ValidatedImage) -> None:
    files = whole.files

    assert "bin/inner" not in files
    assert "bin/alpha" in files
    assert files["bin/renamed"].target.endswith("-twice-1.0/bin/twice")
    assert {"srv/www/index.html", "srv/sp ace", "srv/latin\udce9"} <= files.keys()
    assert files["etc/passwd"].size > len("root:x:0:0:root:/root:/bin/sh\n") + len("changed\n")


async def test_modes_stay_as_the_commands_set_them(whole: ValidatedImage) -> None:
    modes = {
        path: f"{member.mode:o}" for path, member in whole.files.items() if not path.startswith("nix/store/")
    }

    expected = {"srv": "710", "srv/www": "0", "srv/www/index.html": "640", "bin/mine": "755"}
    untouched = {"tmp": "1777", "var/tmp": "1777", "root": "1777", "etc": "755", "etc/passwd": "644"}
    assert modes | expected | untouched == modes


async def test_the_root_belongs_to_whom_the_file_says(whole: ValidatedImage) -> None:
    owners = {path: member.owner for path, member in whole.files.items()}

    assert owners["etc"] == owners["srv/www/index.html"] == owners["bin/renamed"] == (7, 8)
    assert owners["home/user"] == (1000, 0)
    assert {owner for path, owner in owners.items() if path.startswith("nix")} == {(0, 0)}


async def test_it_is_tagged_by_revision_and_outputs(served: Served, whole: ValidatedImage) -> None:
    _, _, body = await served.front.get("/v2/images/whole/tags/list")
    tags = set(json.loads(body)["tags"]) - {"latest"}

    revision = run_of(whole)["Labels"]["nixfront.revision"]
    assert f"revision-{revision[:12]}" in tags
    assert {tag.partition("-")[0] for tag in tags} == {"revision", "contents"}
    assert {len(tag.partition("-")[2]) for tag in tags} == {12}
    for tag in tags:
        again = await served.front.pull("images/whole", tag, commanded=(7, 8))
        assert again.digest == whole.digest


async def test_the_log_of_the_commands_is_told(served: Served, whole: ValidatedImage) -> None:
    assert whole.digest
    assert (("image whole",), "to the log") in [
        (told.attributes, told.line) for told in served.front.told(LogLine)
    ]


async def test_it_is_explained(served: Served, whole: ValidatedImage) -> None:
    async with Endpoint(served.front.url).opened() as reached:
        found = await explain.explain(reached, "images/whole", "latest")

    assert found.digest == whole.digest
    assert found.run["WorkingDir"] == "/srv"
    assert "Labels" not in found.run
    *stores, root = found.layers
    assert all(layer.store_paths for layer in stores)
    assert (root.store_paths, root.comment) == ((), "root of image Whole, as its extraCommands left it")


async def test_without_commands_nothing_of_ours_is_built(served: Served) -> None:
    before = {path.name for path in (served.store / "nix/store").glob("*nixfront*")}

    image = await served.front.pull("images/plain")

    assert {path.name for path in (served.store / "nix/store").glob("*nixfront*")} == before
    assert run_of(image)["Cmd"] == ["/bin/hello"]


async def test_it_is_the_image_of_the_same_packages(served: Served) -> None:
    named, typed = await served.front.pull("images/plain"), await served.front.pull("hello")

    assert [layer.digest for layer in named.layers] == [layer.digest for layer in typed.layers]


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("team/web", ["from a neighbour"]),
        ("a--2bb", ["/bin/hello"]),
        ("system", ["x86_64-linux"]),
    ],
)
async def test_names_are_folded_and_unescaped(served: Served, image: str, command: list[str]) -> None:
    assert run_of(await served.front.pull(f"images/{image}"))["Cmd"] == command


async def test_an_image_may_be_empty(served: Served) -> None:
    image = await served.front.pull("images/empty")

    assert "Cmd" not in run_of(image)
    assert "etc/ssl/certs/ca-bundle.crt" in image.files


async def test_an_image_may_be_about_another_set(served: Served) -> None:
    image = await served.front.pull("images/elsewhere")

    assert {"bin/hello", "bin/twice", "bin/alpha"} <= image.files.keys()
    revision = run_of(image)["Labels"]["nixfront.revision"]
    assert run_of(image)["Labels"]["nixfront.package-set"] == "other"
    assert (await served.front.pull("images/elsewhere", revision)).digest == image.digest
    told = await refused(served.front, "plain", revision)
    assert f"tag '{revision}' names no revision of package set path" in told


@pytest.mark.parametrize(("image", "message"), MISTAKES)
async def test_a_mistake_names_image_and_key(served: Served, image: str, message: str) -> None:
    assert message in await refused(served.front, image)


async def test_the_prefix_alone_is_no_image(served: Served) -> None:
    status, _, body = await served.front.get("/v2/images/manifests/latest")

    assert status == 404
    assert "'images' names no image; put one after it, as in images/NAME" in body.decode()


# --- servers of their own ---------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def registry(tmp_path: Path) -> AsyncIterator[Server]:
    folder = tmp_path / "registry"
    folder.mkdir()
    async with stock_registry(folder) as server:
        yield server


async def test_one_evaluation_for_each_image(start: Start, registry: Server, tmp_path: Path) -> None:
    async with start(registry.url, images={"file": written(tmp_path / "operator")}) as running:
        await running.pull("hello")
        starts = {name: running.nix_starts(name) for name in ("nix-instantiate", "nix-store", "nix ")}

        await running.pull("images/plain")

        assert {name: running.nix_starts(name) - before for name, before in starts.items()} == {
            "nix-instantiate": 1,
            "nix-store": 1,
            "nix ": 1,
        }


async def test_two_empty_stores_give_the_same_digest(tmp_path: Path, nix_count: Path) -> None:
    digests = set()
    for name in ("one", "other"):
        folder = tmp_path / name
        (folder / "registry").mkdir(parents=True)
        async with (
            stock_registry(folder / "registry") as registry,
            front(
                folder,
                nix_count,
                registry.url,
                images={"file": written(folder / "operator"), "prefix": "ours"},
                names={"aliases": {"gtk-plus": "gtk+"}},
            ) as running,
        ):
            image = await running.pull("ours/whole", commanded=(7, 8))
            digests.add((image.digest, *image.documents.values()))

    assert len(digests) == 1


async def test_a_changed_file_is_another_output_tag(tmp_path: Path, nix_count: Path) -> None:
    """The packages are the same each time; only the command is another the second time."""
    file = Path(written(tmp_path / "operator", "{ }"))
    digests = []
    for number, command in enumerate(("one", "two", "one")):
        folder = tmp_path / f"{number}"
        (folder / "registry").mkdir(parents=True)
        text = '{ web = { packages = [ "hello" ]; cmd = [ "TEXT" ]; }; }'.replace("TEXT", command)
        await asyncio.to_thread(file.write_text, text)
        async with (
            stock_registry(folder / "registry") as registry,
            front(folder, nix_count, registry.url, images={"file": str(file)}) as running,
        ):
            image = await running.pull("images/web")
            _, _, body = await running.get("/v2/images/web/tags/list")
        (tag,) = [tag for tag in json.loads(body)["tags"] if tag.startswith("contents-")]
        digests.append((tag, image.digest))

    one, two, again = digests
    assert one == again
    assert one[0] != two[0]
    assert one[1] != two[1]


async def test_a_file_that_is_no_file_is_refused_at_the_start(start: Start, registry: Server) -> None:
    with pytest.raises(SettingsInvalid, match=r"images\.file: /nowhere/images.nix is no file"):
        async with start(registry.url, images={"file": "/nowhere/images.nix"}):
            pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ 1 ]", "images.file has to yield a set of images, and yields a list"),
        ("{ pkgs }: { web = ", "syntax error"),
        ("throw ''not today''", "not today"),
        ("import ../outside.nix", "forbidden in restricted mode"),
    ],
)
async def test_a_file_that_is_wrong(
    start: Start, registry: Server, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "outside.nix").write_text("{ }")
    async with start(registry.url, images={"file": written(tmp_path / "operator", text)}) as running:
        assert message in await refused(running, "web")


async def test_every_image_of_the_sample(start: Start, registry: Server) -> None:
    async with start(registry.url, images={"file": str(wiring_files.SAMPLES / "images.nix")}) as running:
        toolbox = await running.pull("images/toolbox")
        greeter = await running.pull("images/greeter", commanded=(1000, 1000))

    assert "bin/git" in toolbox.files
    assert greeter.files["srv/greeter/motto"].mode == 0o640
    assert "share/zoneinfo" in greeter.files


async def test_the_version_is_what_its_label_says(served: Served) -> None:
    image = await served.front.pull("images/versioned", "3.1--2bx")
    latest = await served.front.pull("images/versioned")
    status, _, body = await served.front.get("/v2/images/versioned/manifests/3.2")

    assert latest.digest == image.digest
    assert status == 404
    assert "image versioned has the version 3.1+x" in body.decode()
