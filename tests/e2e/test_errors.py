"""Every class of error in front of real clients: what a person reads in the terminal is the assertion.

docker, podman and skopeo print the message of a 404; of a 503 they print the reason phrase alone. containerd says
"not found" for a 404, whatever we say, and prints the reason phrase of everything else.
"""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.core import errors
from proxy.web.error_responses import WIRE
from tests.support.clients import Ctr, Docker, Podman, containerd, podman
from tests.support.processes import program
from tests.support.servers import Server, nixfront, stock_registry

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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.error.__name__)
async def test_what_a_person_reads(proxy: Server, clients: Clients, row: Row) -> None:
    name = f"{proxy.host}/{row.name}"
    tagged = name if ":" in row.name else f"{name}:latest"

    docker = await clients.docker("pull", name)
    pod = await clients.podman("pull", "--tls-verify=false", name)
    ctr = await clients.ctr("images", "pull", "--plain-http", tagged)

    status = WIRE[row.error].status
    for outcome in (docker, pod, ctr):
        assert outcome.returncode != 0
    assert row.text in docker.output
    assert row.text in pod.output
    assert (row.text if status == 503 else "not found") in ctr.output


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
          tool = copy "tool-1.0" ./program;
          single = copy "single-1.0" ./default.nix;
          removed = throw "removed is gone, use tool";
          unfree = copy "unfree-1.0" ./default.nix // { meta.license = { free = false; shortName = "secret"; }; };
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
