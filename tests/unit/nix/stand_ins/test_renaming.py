"""Store paths in a stream get other hashes, wherever the stream is cut."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typing_extensions import override

from proxy.nix.stand_ins import renaming

OLD, NEW, OTHER = "0" * 32, "1" * 32, "a" * 32
NAMES = {OLD.encode(): NEW.encode()}


class Pieces(io.BytesIO):
    """A stream that gives at most so many bytes at once."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._most = most

    @override
    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._most)


def text(digest: str) -> bytes:
    return f"x/nix/store/{digest}-a /nix/store/{OTHER}-b /nix/store/{digest}/nix/store/{digest}".encode()


@pytest.mark.parametrize("most", [1, 2, 10, 42, 43, 44, 1000])
def test_every_store_path_of_the_names_gets_its_new_hash(most: int) -> None:
    parts = renaming.renamed(Pieces(text(OLD), most), NAMES)

    assert b"".join(parts) == text(NEW)


@pytest.mark.parametrize("data", [b"", b"/nix/store/", b"/nix/store/" + b"0" * 31, b"0" * 100])
def test_what_is_no_store_path_stays(data: bytes) -> None:
    assert b"".join(renaming.renamed(Pieces(data, 7), NAMES)) == data


def test_two_hashes_may_change_places() -> None:
    swapped = {OLD.encode(): OTHER.encode(), OTHER.encode(): OLD.encode()}

    parts = renaming.renamed(io.BytesIO(f"/nix/store/{OLD}/nix/store/{OTHER}".encode()), swapped)

    assert b"".join(parts) == f"/nix/store/{OTHER}/nix/store/{OLD}".encode()


def test_it_is_a_filter(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text(json.dumps({OLD: NEW}))

    done = subprocess.run(
        [sys.executable, "-I", renaming.__file__, names],
        input=text(OLD),
        capture_output=True,
        check=True,
    )

    assert done.stdout == text(NEW)
