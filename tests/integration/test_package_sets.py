"""Where packages come from: real repositories, real tarballs, and what an image says of its source."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.support.front import PACKAGES, Front
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]

COMMITTED = 1_234_567_890  # 2009-02-13T23:31:30Z
DATED = 1_000_000_000  # 2001-09-09T01:46:40Z


def git(folder: Path, *words: str) -> str:
    """What git prints; nothing of this host's configuration takes part."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": f"{COMMITTED} +0000",
        "GIT_COMMITTER_DATE": f"{COMMITTED} +0000",
    }
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(("git", *who, *words), cwd=folder, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A git repository that holds the test package set, and its commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(PACKAGES / "default.nix", folder)
    git(folder, "init", "--initial-branch=main", ".")
    git(folder, "add", "default.nix")
    git(folder, "commit", "-m", "packages")
    return folder, git(folder, "rev-parse", "HEAD")


def labels(image: object) -> dict[str, str]:
    """The labels of a validated image."""
    return image.config["config"]["Labels"]  # type: ignore[attr-defined, no-any-return]


async def test_a_git_repository(start: Start, registry: Server, repository: tuple[Path, str]) -> None:
    folder, commit = repository
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello")
        pinned = await front.pull("hello", commit)

    assert image.config["created"] == "2009-02-13T23:31:30Z"
    assert labels(image)["nixfront.revision"] == commit
    assert labels(image)["nixfront.source"] == f"file://{folder}"
    assert pinned.digest == image.digest


async def test_a_tarball(start: Start, registry: Server, tmp_path: Path) -> None:
    def dated(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = DATED
        return member

    archive = tmp_path / "set-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(PACKAGES, "set-1", filter=dated)
    source = {"kind": "tarball", "url": f"file://{tmp_path}/{{ref}}.tar.gz", "ref": "set-1", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello")

    assert image.config["created"] == "2001-09-09T01:46:40Z"
    assert len(labels(image)["nixfront.revision"]) == 64


async def test_the_operators_date(start: Start, registry: Server) -> None:
    async with start(registry.url, packages={"date": "2020-02-02T00:00:00Z"}) as front:
        image = await front.pull("hello")

    assert image.config["created"] == "2020-02-02T00:00:00Z"


async def test_nixpkgs_that_cannot_be_had_is_said(start: Start, registry: Server) -> None:
    source = {"kind": "nixpkgs", "url": "http://127.0.0.1:1/{ref}.tar.xz", "path": ""}
    async with start(registry.url, packages=source) as front:
        status, _, body = await front.get("/v2/hello/manifests/latest")

    assert status == 503
    assert b"cannot fetch http://127.0.0.1:1/nixpkgs-unstable.tar.xz" in body
