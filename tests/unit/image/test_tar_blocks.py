"""The bytes of an archive in blocks: cut at fixed places, whatever the files are."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import PackageUnusable
from proxy.image import tar as image_tar
from proxy.image.tar import BLOCK, Entry, directory, file


@given(st.lists(st.integers(0, 2000) | st.integers(BLOCK - 3000, BLOCK + 10), max_size=4))
def test_blocks_are_the_archive_cut_at_fixed_places(sizes: list[int]) -> None:
    entries = [file(f"f{number}", bytes([number + 1]) * size) for number, size in enumerate(sizes)]

    blocks = list(image_tar.blocks(entries))

    assert b"".join(blocks) == b"".join(image_tar.archive(entries))
    assert all(len(block) == BLOCK for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= BLOCK


def test_files_are_read_where_they_lie(tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(b"x" * (BLOCK + 1))
    entries = [directory("d"), Entry("d/f", image_tar.FILE, 0o444, source=str(source), size=BLOCK + 1)]

    data = b"".join(image_tar.blocks(entries))

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["d", "d/f"]
        assert tar.extractfile("d/f").read() == b"x" * (BLOCK + 1)  # type: ignore[union-attr]


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    source = tmp_path / "short"
    source.write_bytes(b"x")

    with pytest.raises(PackageUnusable, match="became 2 bytes shorter"):
        list(image_tar.blocks([Entry("f", image_tar.FILE, 0o444, source=str(source), size=3)]))
