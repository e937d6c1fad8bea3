"""Images made by hand, from nothing but the standard library, so that no code of ours judges itself."""

import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from proxy.core.model import DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP
from tests.support.image import FetchedImage

CREATED = "2024-01-01T00:00:00Z"

#: Changes one document of an image in place, before its digest is taken.
Change = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class HandmadeImage:
    """An image as bytes: two documents, the manifest's media type, and the blobs of its layers, lowest first."""

    manifest: bytes
    media_type: str
    config: bytes
    layers: tuple[bytes, ...]

    def fetched(self, folder: Path) -> FetchedImage:
        """As if it had come over the wire; the layers are written into `folder`."""
        files = [folder / f"layer-{number}" for number in range(len(self.layers))]
        for file, layer in zip(files, self.layers, strict=True):
            file.write_bytes(layer)
        return FetchedImage(
            self.manifest, self.media_type, digest_of(self.manifest), self.config, tuple(files)
        )


def digest_of(data: bytes) -> str:
    """`sha256:` and the hash of these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(path: str, type_: bytes = tarfile.REGTYPE, mode: int = 0o444, **fields: Any) -> tarfile.TarInfo:
    """One entry as it should be: owner 0:0 without names, mtime 1; `fields` are set on top."""
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = type_, mode, 1
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def directory(path: str, mode: int = 0o755, **fields: Any) -> tarfile.TarInfo:
    """A directory."""
    return member(path, tarfile.DIRTYPE, mode, **fields)


def link(path: str, target: str, **fields: Any) -> tarfile.TarInfo:
    """A symbolic link."""
    return member(path, tarfile.SYMTYPE, 0o777, linkname=target, **fields)


def tar(members: Iterable[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """The archive of these entries, in this order; a file comes with its content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in members:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def gzip_members(data: bytes, piece: int = 4096) -> bytes:
    """A gzip stream of several members, one for each piece of the data."""
    return b"".join(gzip.compress(data[at : at + piece], mtime=0) for at in range(0, len(data), piece))


def image(
    tars: Sequence[bytes],
    *,
    media_type: str = DOCKER_MANIFEST,
    config: Change | None = None,
    manifest: Change | None = None,
    command: Sequence[str] = (),
) -> HandmadeImage:
    """A good image of these archives, each a gzip layer, unless `config` or `manifest` breaks it."""
    docker = media_type == DOCKER_MANIFEST
    layers = tuple(gzip_members(data) for data in tars)
    entry = {"created": CREATED, "created_by": "by hand", "comment": "a layer"}
    config_value: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {"Env": [], "Cmd": list(command)},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in tars]},
        "history": [dict(entry) for _ in tars],
    }
    if config is not None:
        config(config_value)
    config_bytes = json.dumps(config_value).encode()

    def descriptor(type_: str, data: bytes) -> dict[str, object]:
        return {"mediaType": type_, "size": len(data), "digest": digest_of(data)}

    layer_type = DOCKER_LAYER_GZIP if docker else OCI_LAYER_GZIP
    manifest_value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, config_bytes),
        "layers": [descriptor(layer_type, layer) for layer in layers],
    }
    if manifest is not None:
        manifest(manifest_value)
    return HandmadeImage(json.dumps(manifest_value).encode(), media_type, config_bytes, layers)


def store_layers(
    program: bytes = b"#!/bin/sh\n",
) -> list[list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]]:
    """The entries of a tidy image of two layers: one store path with a program, then the root that links to it."""
    store_path = "nix/store/00000000000000000000000000000000-tool-1"
    return [
        [
            directory("nix"),
            directory("nix/store"),
            directory(store_path, 0o555),
            directory(f"{store_path}/bin", 0o555),
            (member(f"{store_path}/bin/tool", mode=0o555), program),
        ],
        [
            directory("bin"),
            link("bin/tool", f"/{store_path}/bin/tool"),
            directory("etc"),
            (member("etc/passwd", mode=0o644), b"root:x:0:0::/root:/bin/sh\n"),
            directory("tmp", 0o1777),
        ],
    ]


async def push(
    base_url: str, repository: str, tag: str, made: HandmadeImage, *, headers: Mapping[str, str] | None = None
) -> str:
    """The digest of the image, once it is in the registry under this tag. Raises `AssertionError`."""
    async with aiohttp.ClientSession(base_url, headers=headers) as session:
        for blob in (made.config, *made.layers):
            await push_blob(session, repository, blob)
    await put_manifest(base_url, repository, tag, made.media_type, made.manifest, headers=headers)
    return digest_of(made.manifest)


async def put_manifest(
    base_url: str,
    repository: str,
    tag: str,
    media_type: str,
    data: bytes,
    *,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Let the tag name this manifest or index. Raises `AssertionError`."""
    path = f"/v2/{repository}/manifests/{tag}"
    async with (
        aiohttp.ClientSession(base_url, headers=headers) as session,
        session.put(path, data=data, headers={"Content-Type": media_type}) as named,
    ):
        assert named.status == 201, f"PUT {path} answered {named.status}: {await named.text()}"


async def push_blob(session: aiohttp.ClientSession, repository: str, blob: bytes) -> None:
    """Upload a blob. Raises `AssertionError`."""
    async with session.post(f"/v2/{repository}/blobs/uploads/") as begun:
        assert begun.status == 202, f"POST of an upload answered {begun.status}"
        location = begun.headers["Location"]
    joined = "&" if "?" in location else "?"
    async with session.put(f"{location}{joined}digest={digest_of(blob)}", data=io.BytesIO(blob)) as stored:
        assert stored.status == 201, f"PUT of a blob answered {stored.status}: {await stored.text()}"
