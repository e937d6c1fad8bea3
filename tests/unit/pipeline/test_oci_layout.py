"""A folder as a place for images: whole files under their digests, and an index that names one image."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.core.errors import DestinationUnusable, DigestMismatch
from proxy.core.model import OCI_MANIFEST, digest_of
from proxy.pipeline.destination import Destination
from proxy.pipeline.oci_layout import OciLayout
from tests.support.streams import Stream

MANIFEST = b'{"schemaVersion":2}'
NAME = "org.opencontainers.image.ref.name"


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def broken() -> AsyncIterator[bytes]:
    yield b"some"
    raise PermissionError(13, "Permission denied", "/nix/store/x")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def blob(data: bytes) -> str:
    return f"blobs/{digest_of(data).replace(':', '/')}"


def named(folder: Path) -> dict[str, str]:
    manifests = json.loads((folder / "index.json").read_bytes())["manifests"]
    return {item["annotations"][NAME]: item["digest"] for item in manifests}


def test_it_is_a_destination() -> None:
    place: Destination = OciLayout(Path("/x"), "latest")

    assert isinstance(place, OciLayout)


async def test_a_blob_is_there_once_it_is_whole(tmp_path: Path) -> None:
    layout = OciLayout(tmp_path / "new", "latest")
    digest = digest_of(b"one two")
    assert not await layout.has_blob("any", digest)

    await layout.upload("any", Stream(chunks(b"one ", b"two"), digest))
    await layout.put_blob("other", b"small")

    assert await layout.has_blob("any", digest)
    assert await layout.has_blob("any", digest_of(b"small"))
    assert files(tmp_path / "new") == {blob(b"one two"), blob(b"small")}
    assert (tmp_path / "new" / blob(b"one two")).read_bytes() == b"one two"
    assert (tmp_path / "new" / blob(b"small")).stat().st_mode & 0o777 == 0o644


async def test_other_bytes_than_were_made_are_refused(tmp_path: Path) -> None:
    layout = OciLayout(tmp_path, "latest")

    with pytest.raises(DigestMismatch, match="was written where"):
        await layout.upload("any", Stream(chunks(b"one"), digest_of(b"two")))

    assert files(tmp_path) == set()


async def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DestinationUnusable, match="cannot write an image into"):
        await OciLayout(tmp_path, "latest").upload("any", Stream(broken(), ""))

    assert files(tmp_path) == set()


async def test_nothing_is_mounted_and_nothing_stands(tmp_path: Path) -> None:
    layout = OciLayout(tmp_path, "latest")
    await layout.put_manifest("any", "latest", OCI_MANIFEST, MANIFEST)

    assert await layout.mount("any", digest_of(b""), "other") is False
    assert await layout.manifest_digest("any", "latest") is None


async def test_the_index_names_the_image_once(tmp_path: Path) -> None:
    layout = OciLayout(tmp_path, "latest")
    for reference in ("0123", "latest"):
        await layout.put_manifest("any", reference, OCI_MANIFEST, MANIFEST)

    assert named(tmp_path) == {"latest": digest_of(MANIFEST)}
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert (tmp_path / blob(MANIFEST)).read_bytes() == MANIFEST


async def test_other_names_stay_and_its_own_moves(tmp_path: Path) -> None:
    await OciLayout(tmp_path, "one").put_manifest("any", "one", OCI_MANIFEST, b"1")
    await OciLayout(tmp_path, "two").put_manifest("any", "two", OCI_MANIFEST, b"2")
    await OciLayout(tmp_path, "one").put_manifest("any", "one", OCI_MANIFEST, b"3")

    assert named(tmp_path) == {"two": digest_of(b"2"), "one": digest_of(b"3")}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifests": 1}', '{"manifests": [1]}', "\0"])
async def test_an_index_that_is_none_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)

    with pytest.raises(DestinationUnusable, match="is no index of an OCI layout"):
        await OciLayout(tmp_path, "latest").put_manifest("any", "latest", OCI_MANIFEST, MANIFEST)

    assert (tmp_path / "index.json").read_text() == text


async def test_a_place_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(DestinationUnusable, match="cannot write an image into"):
        await OciLayout(tmp_path / "file", "latest").put_blob("any", b"x")
