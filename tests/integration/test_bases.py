"""Images as people build on them and start them: what the layers in the registry hold, for a path of packages and for a named image.

How real engines see them is in `tests/e2e/test_bases.py`.
"""

import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from proxy.core.events import Collided
from proxy.core.model import DOCKER_MANIFEST
from proxy.image import base
from tests.support.front import Front, front
from tests.support.servers import stock_registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

SET = """
{ system, ... }:
let
  make = name: script: derivation {
    inherit name system;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
  };
in
{
  server = make "server" ''
    mkdir -p $out/bin $out/etc/server/conf.d/tls $out/share/server/html/img $out/lib/server $out/var/log
    printf '#!/bin/sh\\n' > $out/bin/server; chmod +x $out/bin/server
    for file in etc/server/conf.d/tls/x share/server/html/index.html share/server/html/img/a.png lib/server/x.so; do
      echo text > $out/$file
    done
  '';
  users = make "users" ''
    mkdir -p $out/etc
    printf 'root:x:0:0::/elsewhere:/bin/sh\\nserver:x:71:71::/var/lib/server:/bin/sh\\n' > $out/etc/passwd
    printf 'server:x:71:nobody\\nvideo:x:26:\\n' > $out/etc/group
  '';
  host = make "host" "mkdir -p $out/etc; ln -s /etc/passwd $out/etc/passwd; ln -s /etc/group $out/etc/group";
  cacert = make "cacert" "mkdir -p $out/etc/ssl/certs; echo pem > $out/etc/ssl/certs/ca-bundle.crt";
}
"""
IMAGES = """
{
  service = { packages = [ "server" "users" ]; user = "server"; };
  person = { packages = [ "server" "users" ]; user = "1000:100"; };
}
"""


@dataclass(frozen=True, slots=True)
class Pulled:
    """The members of all layers by path, the text of each file of the last one, and the environment."""

    members: Mapping[str, tarfile.TarInfo]
    texts: Mapping[str, str]
    environment: Mapping[str, str]
    labels: Mapping[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    folder = tmp_path_factory.mktemp("bases")
    (folder / "set").mkdir()
    (folder / "set" / "default.nix").write_text(SET)
    (folder / "images.nix").write_text(IMAGES)
    (folder / "registry").mkdir()
    packages, images = {"path": str(folder / "set")}, {"file": str(folder / "images.nix")}
    patch = pytest.MonkeyPatch()
    patch.setenv(
        "NIX_CONFIG", "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
    )
    async with (
        stock_registry(folder / "registry") as registry,
        front(folder, folder / "nix-starts", registry.url, packages=packages, images=images) as running,
    ):
        yield running
    patch.undo()


async def pull(front: Front, repository: str) -> Pulled:
    """An image as its layers and its configuration say, read by the standard library alone."""

    async def read(path: str) -> bytes:
        status, _, body = await front.get(f"/v2/{repository}/{path}", headers={"Accept": DOCKER_MANIFEST})
        assert status == 200, body
        return body

    await front.pull(repository)  # and it is valid
    manifest = json.loads(await read("manifests/latest"))
    config: dict[str, Any] = json.loads(await read(f"blobs/{manifest['config']['digest']}"))["config"]
    members: dict[str, tarfile.TarInfo] = {}
    texts: dict[str, str] = {}
    for layer in manifest["layers"]:
        archive = io.BytesIO(gzip.decompress(await read(f"blobs/{layer['digest']}")))
        with tarfile.open(fileobj=archive) as opened:
            for member in opened:
                members[member.name] = member
                if (content := opened.extractfile(member) if member.isreg() else None) is not None:
                    texts[member.name] = content.read().decode()
    environment = dict(line.split("=", 1) for line in config["Env"])
    return Pulled(members, texts, environment, config["Labels"])


@pytest.mark.parametrize("repository", ["server", "images/service", "images/person"])
async def test_it_has_the_directories_that_people_copy_into(served: Front, repository: str) -> None:
    image = await pull(served, repository)

    modes = {path: member.mode for path, member in image.members.items() if member.isdir()}
    assert base.DIRECTORIES.items() <= modes.items()
    assert {"etc/server/conf.d/tls", "share/server/html", "lib/server", "var/log"} <= modes.keys()
    assert image.members["share/server/html/img"].issym()
    assert image.members["var/run"].linkname == "../run"


@pytest.mark.parametrize("repository", ["server", "images/service"])
async def test_it_says_which_set_it_comes_from(served: Front, repository: str) -> None:
    image = await pull(served, repository)

    lines = dict(line.split("=", 1) for line in image.texts["etc/os-release"].splitlines())
    assert lines["ID"] == "nixfront"
    assert lines["BUILD_ID"].strip('"') == image.labels["nixfront.revision"]
    assert lines["NIXFRONT_SET"] == image.labels["nixfront.package-set"]
    assert "127.0.0.1 localhost" in image.texts["etc/hosts"].splitlines()


async def test_certificates_are_where_other_systems_have_them(served: Front) -> None:
    members = (await pull(served, "server")).members

    links = {
        members[path].linkname
        for path in (
            "etc/ssl/certs/ca-bundle.crt",
            "etc/ssl/certs/ca-certificates.crt",
            "etc/ssl/cert.pem",
            "etc/pki/tls/certs/ca-bundle.crt",
        )
    }
    assert [link.endswith("-cacert/etc/ssl/certs/ca-bundle.crt") for link in links] == [True]


@pytest.mark.parametrize("repository", ["server/users", "users/server", "images/service"])
async def test_a_package_adds_users_and_groups(served: Front, repository: str) -> None:
    ours, image = await pull(served, "server"), await pull(served, repository)

    added = "server:x:71:71::/var/lib/server:/bin/sh\n"
    assert image.texts["etc/passwd"] == ours.texts["etc/passwd"] + added
    assert image.texts["etc/group"] == ours.texts["etc/group"] + "server:x:71:nobody\n"
    assert "video:x:44:" in ours.texts["etc/group"].splitlines()


async def test_no_user_of_this_host_is_in_an_image(served: Front) -> None:
    ours, image = await pull(served, "server"), await pull(served, "server/host")

    assert image.texts == ours.texts
    lost = [
        (event.path, event.winner) for event in served.told(Collided) if event.repository == "server/host"
    ]
    assert sorted(lost) == [(path, "the image's own file") for path in ("etc/group", "etc/passwd")]


@pytest.mark.parametrize(
    ("repository", "home"),
    [("server", "/root"), ("images/service", None), ("images/person", "/home/user")],
)
async def test_home_is_a_directory_of_the_user(served: Front, repository: str, home: str | None) -> None:
    image = await pull(served, repository)

    assert image.environment.get("HOME") == home
    assert image.environment["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    if home:
        member = image.members[home.lstrip("/")]
        assert member.isdir()
        everybody, of_the_user = (
            member.mode & 0o002,
            (member.uid, member.gid, member.mode) == (1000, 0, 0o775),
        )
        assert everybody or of_the_user
