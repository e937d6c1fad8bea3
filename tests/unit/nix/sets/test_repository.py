"""Which names and commits a client may choose, and what git gets instead of a password."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from proxy.nix.runner import Limits, NixRunner
from proxy.nix.sets import KINDS, Choice, Tools
from proxy.nix.sets.flake import repository_of_flake
from proxy.nix.sets.git import GitSet
from proxy.nix.sets.heads import Heads
from proxy.nix.sets.repository import Repository, without_password
from proxy.nix.store import NixStore

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tools(folder: Path) -> Tools:
    nix = NixStore(NixRunner(Limits(1, 1), store=str(folder)), folder)
    return Tools(nix, cast(aiohttp.ClientSession, None), folder, folder, deadline=1)


@pytest.mark.parametrize(
    ("choice", "names", "others"),
    [
        pytest.param(
            Choice("git", url="u", ref="main"), ["latest", "main", "side", "beef", "2026-01-31"], [], id="git"
        ),
        pytest.param(
            Choice("git", url="u", ref="main", refs=("v*",)),
            ["latest", "main", "v1", "2026-01-31"],
            ["side", "beef"],
            id="git with fewer",
        ),
        pytest.param(
            Choice("git", url="u", ref="main", refs=("release/*",)),
            ["main", "release/1", "release--2f1"],
            ["side", "side--2f1"],
            id="git with branches in folders",
        ),
        pytest.param(
            Choice("tarball", url="{ref}", refs=("release/*",)),
            [],
            ["release--2f1"],
            id="an address is no list",
        ),
        pytest.param(
            Choice("tarball", url="{ref}"),
            ["latest", "v1", "release-26.05", "2026.1", "v1.0-gamma"],
            [
                "beef",
                "20260131",
                "v1.0-3-gbeefbee",
                "beefbee.tar.gz",
                "beefbee.zip",
                "ABCDEF0",
                COMMIT,
                COMMIT[:7],
            ],
            id="tarball",
        ),
        pytest.param(
            Choice("tarball", url="{ref}", ref="beef", refs=("*", "2026*"), commits=(COMMIT,)),
            ["beef", "20260131", COMMIT],
            ["cafe", COMMIT[:7]],
            id="tarball with more",
        ),
        pytest.param(Choice("tarball", url="{ref}", any_commit=True), ["beef", COMMIT], [], id="any commit"),
        pytest.param(Choice("flake", url="nixpkgs"), ["v1"], ["beef", COMMIT], id="flake without a list"),
        pytest.param(Choice("flake", url="github:a/b"), ["v1", "beef"], [], id="flake with a list"),
    ],
)
def test_a_client_may_name(tmp_path: Path, choice: Choice, names: list[str], others: list[str]) -> None:
    chosen = KINDS[choice.kind]("", choice, tools(tmp_path))

    assert [name for name in (*names, *others) if chosen.allows(name)] == names


@pytest.mark.parametrize(
    ("address", "repository"),
    [
        ("git+https://x/y?dir=z", "https://x/y"),
        ("git+file:///srv/x", "file:///srv/x"),
        ("git+ssh://git@x/y", "ssh://git@x/y"),
        ("github:owner/name", "https://github.com/owner/name"),
        ("github:owner/name/main?dir=z", "https://github.com/owner/name"),
        ("gitlab:owner/name?host=gitlab.example.org", "https://gitlab.example.org/owner/name"),
        ("sourcehut:~owner/name", "https://git.sr.ht/~owner/name"),
        ("nixpkgs", ""),
        ("flake:nixpkgs", ""),
        ("path:/srv/x", ""),
        ("/srv/x", ""),
        ("https://x/y.tar.gz", ""),
        ("github:owner", ""),
    ],
)
def test_a_flake_lies_in_a_repository(address: str, repository: str) -> None:
    assert repository_of_flake(address) == repository


def test_git_and_nix_get_an_address_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    chosen = GitSet("", Choice("git", url="https://me:p%40ss@x:8443/y.git"), tools(tmp_path))

    assert chosen.tree("main", COMMIT)["url"] == "https://x:8443/y.git"
    assert chosen.environment["NIXFRONT_GIT_USER"] == "me"
    assert chosen.environment["NIXFRONT_GIT_PASSWORD"] == "p@ss"
    assert chosen.environment["GIT_CONFIG_COUNT"] == "3"
    assert chosen.environment["GIT_CONFIG_KEY_2"] == "credential.https://x:8443.helper"


@pytest.mark.parametrize("url", ["ssh://git@x/y", "git@x:y", "https://x/y", "file:///me@x/y", "/srv/me@x"])
def test_an_address_without_a_password_stays(url: str) -> None:
    assert without_password(url) == (url, {})


def test_heads_are_remembered_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.nix.sets.heads._MOST", 2)
    heads = Heads(tmp_path / "heads.json")
    for commit, channel in (("1", "a"), ("2", "a"), ("2", "b"), ("3", "b")):
        heads.add(commit, channel)

    again = Heads(tmp_path / "heads.json")
    assert [again.channels(commit) for commit in "1234"] == [(), ("a", "b"), ("b",), ()]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 64,
        "[[1]]",
        "7",
        "null",
        '{"ab": 1}',
        '[["1", "abc"]]',
        '[["1", [7]]]',
        pytest.param("[" * 9999, id="deep"),
    ],
)
def test_damaged_heads_are_made_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "heads.json").write_text(text)
    heads = Heads(tmp_path / "heads.json")

    assert heads.channels("1") == heads.channels("a") == ()
    heads.add("2", "a")
    assert Heads(tmp_path / "heads.json").channels("2") == ("a",)


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    argv = ("git", "-C", str(folder), *identity, *words)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def empty_ref(mirror: Path) -> None:
    (mirror / "refs/heads/main").write_bytes(b"")


def lose_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def lose_objects(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")
    (mirror / "objects").mkdir()


def leave_lock(mirror: Path) -> None:
    (mirror / "refs/heads/main.lock").touch()


@pytest.mark.parametrize("damage", [empty_ref, lose_head, lose_objects, leave_lock])
async def test_a_damaged_mirror_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    upstream, mirror = tmp_path / "upstream", tmp_path / "mirror.git"
    upstream.mkdir()
    git(upstream, "init", "--quiet", "--initial-branch=main")
    git(upstream, "commit", "--quiet", "--allow-empty", "-m", "one")
    url = f"file://{upstream}"
    before = Repository(url, mirror, deadline=60, follow_head=True, patience=0)
    first = git(upstream, "rev-parse", "HEAD")
    assert "refs/heads/main" in await before.names_that_reach(first)
    git(upstream, "commit", "--quiet", "--allow-empty", "-m", "two")
    damage(mirror)

    again = Repository(url, mirror, deadline=60, follow_head=True, patience=0)

    for commit in (git(upstream, "rev-parse", "HEAD"), first):
        assert "refs/heads/main" in await again.names_that_reach(commit)


async def test_a_sound_mirror_outlasts_a_repository_that_is_away(tmp_path: Path) -> None:
    upstream, mirror = tmp_path / "upstream", tmp_path / "mirror.git"
    upstream.mkdir()
    git(upstream, "init", "--quiet", "--initial-branch=main")
    git(upstream, "commit", "--quiet", "--allow-empty", "-m", "one")
    first = git(upstream, "rev-parse", "HEAD")
    url = f"file://{upstream}"
    await Repository(url, mirror, deadline=60, follow_head=True, patience=0).names_that_reach(first)
    upstream.rename(tmp_path / "away")

    again = Repository(url, mirror, deadline=60, follow_head=True, patience=0)

    assert "refs/heads/main" in await again.names_that_reach(first)
