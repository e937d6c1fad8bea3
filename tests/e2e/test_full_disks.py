"""A disk is full, for real (a small tmpfs, so as root): the client is told, nothing half-made stays, room is enough to go on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.support.processes import succeed, write
from tests.support.servers import Server, nixfront, stock_registry
from tests.support.stored import stored_tags
from tests.support.validate import validate

#: 12 MB of it cannot be made smaller; the others are small.
_PACKAGES = """{ system }:
let make = name: script: derivation {
  inherit system name; builder = "/bin/sh"; args = [ "-euc" script ]; PATH = "/usr/bin:/bin";
}; in {
  small = make "small" "mkdir -p $out/bin; echo 1 > $out/bin/small";
  large = make "large" "mkdir $out; openssl enc -aes-256-ctr -pass pass:nixfront -nosalt -pbkdf2 < /dev/zero 2>/dev/null | head -c 12000000 > $out/data";
}
"""


@dataclass(frozen=True)
class Disk:
    """A small file system."""

    folder: Path

    async def resize(self, size: str) -> None:
        await succeed(("mount", "-o", f"remount,size={size}", str(self.folder)))


@contextlib.asynccontextmanager
async def disk(folder: Path, size: str) -> AsyncIterator[Disk]:
    await asyncio.to_thread(folder.mkdir)
    await succeed(("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)))
    try:
        yield Disk(folder)
    finally:
        await succeed(("umount", "-l", str(folder)))


def settings(folder: Path, registry: Server, store: Path) -> dict[str, object]:
    write(folder / "set" / "default.nix", _PACKAGES)
    return {
        "registry": {"url": registry.url},
        "nix": {"store": str(store)},
        "packages": {"kind": "path", "path": str(folder / "set")},
        "builds": {"failure_seconds": 0},
    }


@pytest.fixture(autouse=True)
def _builders_see_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "NIX_CONFIG", "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64 /etc/ssl\n"
    )


async def pull(server: Server, name: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/v2/{name}/manifests/latest") as answer,
    ):
        await answer.read()
        return answer.status, answer.reason or ""


async def test_the_registrys(tmp_path: Path) -> None:
    async with (
        disk(tmp_path / "small", "8m") as full,
        stock_registry(full.folder) as registry,
        nixfront(
            tmp_path,
            settings=settings(tmp_path, registry, tmp_path / "store"),
            without_documents="a registry keeps what it wrote of a tag when its disk was full",
        ) as server,
    ):
        assert (await pull(server, "small"))[0] == 200
        status, reason = await pull(server, "large")
        assert status == 503
        assert "the registry answered 500" in reason
        assert {tag.repository for tag in await stored_tags(registry.url)} == {"small"}
        assert "build failed image=large:latest" in server.process.log_text()
        assert (await pull(server, "small"))[0] == 200, "what is there is served"

        await full.resize("64m")
        await validate(server.url, "large", "latest")


async def test_that_of_the_nix_store(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    async with (
        disk(tmp_path / "store", "9m") as full,
        stock_registry(tmp_path / "registry") as registry,
        nixfront(tmp_path, settings=settings(tmp_path, registry, full.folder)) as server,
    ):
        assert (await pull(server, "small"))[0] == 200
        status, reason = await pull(server, "large")
        assert status == 503
        assert "the disk under the Nix store of this host is full" in reason
        assert {tag.repository for tag in await stored_tags(registry.url)} == {"small"}
        assert "outcome=StoreFull" in server.process.log_text()

        await full.resize("64m")
        await validate(server.url, "large", "latest")


async def test_that_of_nixfronts_own_data(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    async with (
        disk(tmp_path / "data", "4m") as full,
        stock_registry(tmp_path / "registry") as registry,
        nixfront(tmp_path, settings=settings(tmp_path, registry, tmp_path / "store")) as server,
    ):
        assert (await pull(server, "small"))[0] == 200
        await asyncio.to_thread(fill, full.folder / "filler")
        status, reason = await pull(server, "large")
        assert status in (200, 503), reason
        assert (await pull(server, "small"))[0] == 200

        (full.folder / "filler").unlink()
        await validate(server.url, "large", "latest")
        await validate(server.url, "small", "latest")
    assert "Traceback" not in server.process.log_text()


def fill(file: Path) -> None:
    """Write until there is no room."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1 << 12))
