"""Which names and commits a client may choose, and what git gets instead of a password."""

from pathlib import Path
from typing import cast

import aiohttp
import pytest

from proxy.nix.runner import Limits, NixRunner
from proxy.nix.sets import KINDS, Choice, Tools
from proxy.nix.sets.flake import repository_of_flake
from proxy.nix.sets.git import GitSet
from proxy.nix.sets.heads import Heads
from proxy.nix.sets.repository import without_password
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
    (tmp_path / "heads.json").write_text("[[1]]")
    assert Heads(tmp_path / "heads.json").channels("2") == ()
