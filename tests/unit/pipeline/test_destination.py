"""The destinations that need no server keep the contract."""

from pathlib import Path

import pytest

from proxy.core.model import digest_of
from proxy.pipeline.destination import Destination, MemoryDestination
from proxy.pipeline.oci_layout import OciLayout
from tests.support.destinations import check_blobs, check_manifests, check_mounts


@pytest.mark.parametrize("kind", ["memory", "folder"])
async def test_blobs(tmp_path: Path, kind: str) -> None:
    destination: Destination = MemoryDestination() if kind == "memory" else OciLayout(tmp_path, "latest")

    await check_blobs(destination)


async def test_mounts_in_memory() -> None:
    await check_mounts(MemoryDestination())


async def test_manifests_in_memory() -> None:
    await check_manifests(MemoryDestination())


async def test_a_registry_that_mounts_nothing() -> None:
    destination = MemoryDestination(mounts=False)
    await destination.put_blob("one", b"shared")

    assert not await destination.mount("two", digest_of(b"shared"), "one")
