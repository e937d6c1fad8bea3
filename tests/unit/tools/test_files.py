"""A file is written whole or not at all."""

import os
from pathlib import Path

import pytest

from proxy.tools.files import NewFile, keep_newest, write_whole


def test_a_file_is_written_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"

    write_whole(path, b"one")
    write_whole(path, b"two")

    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_there_before_the_last_byte(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with NewFile(tmp_path) as file:
        file.write(b"new ")
        file.write(b"bytes")
        assert path.read_bytes() == b"old"
        file.move_to(path)

    assert path.read_bytes() == b"new bytes"


def test_an_error_leaves_the_old_bytes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_and_break() -> None:
        with NewFile(tmp_path) as file:
            file.write(b"new")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_and_break()

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", b"x")

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_several_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"

    with NewFile(tmp_path) as first, NewFile(tmp_path) as second:
        first.write(b"first")
        second.write(b"second")
        second.move_to(path)
        first.move_to(path)

    assert path.read_bytes() == b"first"


def test_it_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"x")

    write_whole(tmp_path / "file", b"x")

    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_newest_files_stay(tmp_path: Path) -> None:
    for number, name in enumerate(("a.json", "b.json", "c.json", "d.json", "a.log")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, 10 - number))

    keep_newest(tmp_path, "*.json", 2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.log", "b.json"]


def test_what_lasts_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "file", []
    flush = os.fsync

    def note(descriptor: int) -> None:
        there = path.read_bytes() if path.exists() else b""
        steps.append((Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path, there))
        flush(descriptor)

    monkeypatch.setattr("proxy.tools.files.os.fsync", note)
    write_whole(path, b"cache")
    write_whole(path, b"lasts", lasts=True)

    assert steps == [(False, b"cache"), (True, b"lasts")]
