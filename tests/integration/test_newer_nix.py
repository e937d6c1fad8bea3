"""The Nix of Debian 13 does what that of Debian 12 does: same images, same messages, same kinds of package sets."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.test_package_sets import git, labels
from tests.support.front import PACKAGES, Front
from tests.support.front import front as running
from tests.support.servers import Server, stock_registry

Start = Callable[..., AbstractAsyncContextManager[Front]]

NEWER = Path(sys.prefix) / "newer-nix"  # tests/run gets it, with tests/support/newer


@pytest.fixture
def newer(nix_count: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The newer Nix is the one on PATH."""
    programs = NEWER / "bin"
    assert (programs / "nix").exists(), "tests/run gets the newer Nix"
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin")
    # Not `extra-`: this Nix puts the shell of a package that need not be there into every sandbox.
    monkeypatch.setenv(
        "NIX_CONFIG", "substituters =\nsandbox = true\nsandbox-paths = /bin /usr /lib /lib64\n"
    )
    return nix_count


@pytest_asyncio.fixture
async def front(newer: Path, start: Start, registry: Server, tmp_path: Path) -> AsyncIterator[Front]:
    """nixfront on the newer Nix."""
    policy = {"most_bytes": 4_000_000}
    file = tmp_path / "images.nix"
    file.write_text(
        """
        {
          web = { };
          nowhere.contents = [ "/nix/store/00000000000000000000000000000000-x" ];
          failing.extraCommands = "echo this is how it failed >&2; false";
          reading.cmd = [ (builtins.readFile /etc/hostname) ];
        }
        """,
        encoding="ascii",
    )
    async with start(registry.url, policy=policy, images={"file": str(file)}) as started:
        yield started


@pytest.mark.usefixtures("newer")
def test_it_is_newer() -> None:
    version = subprocess.run(("nix", "--version"), capture_output=True, check=True, text=True).stdout

    assert tuple(map(int, version.split()[-1].split(".")[:2])) > (2, 8)


IMAGES = """
{ pkgs, ... }: {
  web = {
    packages = [ "hello" pkgs.alpha ];
    contents = [ "${pkgs.twice}" ];
    extraCommands = "mkdir -p srv; echo ${pkgs.beta} > srv/x; chmod 640 srv/x";
    uid = 7;
    gid = 8;
  };
}
"""
NAMES = ["hello", "shell/git", "camelcase.innerpackage", "several", "odd", "ci/user/hello"]


async def test_the_images_are_those_of_the_older_nix(
    nix_count: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    digests: list[list[str]] = []
    file = tmp_path / "images.nix"
    file.write_text(IMAGES, encoding="ascii")
    for name in ("older", "newer"):
        if name == "newer":
            request.getfixturevalue("newer")
        (tmp_path / name / "registry").mkdir(parents=True)
        async with (
            stock_registry(tmp_path / name / "registry") as registry,
            running(tmp_path / name, nix_count, registry.url, images={"file": str(file)}) as front,
        ):
            digests.append([(await front.pull(repository)).digest for repository in NAMES])
            digests[-1].append((await front.pull("images/web", commanded=(7, 8))).digest)

    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("helo", "no package helo, did you mean hello?"),
        ("thrownunfree", "policy.allow_unfree"),
        ("refused", "refused has been removed, use hello"),
        ("aborting", "this is how it aborts"),
        ("loop", "infinite recursion"),
        ("importing", "(import from derivation), which is not allowed here"),
        ("reading", "forbidden in restricted mode"),
        ("fetching", "forbidden in restricted mode"),
        ("broken", "this is how it failed"),
        ("needsbroken", "this is how it failed"),
        ("singlefile", "single-file is a single file"),
        ("images/nowhere", "no binary cache has /nix/store/00000000000000000000000000000000-x"),
        ("images/failing", "this is how it failed"),
        ("images/reading", "forbidden in restricted mode"),
    ],
)
async def test_the_mistake_is_said(front: Front, repository: str, message: str) -> None:
    status, _, body = await front.get(f"/v2/{repository}/manifests/latest")

    assert status == 404, body
    assert message in json.loads(body)["errors"][0]["message"]


@pytest.mark.usefixtures("newer")
async def test_its_package_sets(start: Start, registry: Server, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(PACKAGES / "default.nix", folder)
    (folder / "flake.nix").write_text(
        '{ outputs = _: { packages.x86_64-linux = import ./default.nix { system = "x86_64-linux"; }; }; }',
        encoding="ascii",
    )
    git(folder, "init", "--initial-branch=main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "packages")
    git(folder, "tag", "v1.0")
    commit = git(folder, "rev-parse", "HEAD")
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("set/default.nix")
        data = (PACKAGES / "default.nix").read_bytes()
        member.size, member.mtime = len(data), 1_000_000_000
        tar.addfile(member, io.BytesIO(data))
    sets = {
        "git": {"kind": "git", "url": f"file://{folder}", "ref": "main"},
        "flake": {"kind": "flake", "url": f"git+file://{folder}", "ref": "main"},
        "tarball": {"kind": "tarball", "url": f"file://{tmp_path}/set.tar.gz"},
    }
    async with start(registry.url, sets=sets) as front:
        tagged, pinned = await front.pull("git/hello", "v1.0"), await front.pull("git/alpha", commit)
        flake, tarball = await front.pull("flake/hello"), await front.pull("tarball/hello")

    for image in (tagged, pinned, flake):
        assert labels(image)["nixfront.revision"] == commit
        assert image.config["created"] == "2009-02-13T23:31:30Z"
    assert tarball.config["created"] == "2001-09-09T01:46:40Z"
    assert tagged.layers[:-1] == tarball.layers[:-1] == flake.layers[:-1]
