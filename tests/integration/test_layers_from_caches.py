"""Layers straight from a binary cache: equal to those of the store, nothing in the store, and never a byte that a cache made up."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from proxy.tools.process import run
from tests.support.front import machine
from tests.support.image import ValidatedImage
from tests.support.served_cache import copied, served
from tests.support.wait import until

#: Every shape of a package: links, odd names, empty folders, programs that are files, texts that decide the root tree.
PACKAGES = "shell/odd/propagating/singleprogram/large/noise/several/beta"


def packages_in(machine: Path) -> list[str]:
    """The packages in the store of a machine; derivations and sources do not count."""
    return sorted(path.name for path in (machine / "store/nix/store").glob("*-1.0"))


def flip(path: str, data: bytes) -> bytes:
    """One bit of each NAR is another one."""
    return data if not path.startswith("/nar/") else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def boast(path: str, data: bytes) -> bytes:
    """Each listing says that its store path is a file that does not run, which no root tree can have."""
    return (
        data if not path.endswith(".ls") else b'{"version": 1, "root": {"type": "regular"}}'.ljust(len(data))
    )


def digests(image: ValidatedImage) -> tuple[str, Mapping[str, str]]:
    """Of an image and of its documents."""
    return image.digest, image.documents


@asynccontextmanager
async def collecting(machine: Path) -> AsyncIterator[None]:
    """Meanwhile Nix collects the garbage of this machine's store, again and again."""

    async def collect() -> None:
        while True:
            await run(("nix-store", "--store", str(machine / "store"), "--gc"), deadline=60)

    task = asyncio.create_task(collect())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_layers_come_from_caches_and_none_that_lies_changes_an_image(
    tmp_path: Path, nix_count: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cache, key, public = tmp_path / "cache", tmp_path / "key", tmp_path / "key.pub"
    await run(("nix-store", "--generate-binary-cache-key", "test-1", str(key), str(public)), deadline=60)
    # Listings beside the NARs, as cache.nixos.org has them.
    target = f"file://{cache}?secret-key={key}&write-nar-listing=true&compression=zstd"
    async with machine(tmp_path / "builder", nix_count, copy_to=target) as builder:
        through_store = digests(await builder.pull(PACKAGES))
        await until(lambda: "copied to the binary cache paths=" in caplog.text)
    plain, gzip = tmp_path / "plain", tmp_path / "gzip"
    await copied(cache, f"file://{plain}?compression=xz")
    await copied(cache, f"file://{gzip}?compression=gzip")
    keys = (public.read_text(encoding="ascii"),)

    with served(cache) as honest:
        async with machine(
            tmp_path / "second", nix_count, substituters=(honest.url,), public_keys=keys
        ) as second:
            async with collecting(tmp_path / "second"):
                assert digests(await second.pull(PACKAGES)) == through_store
            assert packages_in(tmp_path / "second") == [], "no store path was written"
            fetched = honest.asked(".nar.zst")
            assert len(fetched) == len(set(fetched)), "each NAR is fetched once"

            await second.pull("beta/odd")
            assert honest.asked(".nar.zst") == fetched, "the registry has every layer of the second image"

    with served(cache) as lying:
        lying.change.append(flip)
        async with machine(
            tmp_path / "third", nix_count, substituters=(lying.url, f"file://{plain}"), public_keys=keys
        ) as third:
            assert digests(await third.pull(PACKAGES)) == through_store, (
                "the next cache has other files, and no listings"
            )
            assert f"{lying.url} does not send /nix/store/" in caplog.text
            assert packages_in(tmp_path / "third") == []

    with served(cache) as boasting:
        boasting.change.append(boast)
        async with machine(
            tmp_path / "boasted", nix_count, substituters=(boasting.url,), public_keys=keys
        ) as boasted:
            await boasted.pull("beta")
            assert f"{boasting.url} lists other files of /nix/store/" in caplog.text

    async with machine(
        tmp_path / "fourth", nix_count, substituters=(f"file://{gzip}",), public_keys=keys
    ) as fourth:
        assert digests(await fourth.pull(PACKAGES)) == through_store, (
            "Nix reads a compression that we do not read"
        )
        assert "through the Nix store" in caplog.text
        assert packages_in(tmp_path / "fourth") != []
