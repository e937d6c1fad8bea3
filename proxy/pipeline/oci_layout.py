"""A folder in place of a registry: one image as an OCI image layout.

image-spec, "Image Layout Specification": `oci-layout` has the version, `blobs/sha256/` has every blob under its digest, and
`index.json` names the manifests by `org.opencontainers.image.ref.name`. A blob is written to a new file, which is then
renamed, so every file is whole; `index.json` comes last. Repositories mean nothing here. The referrers of an image stand under
the same name as the tag that a registry without the API of referrers has for them.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.core.errors import DestinationUnusable, DigestMismatch, reason
from proxy.core.model import OCI_INDEX, BlobStream, canonical_json, digest_of
from proxy.core.names import is_referrers_tag
from proxy.tools.files import NewFile, write_whole

_VERSION = {"imageLayoutVersion": "1.0.0"}
_REF_NAME = "org.opencontainers.image.ref.name"


class OciLayout:
    """The layout in `folder`, which is made if it is not there. The image gets one name in it, `reference`.

    Other names of the image are left out, because its digest is enough. An image that had the name before loses it.
    """

    def __init__(self, folder: Path, reference: str) -> None:
        self._folder = folder
        self._reference = reference

    async def has_blob(self, _repository: str, digest: str) -> bool:
        """Whether the folder has this blob."""
        return await asyncio.to_thread(self._blob(digest).is_file)

    async def mount(self, _repository: str, _digest: str, _origin: str) -> bool:
        """False: there are no other repositories."""
        return False

    async def upload(self, _repository: str, stream: BlobStream) -> None:
        """Write a blob while it is read.

        Raises `DestinationUnusable`, and `DigestMismatch` if other bytes were written than `stream` says.
        """
        with self._border():
            file = await asyncio.to_thread(NewFile, await asyncio.to_thread(self._blobs))
            written = hashlib.sha256()
            try:
                async for chunk in stream:
                    written.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                _same_digest(stream.digest, f"sha256:{written.hexdigest()}")
                await asyncio.to_thread(file.move_to, self._blob(stream.digest))
            finally:
                await asyncio.to_thread(file.remove)

    async def put_blob(self, _repository: str, data: bytes) -> None:
        """Write a small blob. Raises `DestinationUnusable`."""
        with self._border():
            await asyncio.to_thread(self._write_blob, data)

    async def manifest_digest(self, _repository: str, _reference: str) -> str | None:
        """None: the new image takes over the name, whatever has it."""
        return None

    async def put_manifest(self, _repository: str, reference: str, media_type: str, data: bytes) -> bool:
        """Write the manifest, and name it in the index: the image, or its referrers. Raises `DestinationUnusable`."""
        with self._border():
            if ":" in reference:
                await asyncio.to_thread(self._write_blob, data)
            elif reference == self._reference or is_referrers_tag(reference):
                await asyncio.to_thread(self._put, reference, media_type, data)
        return False

    async def manifest(self, _repository: str, reference: str) -> bytes | None:
        """The manifest with this digest, or with this name in the index. Raises `DestinationUnusable`."""
        with self._border():
            return await asyncio.to_thread(self._read, reference)

    async def referrers(self, _repository: str, _digest: str) -> None:
        """None: the index of a layout has no such list, so a name in it does."""

    def _read(self, reference: str) -> bytes | None:
        if ":" not in reference:
            named = [item for item in self._manifests(self._index) if _name(item) == reference]
            if not named:
                return None
            reference = str(named[0]["digest"])
        blob = self._blob(reference)
        return blob.read_bytes() if blob.is_file() else None

    def _put(self, reference: str, media_type: str, data: bytes) -> None:
        self._write_blob(data)
        others = [item for item in self._manifests(self._index) if _name(item) != reference]
        entry = {
            "mediaType": media_type,
            "size": len(data),
            "digest": digest_of(data),
            "annotations": {_REF_NAME: reference},
        }
        write_whole(self._folder / "oci-layout", canonical_json(_VERSION))
        manifests = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*others, entry]}
        write_whole(self._index, canonical_json(manifests))

    @property
    def _index(self) -> Path:
        return self._folder / "index.json"

    def _manifests(self, index: Path) -> list[dict[str, Any]]:
        """The entries of the index. Raises `DestinationUnusable` if the file is no index."""
        if not index.exists():
            return []
        try:
            entries: list[dict[str, Any]] = json.loads(index.read_bytes())["manifests"]
            return [dict(entry) for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise DestinationUnusable(f"{index} is there, and is no index of an OCI layout") from error

    def _blob(self, digest: str) -> Path:
        return self._folder.joinpath("blobs", *digest.split(":"))

    def _blobs(self) -> Path:
        """The folder of the blobs, which is made if it is not there."""
        blobs = self._blob("sha256:x").parent
        blobs.mkdir(parents=True, exist_ok=True)
        return blobs

    def _write_blob(self, data: bytes) -> None:
        self._blobs()
        write_whole(self._blob(digest_of(data)), data)

    @contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationUnusable(
                f"cannot write an image into {self._folder}: {reason(error)}"
            ) from error


def _same_digest(expected: str, written: str) -> None:
    if expected != written:
        raise DigestMismatch(f"{written} was written where {expected} was made")


def _name(item: dict[str, Any]) -> object:
    """The name in an entry of the index."""
    return (item.get("annotations") or {}).get(_REF_NAME)
