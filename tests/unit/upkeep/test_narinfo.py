"""Narinfo files: what is read from one, and what of a cache in a folder."""

from pathlib import Path

import pytest

from proxy.core.errors import PackageSetUnavailable
from proxy.core.model import PathInfo
from proxy.upkeep import narinfo

A, B, C = (digit * 32 for digit in "abc")

TEXT = f"""\
StorePath: /nix/store/{A}-hello-2.12
URL: nar/0000.nar.xz
Compression: xz
FileHash: sha256:0000
FileSize: 51000
NarHash: sha256:1111
NarSize: 226560
References: {A}-hello-2.12 {C}-libidn2-2.3 {B}-glibc-2.40
Deriver: {C}-hello-2.12.drv
Sig: cache.example.org-1:c2lnbmF0dXJl
"""


def store_path(digest: str, name: str) -> str:
    return f"/nix/store/{digest}-{name}"


def test_name_size_and_references_are_read_and_a_reference_to_itself_is_none() -> None:
    assert narinfo.parse(TEXT) == PathInfo(
        store_path(A, "hello-2.12"), 226560, (store_path(B, "glibc-2.40"), store_path(C, "libidn2-2.3"))
    )


def test_a_path_may_need_nothing() -> None:
    assert narinfo.parse(f"StorePath: /nix/store/{A}-x\nNarSize: 1\nReferences: \n").references == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("<html>not found</html>", id="a page"),
        pytest.param(f"StorePath: /nix/store/{A}-x\n", id="no size"),
        pytest.param(f"StorePath: /nix/store/{A}-x\nNarSize: -1\n", id="a size below 0"),
        pytest.param("StorePath: /nix/store/x\nNarSize: 1\n", id="no store path"),
    ],
)
def test_what_is_no_narinfo_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="StorePath"):
        narinfo.parse(text)


@pytest.mark.parametrize(
    "name", [A, f"{A}-hello", store_path(A, "hello-2.12"), f"/nix/store/{A}-hello/", f"/nix/store/{A}"]
)
def test_a_root_is_a_store_path_or_a_hash(name: str) -> None:
    assert narinfo.hash_of(name) == A


@pytest.mark.parametrize("name", ["hello", "", f"{A}0-hello", store_path(A, "hello/bin"), "/nix/store/hello"])
def test_what_is_neither_is_refused_by_name(name: str) -> None:
    with pytest.raises(PackageSetUnavailable, match=f"^{name!r} is no store path"):
        narinfo.hash_of(name)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    (tmp_path / f"{A}.narinfo").write_text(TEXT)
    (tmp_path / f"{B}.narinfo").write_text(
        f"StorePath: {store_path(B, 'glibc-2.40')}\nNarSize: 7\nReferences:\n"
    )
    return tmp_path


@pytest.mark.parametrize("scheme", ["", "file://"])
async def test_all_that_a_path_needs_is_found_and_what_is_missing_left_out(cache: Path, scheme: str) -> None:
    found = await narinfo.closures(f"{scheme}{cache}", [A, "d" * 32])

    assert {digest: info.nar_size for digest, info in found.items()} == {A: 226560, B: 7}


async def test_a_folder_that_is_no_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageSetUnavailable, match=f"^{tmp_path} is no binary cache"):
        await narinfo.closures(str(tmp_path), [A])


async def test_a_file_that_cannot_be_read_is_told_with_its_hash(cache: Path) -> None:
    (cache / f"{B}.narinfo").write_text("rubbish")

    with pytest.raises(PackageSetUnavailable, match=f"narinfo of {B} cannot be read"):
        await narinfo.closures(str(cache), [A])
