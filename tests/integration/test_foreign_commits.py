"""A client names commits that the operator never chose, passwords are looked for, and revisions pile up."""

import asyncio
import os
import shutil
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from aiohttp import web

from tests.integration.test_package_sets import (
    commit,
    files_over_http,
    git,
    labels,
    repository,
    revision_of,
)
from tests.support.front import PACKAGES, Front
from tests.support.servers import Server

__all__ = ["repository"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Start = Callable[..., AbstractAsyncContextManager[Front]]


def pull_request(folder: Path) -> str:
    """A commit that exists only as the head of a pull request, as a forge keeps one."""
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(
        folder, "config", "uploadpack.allowFilter", "true"
    )  # so git could fetch on demand what the mirror lacks
    git(folder, "checkout", "-b", "foreign")
    foreign = commit(folder, "foreign")
    git(folder, "update-ref", "refs/pull/7/head", foreign)
    git(folder, "checkout", "main")
    git(folder, "branch", "-D", "foreign")
    return foreign


@pytest.mark.parametrize("kind", ["git", "flake"])
async def test_a_commit_of_a_pull_request_is_refused(
    start: Start, registry: Server, repository: tuple[Path, str], kind: str
) -> None:
    folder, first = repository
    (folder / "flake.nix").write_text(
        '{ outputs = _: { packages.x86_64-linux = import ./default.nix { system = "x86_64-linux"; }; }; }',
        encoding="ascii",
    )
    git(folder, "add", ".")
    git(folder, "commit", "-m", "flake")
    good = git(folder, "rev-parse", "HEAD")
    foreign = pull_request(folder)
    url = f"file://{folder}" if kind == "git" else f"git+file://{folder}"
    source = {"kind": kind, "url": url, "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        await front.get("/v2/hello/manifests/latest")  # a tag may also be the version of the package there
        before = front.nix_starts()
        refused = [await front.get(f"/v2/hello/manifests/{tag}") for tag in (foreign, foreign[:12])]
        assert [status for status, _, _ in refused] == [404, 404]
        assert front.nix_starts() == before, "nothing of it was fetched"
        assert await revision_of(front, "hello", good) == good
        again, _, _ = await front.get(f"/v2/alpha/manifests/{foreign}")
    if kind == "git":
        async with start(registry.url, packages={**source, "any_commit": True}) as front:
            assert await revision_of(front, "beta", foreign) == foreign, "the operator said so"
        async with start(registry.url, packages=source) as front:
            anew, _, _ = await front.get(f"/v2/alpha/manifests/{foreign}")
            old, _, _ = await front.get(f"/v2/beta/manifests/{foreign}")
        assert (anew, old) == (404, 200), "what it made of it is in the registry, and nothing new is made"
        async with start(registry.url, packages={**source, "commits": (foreign,)}) as front:
            assert await revision_of(front, "alpha", foreign) == foreign

    assert first != good
    for status, _, body in refused:
        assert status == 404
        assert f"names no revision of package set {kind}".encode() in body
    assert b"no branch or tag that this host serves reaches this commit" in refused[0][2]
    assert b"packages.any_commit" in refused[0][2]
    assert again == 404


async def test_an_archive_of_a_fork_is_refused(start: Start, registry: Server, tmp_path: Path) -> None:
    """The server of archives has a commit that no channel ever had, as a forge has those of forks."""
    head, fork = "1" * 40, "3" * 40
    served = tmp_path / "served"
    (served / "unstable").mkdir(parents=True)
    (served / "unstable" / "git-revision").write_text(head, encoding="ascii")
    for name in (head, fork, fork[:8], "20260131", "v1"):
        with tarfile.open(served / f"{name}.tar.gz", "w:gz") as tar:
            tar.add(PACKAGES, "set")
    async with files_over_http(served) as url:
        pointer = f"{url}/{{ref}}/git-revision"
        nixpkgs = {
            "kind": "nixpkgs",
            "url": f"{url}/{{revision}}.tar.gz",
            "pointer": pointer,
            "ref": "unstable",
        }
        tarball = {"kind": "tarball", "url": f"{url}/{{ref}}.tar.gz", "ref": "v1"}
        sets = {"nix": nixpkgs, "tar": tarball, "dated": {**tarball, "refs": ("v*", "2026*")}}
        async with start(registry.url, sets=sets) as front:
            for name in sets:  # a tag may also be the version of the package there
                assert (await front.get(f"/v2/{name}/hello/manifests/latest"))[0] == 200
            before = front.nix_starts()
            refused = [
                await front.get(f"/v2/{name}/manifests/{tag}")
                for name, tag in (
                    ("nix/hello", fork),
                    ("tar/hello", fork),
                    ("tar/hello", fork[:8]),
                    ("tar/hello", "20260131"),
                    ("dated/hello", fork[:8]),
                    ("dated/hello", "w1"),
                )
            ]
            assert front.nix_starts() == before, "nothing of it was fetched"
            assert await revision_of(front, "nix/hello", head) == head, "it is at the head of our channel"
            await front.pull("dated/hello", "20260131")
        (served / "unstable" / "git-revision").write_text("2" * 40, encoding="ascii")
        async with start(registry.url, sets=sets) as front:
            assert await revision_of(front, "nix/alpha", head) == head, "it was at the head of our channel"
        listed = {**nixpkgs, "commits": (fork,)}
        async with start(registry.url, sets={"nix": listed}) as front:
            assert await revision_of(front, "nix/beta", fork) == fork

    for status, _, body in refused:
        assert status == 404
        assert b"names no revision of package set" in body
    assert b"has not seen this commit at the head of a channel" in refused[0][2]
    assert b"sets.nix.commits" in refused[0][2]
    assert b"sets.tar.refs of this host does not allow it" in refused[1][2]


async def test_what_was_built_before_is_checked_again(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    """A branch is gone, or the operator serves fewer: its images stay, and no new one is made of its commits."""
    folder, first = repository
    git(folder, "checkout", "-b", "side")
    side = commit(folder, "side")
    git(folder, "checkout", "-b", "hidden")
    hidden = commit(folder, "hidden")
    git(folder, "checkout", "main")
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        for tag in (side, hidden):
            assert await revision_of(front, "hello", tag) == tag
    async with start(registry.url, packages={**source, "refs": ("side",)}) as front:
        assert await revision_of(front, "hello", hidden) == hidden, "it is in the registry"
        assert await revision_of(front, "alpha", side) == side
        assert await revision_of(front, "alpha", first) == first
        fewer = [await front.get(f"/v2/alpha/manifests/{tag}") for tag in (hidden, "hidden")]
    git(folder, "branch", "-D", "side")
    git(folder, "branch", "-D", "hidden")
    async with start(registry.url, packages=source) as front:
        gone = [await front.get(f"/v2/beta/manifests/{tag}") for tag in (side, hidden)]
        kept = await front.get(f"/v2/hello/manifests/{side}")

    for status, _, body in (*fewer, *gone):
        assert status == 404
        assert b"names no revision of package set git" in body
    assert kept[0] == 200


async def test_revisions_do_not_pile_up(
    start: Start, registry: Server, repository: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = repository
    commits = [commit(folder, f"number {number}") for number in range(10)]
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": "", "most_revisions": 3}
    async with start(registry.url, packages=source) as front:
        await front.pull("hello")
        for revision in commits:
            status, _, _ = await front.get(f"/v2/nosuchpackage/manifests/{revision}")
            assert status == 404
        kept = sorted(file.name for file in (tmp_path / "data" / "sets").iterdir() if file.is_symlink())
        records = list((tmp_path / "data" / "sets").glob("default-" + "[0-9a-f]" * 40 + ".json"))
        environment = {**os.environ, "NIX_REMOTE": str(tmp_path / "store")}
        await asyncio.to_thread(
            subprocess.run, ("nix-store", "--gc"), env=environment, check=True, capture_output=True
        )
        sources = [path for path in (tmp_path / "store/nix/store").iterdir() if path.name.endswith("-source")]
        assert labels(await front.pull("alpha"))["nixfront.revision"] == commits[-1], "latest was kept"
        assert await revision_of(front, "alpha", commits[0]) == commits[0], "it is fetched again"

    assert len(records) == len(kept) == 3
    assert len(sources) <= 3


async def test_an_unknown_branch_costs_no_question(
    start: Start,
    registry: Server,
    repository: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder, _ = repository
    questions = count_git(monkeypatch, tmp_path)
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        for number in range(20):
            for tag in (f"nosuch{number}", f"{number:040x}"):
                status, _, _ = await front.get(f"/v2/hello/manifests/{tag}")
                assert status == 404

    verbs = [line for line in questions.read_text().splitlines() if "ls-remote" in line or " fetch " in line]
    assert len(verbs) <= 3, (
        "one look for the names; a tag may also be a version at `latest`, which is looked for and fetched once"
    )


async def test_a_rate_is_charged_before_anything_is_fetched(
    start: Start,
    registry: Server,
    repository: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder, _ = repository
    commits = [commit(folder, f"number {number}") for number in range(2)]
    questions = count_git(monkeypatch, tmp_path)
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source, access={"builds_per_minute": 1}) as front:
        first, _, _ = await front.get(f"/v2/nosuchpackage/manifests/{commits[0]}")
        before = (front.nix_starts(), questions.read_text())
        second, _, _ = await front.get(f"/v2/nosuchpackage/manifests/{commits[1]}")
        after = (front.nix_starts(), questions.read_text())

    assert (first, second) == (404, 429)
    assert before == after


async def test_a_password_is_in_no_command_line(
    start: Start,
    registry: Server,
    repository: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """git, and the git that Nix starts, send the password all the same."""
    folder, first = repository
    git(folder, "update-server-info")
    lines = count_git(monkeypatch, tmp_path)

    @web.middleware
    async def basic(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Basic bWU6Z2VoZSFt":  # me:gehe!m
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return await handler(request)

    async with files_over_http(folder / ".git", basic) as url:
        source = {"kind": "git", "url": url.replace("//", "//me:gehe%21m@") + "/", "ref": "main", "path": ""}
        async with start(registry.url, packages=source) as front:
            assert await revision_of(front, "hello", "main") == first
    programs = {line.split(" ")[0] for line in lines.read_text().splitlines()}

    assert {"git", "nix-instantiate"} <= programs
    assert f"{url}/" in lines.read_text()
    assert "gehe" not in lines.read_text()


def count_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that gets the command line of each git and each Nix from now on."""
    lines, programs = tmp_path / "command-lines", tmp_path / "written"
    programs.mkdir()
    lines.touch()
    for name in ("git", "nix-instantiate", "nix-store"):
        real = shutil.which(name)
        (programs / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >> {lines}\nexec {real} "$@"\n', encoding="ascii"
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lines
