"""The date of an archive."""

import io
import tarfile
from pathlib import Path

import pytest

from proxy.core.errors import PackageSetUnavailable
from proxy.nix.archive import newest


def write_archive(path: Path, *times: float, mode: str = "w:gz") -> None:
    with path.open("wb") as stream, tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for number, time in enumerate(times):
            member = tarfile.TarInfo(f"{number}")
            member.mtime = time
            archive.addfile(member, io.BytesIO())


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz", "w:bz2"])
def test_a_tarball_is_as_new_as_its_newest_file(tmp_path: Path, mode: str) -> None:
    write_archive(tmp_path / "archive", 1, 1_600_000_000.9, 5, mode=mode)

    assert newest(str(tmp_path / "archive")) == 1_600_000_000


def test_an_empty_tarball_has_no_date(tmp_path: Path) -> None:
    write_archive(tmp_path / "archive")

    assert newest(str(tmp_path / "archive")) == 0


def test_a_web_page_is_no_tarball(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"<html>not found</html>" * 50)

    with pytest.raises(PackageSetUnavailable, match="no tarball that can be read"):
        newest(str(tmp_path / "archive"))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2"])
def test_a_tarball_that_was_cut_is_refused(tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "archive"
    write_archive(archive, *range(200), mode=mode)
    archive.write_bytes(archive.read_bytes()[:-40])

    with pytest.raises(PackageSetUnavailable, match="no tarball that can be read"):
        newest(str(archive))
