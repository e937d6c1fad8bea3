"""A root tree as files on disk and back: whatever a script may have left there, and nothing outside."""

import os
from pathlib import Path

import pytest

from proxy.core.errors import ImageInvalid
from proxy.image import store_tree, tar
from proxy.image.tar import Entry, directory, file, symlink

ENTRIES = (
    directory("etc"),
    file("etc/passwd", b"root\n"),
    file("etc/shadow", b"", mode=0o600),
    directory("root", 0o700),
    directory("tmp", 0o1777),
    symlink("tmp/link", "/nix/store/x/\udce9"),
    file("tmp/caf\udce9", b"x", mode=0o755),
)


def output(folder: Path, modes: bytes = b"") -> Path:
    """What a build may have left: `tree` and `modes` in a folder."""
    (folder / "tree").mkdir(parents=True)
    (folder / "modes").write_bytes(modes)
    return folder


def test_a_tree_is_laid_out_as_its_members_say(tmp_path: Path) -> None:
    store_tree.lay_out(ENTRIES, tmp_path)

    assert (tmp_path / "etc/passwd").read_bytes() == b"root\n"
    assert os.fsencode((tmp_path / "tmp/link").readlink()) == b"/nix/store/x/\xe9"
    assert {name for _, _, names in os.walk(os.fsencode(tmp_path)) for name in names} >= {b"caf\xe9"}


def test_only_modes_that_nix_would_not_keep_are_said(tmp_path: Path) -> None:
    assert store_tree.lay_out(ENTRIES, tmp_path) == [
        "600 etc/shadow",
        "700 root",
        "1777 tmp",
        "755 tmp/caf\udce9",
    ]


def test_a_tree_comes_back_sorted_with_its_recorded_modes(tmp_path: Path) -> None:
    made = output(
        tmp_path / "out",
        b"\0".join((b"1777", b"./a", b"0", b"./a/b", b"4711", b"./a.b", b"777", b"./a/link", b"")),
    )
    (made / "tree/a").mkdir()
    (made / "tree/a/b").write_bytes(b"four")
    (made / "tree/a.b").write_bytes(b"")
    (made / "tree/a/link").symlink_to("/etc/passwd")

    entries = store_tree.read_back(str(made))

    assert entries == (
        directory("a", 0o1777),
        Entry("a/b", tar.FILE, 0, source=str(made / "tree/a/b"), size=4),
        symlink("a/link", "/etc/passwd"),
        Entry("a.b", tar.FILE, 0o4711, source=str(made / "tree/a.b")),
    )


@pytest.mark.parametrize(
    "modes", [b"", b"\0", b"9\0./a\0", b"0x1\0./a\0", b"77777\0./a\0", b"644\0../a\0", b"644", b"\xff\0./a\0"]
)
def test_a_record_that_says_nothing_of_use_means_the_usual_mode(tmp_path: Path, modes: bytes) -> None:
    made = output(tmp_path / "out", modes)
    (made / "tree/a").write_bytes(b"")

    (entry,) = store_tree.read_back(str(made))

    assert entry.mode == 0o644


def test_a_link_in_place_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "tree").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/tree").symlink_to(secret)
    (tmp_path / "linked").symlink_to(secret)

    for place in ("out", "linked"):
        with pytest.raises(ImageInvalid, match="that is no directory"):
            store_tree.read_back(str(tmp_path / place))


def test_a_link_to_a_directory_is_a_link(tmp_path: Path) -> None:
    made = output(tmp_path / "out")
    (made / "tree/up").symlink_to("../..")

    assert store_tree.read_back(str(made)) == (symlink("up", "../.."),)


def test_a_store_elsewhere_is_looked_at_there(tmp_path: Path) -> None:
    made = output(tmp_path / "nix/store/x")
    (made / "tree/a").write_bytes(b"1")

    (entry,) = store_tree.read_back("/nix/store/x", str(tmp_path))

    assert (entry.path, entry.source) == ("a", str(made / "tree/a"))
