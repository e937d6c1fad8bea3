"""The contract of `Destination`, for every implementation of it."""

from collections.abc import AsyncIterator

import pytest

from proxy.core.errors import NixfrontError, StoreUnreadable
from proxy.core.model import OCI_CONFIG, OCI_MANIFEST, canonical_json, digest_of
from proxy.pipeline.destination import Destination
from tests.support.streams import Stream

LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB: more than is sent in one request
CONFIG = b'{"architecture":"amd64","os":"linux"}'


async def pieces(data: bytes, *, broken: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]
    if broken:
        raise StoreUnreadable("the store went away")


def manifest(comment: str = "") -> bytes:
    """A manifest of `CONFIG` and no layers."""
    config = {"mediaType": OCI_CONFIG, "size": len(CONFIG), "digest": digest_of(CONFIG)}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
    return canonical_json({**document, "annotations": {"comment": comment}})


async def check_blobs(destination: Destination) -> None:
    """A blob is there once it is whole, and only then."""
    for data in (b"", b"small", LARGE):
        digest = digest_of(data)
        assert not await destination.has_blob("one/two", digest)
        with pytest.raises(NixfrontError):
            await destination.upload("one/two", Stream(pieces(data, broken=True), digest))
        with pytest.raises(NixfrontError):
            await destination.upload("one/two", Stream(pieces(data), digest_of(b"other")))
        assert not await destination.has_blob("one/two", digest)
        assert not await destination.has_blob("one/two", digest_of(b"other"))

        await destination.upload("one/two", Stream(pieces(data), digest))
        await destination.upload("one/two", Stream(pieces(data), digest))
        assert await destination.has_blob("one/two", digest)

    await destination.put_blob("one/two", b"put")
    await destination.put_blob("one/two", b"put")
    assert await destination.has_blob("one/two", digest_of(b"put"))


async def check_mounts(destination: Destination) -> None:
    """A blob belongs to a repository, and another one can have it mounted."""
    digest = digest_of(b"shared")
    await destination.put_blob("one", b"shared")

    assert not await destination.has_blob("two", digest)
    assert not await destination.mount("two", digest_of(b"nowhere"), "one")
    assert not await destination.mount("two", digest, "three")
    assert not await destination.has_blob("two", digest)
    assert await destination.mount("two", digest, "one")
    assert await destination.has_blob("two", digest)


async def check_manifests(destination: Destination) -> None:
    """A manifest needs its blobs; its digest and its tags name it, and a tag can move."""
    first, second = manifest("first"), manifest("second")
    assert await destination.manifest_digest("one", "latest") is None
    with pytest.raises(NixfrontError):
        await destination.put_manifest("one", "latest", OCI_MANIFEST, first)
    assert await destination.manifest_digest("one", "latest") is None

    await destination.put_blob("one", CONFIG)
    await destination.put_manifest("one", "latest", OCI_MANIFEST, first)
    await destination.put_manifest("one", "old", OCI_MANIFEST, first)
    await destination.put_manifest("one", "latest", OCI_MANIFEST, second)

    assert await destination.manifest_digest("one", "latest") == digest_of(second)
    assert await destination.manifest_digest("one", "old") == digest_of(first)
    assert await destination.manifest_digest("one", digest_of(first)) == digest_of(first)
    assert await destination.manifest_digest("one", digest_of(b"none")) is None
    assert await destination.manifest_digest("two", "latest") is None
    with pytest.raises(NixfrontError):
        await destination.put_manifest("one", digest_of(first), OCI_MANIFEST, second)
