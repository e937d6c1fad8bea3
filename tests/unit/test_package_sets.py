"""The facts of a package set that follow from a fetched source, and what is asked of Nix to fetch it."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from proxy import package_sets
from proxy.errors import PackageSetUnavailable
from proxy.model import PackageSet
from proxy.nix import Nix, Source
from proxy.package_sets import Choice, PackageSets

TREE = "/nix/store/source"
ARCHIVE = "/nix/store/archive"
HASH = "sha256-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def sets(choice: Choice, store: Path) -> PackageSets:
    nix = Nix(store, store=str(store), evaluation_deadline=1, build_deadline=1)
    return PackageSets(choice, nix, store, store, deadline=1)


def source(**changes: Any) -> Source:
    facts: dict[str, Any] = {
        "path": TREE,
        "nar_hash": HASH,
        "revision": "",
        "last_modified": 0,
        "archive": "",
    }
    return Source(**{**facts, **changes})


def write_archive(store: Path, *times: float, mode: str = "w:gz") -> None:
    path = Path(f"{store}{ARCHIVE}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream, tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for number, time in enumerate(times):
            member = tarfile.TarInfo(f"{number}")
            member.mtime = time
            archive.addfile(member, io.BytesIO())


@pytest.mark.parametrize(
    ("choice", "tree"),
    [
        pytest.param(
            Choice("nixpkgs", url="https://x/{ref}/nixexprs.tar.xz", ref="nixos-24.05"),
            {"type": "tarball", "url": "https://x/nixos-24.05/nixexprs.tar.xz"},
            id="nixpkgs",
        ),
        pytest.param(
            Choice("nixpkgs", url="https://x/{revision}.tar.gz", ref="r", revision="0123"),
            {"type": "tarball", "url": "https://x/0123.tar.gz"},
            id="nixpkgs at a revision",
        ),
        pytest.param(
            Choice("tarball", url="file:///x.tar", ref="r"),
            {"type": "tarball", "url": "file:///x.tar"},
            id="tarball",
        ),
        pytest.param(
            Choice("git", url="https://x/r.git", ref="main"),
            {"type": "git", "url": "https://x/r.git", "ref": "main"},
            id="git",
        ),
        pytest.param(
            Choice("git", url="https://x/r.git", revision="0123"),
            {"type": "git", "url": "https://x/r.git", "rev": "0123"},
            id="git at a revision",
        ),
        pytest.param(
            Choice("path", path="/srv/set", url="u"), {"type": "path", "path": "/srv/set"}, id="path"
        ),
    ],
)
def test_each_kind_is_fetched_in_its_way(tmp_path: Path, choice: Choice, tree: dict[str, str]) -> None:
    assert sets(choice, tmp_path)._tree() == tree


def test_a_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert sets(Choice("path", path="set"), tmp_path)._tree()["path"] == str(tmp_path / "set")


def test_a_git_source_says_its_commit_and_its_date(tmp_path: Path) -> None:
    choice = Choice("git", url="https://x/r.git", ref="main")

    made = sets(choice, tmp_path)._fetched(source(revision="0123abcd", last_modified=1_700_000_000))

    assert made == PackageSet(
        name="git",
        expression=f"{tmp_path}{TREE}",
        revision="0123abcd",
        source="https://x/r.git",
        created="2023-11-14T22:13:20Z",
    )


def test_a_source_without_a_revision_is_named_by_its_hash_in_hexadecimal(tmp_path: Path) -> None:
    made = sets(Choice("path", path="/srv/set"), tmp_path)._fetched(source())

    assert made.revision == bytes(range(32)).hex()


def test_a_channel_says_its_revision_in_a_file(tmp_path: Path) -> None:
    tree = Path(f"{tmp_path}{TREE}")
    tree.mkdir(parents=True)
    (tree / ".git-revision").write_text("4567\n")
    write_archive(tmp_path, 1_600_000_000)

    made = sets(Choice("nixpkgs", url="https://x"), tmp_path)._fetched(source(archive=ARCHIVE))

    assert (made.revision, made.created) == ("4567", "2020-09-13T12:26:40Z")


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz", "w:bz2"])
def test_a_tarball_is_as_new_as_its_newest_file(tmp_path: Path, mode: str) -> None:
    write_archive(tmp_path, 1, 1_600_000_000.9, 5, mode=mode)

    made = sets(Choice("tarball", url="https://x"), tmp_path)._fetched(
        source(archive=ARCHIVE, last_modified=7)
    )

    assert made.created == "2020-09-13T12:26:40Z"


def test_a_folder_has_no_date(tmp_path: Path) -> None:
    made = sets(Choice("path", path="/srv/set"), tmp_path)._fetched(source(last_modified=1_700_000_000))

    assert (made.created, made.source) == ("1980-01-01T00:00:00Z", "/srv/set")


def test_an_empty_tarball_has_no_date(tmp_path: Path) -> None:
    write_archive(tmp_path)

    made = sets(Choice("tarball", url="https://x"), tmp_path)._fetched(source(archive=ARCHIVE))

    assert made.created == "1980-01-01T00:00:00Z"


@pytest.mark.parametrize("kind", ["git", "path"])
def test_the_date_of_the_operator_goes_before_all(tmp_path: Path, kind: package_sets.Kind) -> None:
    choice = Choice(kind, url="https://x", path="/x", date="2001-02-03T04:05:06Z")

    made = sets(choice, tmp_path)._fetched(source(last_modified=1_700_000_000))

    assert made.created == "2001-02-03T04:05:06Z"


def test_what_is_no_tarball_is_no_package_set(tmp_path: Path) -> None:
    write_archive(tmp_path)
    Path(f"{tmp_path}{ARCHIVE}").write_bytes(b"<html>not found</html>" * 50)

    with pytest.raises(PackageSetUnavailable, match="no tarball that can be read"):
        sets(Choice("tarball", url="https://x"), tmp_path)._fetched(source(archive=ARCHIVE))


async def test_closing_what_was_never_used_is_nothing(tmp_path: Path) -> None:
    await sets(Choice("demo"), tmp_path).close()
