"""Two archives, compared member by member, whatever compresses them."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from proxy.core.errors import DigestMismatch
from proxy.upkeep.layer_difference import differences

GIT, HELLO = "nix/store/aaa-git-2", "nix/store/bbb-hello-1"
PLAIN: dict[str, bytes | str] = {
    f"{GIT}/bin/git": b"git",
    f"{GIT}/bin/link": "git",
    f"{HELLO}/bin/hello": b"hello",
    "bin/sh": "../nix/store/x",
}


def archive(members: dict[str, bytes | str], mode: int = 0o755) -> bytes:
    """Contents are bytes, and the target of a link is a text."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            info.mode = mode
            if isinstance(value, str):
                info.type, info.linkname = tarfile.SYMTYPE, value
                tar.addfile(info)
            else:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return made.getvalue()


def frames(data: bytes) -> bytes:
    """Several frames, as nixfront packs them."""
    half = len(data) // 2
    return b"".join(zstandard.compress(part) for part in (data[:half], data[half:]))


def members(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


def compared(folder: Path, before: bytes, now: bytes) -> tuple[str, ...]:
    one, two = folder / "one", folder / "two"
    one.write_bytes(before)
    two.write_bytes(now)
    return differences(one, two)


@pytest.mark.parametrize("packed", [bytes, members, frames])
def test_the_store_path_is_named_and_what_differs_in_it(
    tmp_path: Path, packed: Callable[[bytes], bytes]
) -> None:
    changed = {**PLAIN, f"{GIT}/bin/git": b"tig", f"{GIT}/bin/link": "elsewhere", "bin/sh": "x"}

    assert compared(tmp_path, packed(archive(PLAIN)), archive(PLAIN)) == ()
    assert compared(tmp_path, packed(archive(PLAIN)), archive(changed)) == (
        "/bin/sh",
        f"/{GIT}: bin/git, bin/link",
    )


def test_what_only_one_of_them_has(tmp_path: Path) -> None:
    fewer = {name: value for name, value in PLAIN.items() if "hello" not in name and name != "bin/sh"}
    more = {**PLAIN, **{f"{GIT}/{number}": b"" for number in range(5)}}

    assert compared(tmp_path, archive(PLAIN), archive(fewer)) == (
        "/bin/sh (only before)",
        f"/{HELLO}: bin/hello (only before)",
    )
    assert compared(tmp_path, archive(PLAIN), archive(more)) == (
        f"/{GIT}: 0 (only now), 1 (only now), 2 (only now) and 2 more",
    )


def test_modes_count(tmp_path: Path) -> None:
    assert compared(tmp_path, archive(PLAIN), archive(PLAIN, mode=0o700)) == (
        "/bin/sh",
        f"/{GIT}: bin/git, bin/link",
        f"/{HELLO}: bin/hello",
    )


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"no archive" * 99, id="something else"),
        pytest.param(archive(PLAIN)[:600], id="cut"),
        pytest.param(gzip.compress(archive(PLAIN), mtime=0)[:50], id="cut and compressed"),
    ],
)
def test_what_is_no_archive_is_an_error(tmp_path: Path, damaged: bytes) -> None:
    with pytest.raises(DigestMismatch, match="no archive"):
        compared(tmp_path, damaged, archive(PLAIN))
