"""The store on disk: the members of a layer, and what the root tree sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.core.errors import PackageUnusable, StoreUnreadable
from proxy.image.store_tree import StoreListing, check_names, store_entries
from proxy.image.tar import Entry, archive, directory, symlink

STORE = "/nix/store"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder that holds a store, as `prefix`."""
    (tmp_path / "nix/store").mkdir(parents=True)
    return tmp_path


# --- the members of a layer -------------------------------------------------------------------------------


def put(store: Path, path: str, text: str = "", mode: int = 0o644) -> Path:
    target = store / "nix/store" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


def link(store: Path, path: str, target: str) -> None:
    place = store / "nix/store" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def test_a_store_path_may_be_deeper_than_pythons_stack(store: Path) -> None:
    depth = sys.getrecursionlimit() + 200
    folder = f"{store}/nix/store/deep"
    for _ in range(depth):
        os.mkdir(folder)  # noqa: PTH102 - a Path makes the folders above by a recursion
        folder += "/a"

    entries = list(store_entries([f"{STORE}/deep"], str(store)))
    subprocess.run(("rm", "-rf", f"{store}/nix"), check=True)  # shutil.rmtree of pytest is a recursion

    assert len(entries) == 2 + depth
    assert entries[-1].path.count("/a") == depth - 1


def test_a_layer_holds_its_store_paths_sorted_and_in_the_modes_of_nix(store: Path) -> None:
    put(store, "b-pkg/bin/run", "#!/bin/sh\n", 0o755)
    put(store, "b-pkg/bin.d", "x", 0o600)
    put(store, "b-pkg/a", "", 0o4711)
    link(store, "b-pkg/link", "../a-file/./x")
    (store / "nix/store/b-pkg/empty").mkdir(mode=0o700)
    put(store, "a-file", "hello", 0o640)

    entries = list(store_entries([f"{STORE}/b-pkg", f"{STORE}/a-file"], str(store)))

    real = f"{store}/nix/store"
    assert entries == [
        directory("nix"),
        directory("nix/store"),
        Entry("nix/store/a-file", "file", 0o444, source=f"{real}/a-file", size=5),
        directory("nix/store/b-pkg", 0o555),
        Entry("nix/store/b-pkg/a", "file", 0o555, source=f"{real}/b-pkg/a", size=0),
        directory("nix/store/b-pkg/bin", 0o555),
        Entry("nix/store/b-pkg/bin/run", "file", 0o555, source=f"{real}/b-pkg/bin/run", size=10),
        Entry("nix/store/b-pkg/bin.d", "file", 0o444, source=f"{real}/b-pkg/bin.d", size=1),
        directory("nix/store/b-pkg/empty", 0o555),
        symlink("nix/store/b-pkg/link", "../a-file/./x"),
    ]


def test_a_store_path_may_be_a_link(store: Path) -> None:
    link(store, "a", "/nix/store/nowhere")

    *_, last = store_entries([f"{STORE}/a"], str(store))

    assert last == symlink("nix/store/a", "/nix/store/nowhere")


def test_a_layer_of_no_paths_is_the_empty_store() -> None:
    assert list(store_entries([])) == [directory("nix"), directory("nix/store")]


@pytest.mark.parametrize("name", ["x/.wh.nix", "x/share/.wh..wh..opq", "x/.wh.folder/file"])
def test_a_whiteout_has_no_place_in_a_layer(store: Path, name: str) -> None:
    put(store, name)
    put(store, "y/fine.wh.txt")
    check_names([f"{STORE}/y"], str(store))

    with pytest.raises(PackageUnusable, match=r"no image can hold the file /nix/store/x/\S*\.wh\."):
        check_names([f"{STORE}/y", f"{STORE}/x"], str(store))
    with pytest.raises(PackageUnusable, match=r"no image can hold the file /nix/store/x/\S*\.wh\."):
        list(archive(store_entries([f"{STORE}/x"], str(store))))


def test_a_pipe_has_no_place_in_a_layer(store: Path) -> None:
    os.mkfifo(store / "nix/store/pipe")

    with pytest.raises(PackageUnusable, match="/nix/store/pipe is neither"):
        list(store_entries([f"{STORE}/pipe"], str(store)))


# --- the store as the root tree sees it -------------------------------------------------------------------


