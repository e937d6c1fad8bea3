"""The one validator of images: whatever a test pulls, pushes or builds ends here.

Three steps: fetch all of an image over HTTP, check it (`check_image`, which needs no network), and let umoci unpack
it, the second opinion of a tool that shares no code with us.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
from cachetools import LRUCache
from multidict import CIMultiDict

from proxy.core.model import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    digest_of,
)
from tests.support import tree
from tests.support.attached import checked_documents
from tests.support.documents import GZIP_LAYERS, Blob, check_config, check_conventions, check_manifest
from tests.support.image import FetchedImage, Member, ValidatedImage
from tests.support.processes import run

__all__ = ["EVERY_TYPE", "ValidatedImage", "check_image", "fetch", "validate"]

EVERY_TYPE = (DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX)
_CHUNK = 1 << 20
_UNPACK_SECONDS = 300.0
#: Images that passed, by all that the outcome depends on: tests pull the same few images hundreds of times.
_passed: LRUCache[tuple[str, str, bool, tuple[int, int] | None], ValidatedImage] = LRUCache(100)


async def validate(
    base_url: str,
    repository: str,
    reference: str,
    *,
    accept: Sequence[str] = EVERY_TYPE,
    ours: bool = True,
    commanded: tuple[int, int] | None = None,
    headers: Mapping[str, str] | None = None,
    has_documents: bool = False,
) -> ValidatedImage:
    """The image at this reference, every byte of it fetched and checked; `headers` go with every request.

    `ours=False` is for an image that somebody else pushed: documents, digests and sizes must still be right, but
    its layers may look as they like, and it needs no documents. `commanded`: see `tree.check_members`, for the root layer.
    The documents that nixfront attached are checked too; with `has_documents` it waits until all of them are there.
    Raises `AssertionError`, which names the first breach found.
    """
    folder = Path(
        await asyncio.to_thread(
            tempfile.mkdtemp, prefix="validate-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")
        )
    )
    try:
        async with aiohttp.ClientSession(base_url, auto_decompress=False, headers=headers) as session:
            fetched = await fetch(session, repository, reference, folder, accept)
            image = await _check(fetched, folder, ours, commanded)
            documents = await checked_documents(session, repository, image.digest, has_documents and ours)
    finally:
        await _remove(folder)
    return replace(image, documents=documents)


async def _check(
    fetched: FetchedImage, folder: Path, ours: bool, commanded: tuple[int, int] | None
) -> ValidatedImage:
    """Check the image and unpack it; of one that passed before, only that these are its bytes."""
    key = (fetched.content_digest, fetched.content_type, ours, commanded)
    if (image := _passed.get(key)) is not None:
        for number, (path, layer) in enumerate(zip(fetched.layers, image.layers, strict=True)):
            blob = Blob(layer.media_type, layer.size, layer.digest)
            await asyncio.to_thread(tree.check_blob, path, blob, f"layer {number}")
        return image
    image = await asyncio.to_thread(check_image, fetched, ours=ours, commanded=commanded)
    await _unpack(image, fetched, folder)
    _passed[key] = image
    return image


def check_image(
    fetched: FetchedImage, *, ours: bool = True, commanded: tuple[int, int] | None = None
) -> ValidatedImage:
    """The same without network: everything that can be said about the bytes alone. Raises `AssertionError`."""
    manifest = check_manifest(fetched.manifest, fetched.content_type, fetched.content_digest)
    assert len(fetched.layers) == len(manifest.layers), (
        "not as many layers were fetched as the manifest names"
    )
    layers, contents = [], []
    for number, (path, blob) in enumerate(zip(fetched.layers, manifest.layers, strict=True)):
        tree.check_blob(path, blob, f"layer {number}")
        layer, members = tree.read_layer(path, blob, number)
        layers.append(layer)
        contents.append(members)
    config = check_config(fetched.config, tuple(layer.diff_id for layer in layers))

    files: dict[str, Member] = {}
    if ours:
        check_conventions(config, len(layers))
        checked = [
            tree.check_members(members, number, commanded if number == len(contents) - 1 else None)
            for number, members in enumerate(contents)
        ]
        files.update(tree.check_tree(checked))
    return ValidatedImage(manifest.digest, manifest.media_type, config, tuple(layers), files)


async def fetch(
    session: aiohttp.ClientSession, repository: str, reference: str, folder: Path, accept: Sequence[str]
) -> FetchedImage:
    """Every part of an image, as one client after another would ask for it. Blobs become files in `folder`.

    Of an index it is the first image, as a client of that platform would choose.
    """
    headers = CIMultiDict(("Accept", media_type) for media_type in accept)
    document, content_type, digest = await _manifest(session, repository, reference, headers)
    if content_type in (DOCKER_LIST, OCI_INDEX):
        reference = json.loads(document)["manifests"][0]["digest"]
        document, content_type, digest = await _manifest(session, repository, reference, headers)
    if reference.startswith("sha256:"):
        assert digest == reference, f"asked for {reference}, Docker-Content-Digest is {digest}"
    manifest = check_manifest(document, content_type, digest)
    again, _, _ = await _manifest(session, repository, digest, headers)
    assert again == document, f"{repository}@{digest} has other bytes than {repository}:{reference}"

    blobs = (manifest.config, *manifest.layers)
    files = [folder / f"blob-{number}" for number in range(len(blobs))]
    for blob, file in zip(blobs, files, strict=True):
        await _blob(session, repository, blob, file)
    await asyncio.to_thread(tree.check_blob, files[0], manifest.config, "config")
    config = await asyncio.to_thread(files[0].read_bytes)
    return FetchedImage(document, content_type, digest, config, tuple(files[1:]))


async def _manifest(
    session: aiohttp.ClientSession, repository: str, reference: str, headers: CIMultiDict[str]
) -> tuple[bytes, str, str]:
    """(bytes, Content-Type, Docker-Content-Digest) of a manifest; HEAD has to say the same as GET."""
    path = f"/v2/{repository}/manifests/{reference}"
    async with session.get(path, headers=headers) as answer:
        document = await answer.read()
        assert answer.status == 200, f"GET {path} answered {answer.status}: {document[:500]!r}"
        said = [
            answer.headers.get(name, "")
            for name in ("Content-Type", "Docker-Content-Digest", "Content-Length")
        ]
    assert said[2] == str(len(document)), f"GET {path}: Content-Length {said[2]!r} for {len(document)} bytes"
    async with session.head(path, headers=headers) as answer:
        assert answer.status == 200, f"HEAD {path} answered {answer.status}"
        head = [
            answer.headers.get(name, "")
            for name in ("Content-Type", "Docker-Content-Digest", "Content-Length")
        ]
    assert head == said, f"HEAD {path} says {head}, GET {said}"
    return document, said[0], said[1]


async def _blob(session: aiohttp.ClientSession, repository: str, blob: Blob, file: Path) -> None:
    path = f"/v2/{repository}/blobs/{blob.digest}"
    async with session.get(path) as answer:
        assert answer.status == 200, f"GET {path} answered {answer.status}"
        length = answer.headers.get("Content-Length")
        assert length == str(blob.size), (
            f"GET {path}: Content-Length {length!r}, its descriptor says {blob.size}"
        )
        stream = await asyncio.to_thread(file.open, "wb")
        try:
            async for chunk in answer.content.iter_chunked(_CHUNK):
                await asyncio.to_thread(stream.write, chunk)
        finally:
            await asyncio.to_thread(stream.close)


async def _unpack(image: ValidatedImage, fetched: FetchedImage, folder: Path) -> None:
    """umoci unpacks it. It reads OCI layouts alone, so a Docker image is described there in OCI types."""
    await asyncio.to_thread(_write_layout, image, fetched, folder / "layout")
    rootless = () if os.geteuid() == 0 else ("--rootless",)
    root = folder / "root"
    # Without "raw" umoci reads all files again, for the hashes that a later repack would need.
    argv = ("umoci", "raw", "unpack", *rootless, "--image", f"{folder / 'layout'}:image", str(root))
    outcome = await run(argv, deadline=_UNPACK_SECONDS)
    assert outcome.returncode == 0, f"umoci cannot unpack the image: {outcome.stderr[-2000:]}"
    left_out = await asyncio.to_thread(
        lambda: [path for path in image.files if not os.path.lexists(root / path)]
    )
    assert not left_out, f"umoci left out {left_out[:20]}"


def _write_layout(image: ValidatedImage, fetched: FetchedImage, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    layers = []
    for layer, source in zip(image.layers, fetched.layers, strict=True):
        zstd = layer.media_type == OCI_LAYER_ZSTD  # which umoci cannot read: it gets the archive
        digest = layer.diff_id if zstd else layer.digest
        target = blobs / digest.partition(":")[2]
        if zstd:
            with source.open("rb") as packed, target.open("wb") as archive:
                shutil.copyfileobj(tree.plain(packed, layer.media_type), archive)
        elif not target.exists():
            target.hardlink_to(source)
        media_type = OCI_LAYER_GZIP if layer.media_type in GZIP_LAYERS else OCI_LAYER
        layers.append({"mediaType": media_type, "size": target.stat().st_size, "digest": digest})
    config = _store(blobs, fetched.config, OCI_CONFIG)
    value = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    manifest = _store(blobs, json.dumps(value).encode(), OCI_MANIFEST)
    named = {**manifest, "annotations": {"org.opencontainers.image.ref.name": "image"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))


def _store(blobs: Path, data: bytes, media_type: str) -> dict[str, object]:
    digest = digest_of(data)
    (blobs / digest.partition(":")[2]).write_bytes(data)
    return {"mediaType": media_type, "size": len(data), "digest": digest}


async def _remove(folder: Path) -> None:
    """Delete a folder in which store paths were unpacked: their directories are not writable, root alone may ignore it."""
    script = 'chmod -R u+rwX -- "$1"; exec rm -rf -- "$1"' if os.geteuid() else 'exec rm -rf -- "$1"'
    outcome = await run(("sh", "-c", script, "sh", str(folder)), deadline=_UNPACK_SECONDS)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
