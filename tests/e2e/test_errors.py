"""Every class of error in front of real clients: what a person reads in the terminal is the assertion.

docker, podman and skopeo print the message of a 404; of a 503 they print the reason phrase alone. containerd prints the reason
phrase of everything but a 404, so it gets no 404. `tests/unit/web/error_responses/test_readers.py` replays the clients that Debian lacks.
"""

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.core import errors
from tests.support import handmade
from tests.support.clients import Ctr, Docker, Podman, containerd, podman
from tests.support.processes import program, run, succeed
from tests.support.servers import Server, nixfront, stock_registry
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class Row:
    """An error class, what to pull for it, and what is read."""

    error: type[errors.NixfrontError]
    name: str
    text: str


#: `tests/unit/core/test_errors.py` looks whether a class is missing.
ROWS = [
    Row(errors.NameInvalid, "fetch--00", "stands for no visible character of ASCII"),
    Row(errors.TagUnknown, "tool:v1", "tag 'v1' names no revision of package set path"),
    Row(errors.ImageUnknown, "images/wep", "no image wep, did you mean web?"),
    Row(
        errors.ImageInvalid, "images/web", "image web: packges is no key of an image, did you mean packages?"
    ),
    Row(errors.PackageUnknown, "tol", "no package tol, did you mean tool?"),
    Row(errors.PackageRefused, "unfree", "policy.allow_unfree would allow it"),
    Row(errors.EvaluationFailed, "removed", "removed is gone, use tool"),
    Row(errors.BuildFailed, "sparc", "sparc-1.0 is for sparc-linux, and this host builds for "),
    Row(errors.BuildFailed, "failing", "unrecognized option '--no-such-option'"),
    Row(errors.PackageUnusable, "single", "is a single file"),
    Row(errors.ImageTooLarge, "tool", "policy.most_bytes of this host allows 0 MB"),
    Row(errors.PackageSetUnavailable, "away/tool", "git ls-remote failed"),
]


@dataclass(frozen=True, slots=True)
class Clients:
    """One of each."""

    docker: Docker
    podman: Podman
    ctr: Ctr


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("errors")
    config = folder / "nixfront.yml"
    config.write_text(
        """
        sets: {away: {kind: git, url: "http://127.0.0.1:1/away.git", ref: main}}
        policy: {most_bytes: 60000}
        """,
        encoding="ascii",
    )
    images = folder / "images.nix"
    images.write_text("{ web.packges = [ ]; }", encoding="ascii")
    settings = {
        "images": {"file": str(images)},
        "packages": {"kind": "path", "path": str(_packages(folder / "packages"))},
        "nix": {"store": str(folder / "store")},
    }
    async with (
        stock_registry(folder / "registry") as registry,
        nixfront(
            folder,
            settings={**settings, "registry": {"url": registry.url}},
            args=("--config", str(config)),
            env={"NIX_CONFIG": "substitute = false"},
        ) as server,
    ):
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clients(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clients]:
    folder = tmp_path_factory.mktemp("clients")
    async with podman(folder / "podman") as one, containerd(folder / "containerd") as other:
        yield Clients(docker, one, other)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_what_a_person_reads(proxy: Server, clients: Clients, row: Row) -> None:
    name = f"{proxy.host}/{row.name}"
    tagged = name if ":" in row.name else f"{name}:latest"

    docker = await clients.docker("pull", name)
    pod = await clients.podman("pull", "--tls-verify=false", name)
    ctr = await clients.ctr("images", "pull", "--plain-http", tagged)
    skopeo = await run(("skopeo", "inspect", "--tls-verify=false", f"docker://{tagged}"), deadline=600)

    for outcome in (docker, pod, ctr, skopeo):
        assert outcome.returncode != 0
        assert row.text in outcome.output


async def test_docker_and_podman_search(proxy: Server, clients: Clients) -> None:
    async def describes() -> bool:
        return "Is a tool" in await clients.docker.succeed("search", f"{proxy.host}/tool")

    await until(describes)  # Nix reads the descriptions once, and the first search does not wait for long
    docker = await clients.docker.succeed("search", f"{proxy.host}/tool")
    pod = await clients.podman.succeed("search", "--tls-verify=false", f"{proxy.host}/tool")

    assert f"{proxy.host}/tool" in docker
    assert f"{proxy.host}/tool" in pod
    assert "Is a tool" in pod


async def test_containerd_pushes_a_tag_that_nobody_has(proxy: Server, clients: Clients) -> None:
    """It looks for the tag first, and takes any answer but 404 for the end."""
    name = f"{proxy.host}/team/tool"
    await handmade.push(proxy.url, "team/tool", "v1", handmade.image([handmade.tar([])]))

    await clients.ctr.succeed("images", "pull", "--plain-http", f"{name}:v1")
    await clients.ctr.succeed("images", "tag", f"{name}:v1", f"{name}:v2")
    await clients.ctr.succeed("images", "push", "--plain-http", f"{name}:v2")

    tags = await succeed(("skopeo", "list-tags", "--tls-verify=false", f"docker://{name}"))
    assert sorted(json.loads(tags)["Tags"]) == ["v1", "v2"]


def _packages(folder: Path) -> Path:
    """A package set; its builder is Debian's ldconfig, which is linked statically and so runs in any sandbox."""
    folder.mkdir()
    shutil.copy(program("ldconfig"), folder / "builder")
    (folder / "program").write_bytes(b"\x7fELF" + bytes(100_000))
    (folder / "default.nix").write_text(
        """
        { system }:
        let copy = name: file: derivation {
          inherit name;
          system = "builtin";
          builder = "builtin:fetchurl";
          url = "file://${file}";
          outputHash = builtins.hashFile "sha256" file;
          outputHashAlgo = "sha256";
          outputHashMode = "flat";
        };
        in {
          tool = copy "tool-1.0" ./program // { meta.description = "Is a tool"; };
          single = copy "single-1.0" ./default.nix;
          removed = throw "removed is gone, use tool";
          unfree = copy "unfree-1.0" ./default.nix // { meta.license = { free = false; shortName = "secret"; }; };
          sparc = derivation { name = "sparc-1.0"; system = "sparc-linux"; builder = ./builder; };
          failing = derivation {
            name = "failing-1.0";
            inherit system;
            builder = ./builder;
            args = [ "--no-such-option" ];
          };
        }
        """,
        encoding="ascii",
    )
    return folder