def test_kinds_are_those_of_what_links_lead_to(store: Path) -> None:
    put(store, "a/bin/run", "", 0o555)
    put(store, "a/data", "", 0o444)
    link(store, "a/to-file", "data")
    link(store, "a/to-program", "/nix/store/a/bin/run")
    link(store, "a/to-directory", "./bin")
    link(store, "a/up", "bin/../bin/../bin/run")
    link(store, "a/dangling", "nothing")
    listing = StoreListing(str(store))

    kinds = listing.children(f"{STORE}/a")

    assert list(kinds.items()) == [
        ("bin", "directory"),
        ("dangling", "file"),
        ("data", "file"),
        ("to-directory", "directory"),
        ("to-file", "file"),
        ("to-program", "executable"),
        ("up", "executable"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("none", id="nothing"),
        pytest.param("a/none", id="nothing in a directory"),
        pytest.param("a/data/x", id="below a file"),
        pytest.param("a/dangling", id="a link to nothing"),
        pytest.param("a/dangling/x", id="below a link to nothing"),
        pytest.param("a/self", id="a link to itself"),
        pytest.param("a/ping", id="two links to each other"),
        pytest.param("a/deeper", id="a link below itself"),
    ],
)
def test_there_is_nothing(store: Path, path: str) -> None:
    put(store, "a/data")
    link(store, "a/dangling", "nothing")
    link(store, "a/self", "self")
    link(store, "a/ping", "pong")
    link(store, "a/pong", "/nix/store/a/ping")
    link(store, "a/deeper", "deeper/deeper")

    assert StoreListing(str(store)).kind(f"{STORE}/{path}") is None


@pytest.mark.parametrize(("length", "kind"), [(40, "file"), (41, None)])
def test_as_many_links_are_followed_as_linux_follows(store: Path, length: int, kind: str | None) -> None:
    put(store, "a/0")
    for number in range(length):
        link(store, f"a/{number + 1}", str(number))

    assert StoreListing(str(store)).kind(f"{STORE}/a/{length}") == kind


def test_a_link_into_the_store_stays_in_a_store_with_a_prefix(store: Path) -> None:
    put(store, "real/lib/x.so", "of the prefix")
    link(store, "a/lib", "/nix/store/real/lib")
    link(store, "a/escape", "/etc/passwd")
    listing = StoreListing(str(store))

    assert listing.kind(f"{STORE}/a/lib") == "directory"
    assert list(listing.children(f"{STORE}/a/lib")) == ["x.so"]
    assert listing.read(f"{STORE}/a/lib/x.so") == "of the prefix"
    assert listing.kind(f"{STORE}/a/escape") is None


def test_no_text_of_this_host_is_read(store: Path) -> None:
    link(store, "a/etc/passwd", "/etc/passwd")

    with pytest.raises(StoreUnreadable, match="is no file of the store"):
        StoreListing(str(store)).read(f"{STORE}/a/etc/passwd")


def test_a_text_is_read_only_if_it_is_small(store: Path) -> None:
    put(store, "a/etc/passwd", "x" * (1 << 20))
    put(store, "b/etc/passwd", "x" * ((1 << 20) + 1))
    listing = StoreListing(str(store))

    assert len(listing.read(f"{STORE}/a/etc/passwd")) == 1 << 20
    with pytest.raises(PackageUnusable, match="is larger than 1048576 bytes"):
        listing.read(f"{STORE}/b/etc/passwd")


def test_ways_up_never_leave_the_prefix(store: Path) -> None:
    put(store, "a/x")
    link(store, "a/out", "../../../../../../../../nix/store/a/x")

    assert StoreListing(str(store)).kind(f"{STORE}/a/out") == "file"


@pytest.mark.parametrize("prefix", ["", "/"])
def test_what_is_not_in_the_store_is_not_seen(tmp_path: Path, prefix: str) -> None:
    """A link of a package to /var/lib says something about this host, and nothing about the package."""
    (tmp_path / "text").write_text("of this host")
    listing = StoreListing(prefix.rstrip("/"))

    assert listing.kind(f"{tmp_path}/text") is None
    assert listing.children(str(tmp_path)) == {}


def test_a_link_out_of_the_store_is_a_file(tmp_path: Path) -> None:
    package = tmp_path / "nix/store/a"
    package.mkdir(parents=True)
    (tmp_path / "var/lib").mkdir(parents=True)
    (package / "state").symlink_to("/var/lib")

    assert StoreListing(str(tmp_path)).children("/nix/store/a") == {"state": "file"}


def test_only_the_store_paths_of_the_image_are_there(store: Path) -> None:
    put(store, "own/share/file", "own")
    put(store, "other/share/file", "of another image")
    link(store, "own/theirs", "/nix/store/other/share")
    link(store, "other/back", "/nix/store/own/share")
    link(store, "own/around", "/nix/store/other/back")
    link(store, "own/mine", "/nix/store/own/share/../share")
    listing = StoreListing(str(store)).within([f"{STORE}/own"])

    assert listing.kind(f"{STORE}/other") is None
    assert listing.kind(f"{STORE}/own/theirs") is None
    assert listing.children(f"{STORE}/own/theirs") == {}
    assert listing.kind(f"{STORE}/own/around") is None, "a way through another one is none in the image"
    assert listing.real(f"{STORE}/own/mine/file") == f"{STORE}/own/share/file"


def test_a_way_through_the_host_leads_nowhere(store: Path) -> None:
    put(store, "a/x")
    (store / "run").mkdir()
    (store / "run/current").symlink_to("/nix/store/a")
    link(store, "a/out", "/run/current/x")

    assert StoreListing(str(store)).kind(f"{STORE}/a/out") is None
