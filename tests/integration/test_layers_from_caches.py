"""Layers straight from a binary cache: equal to those of the store, nothing in the store, and never a byte that a cache made up."""

import asyncio
import functools
import http.server
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typing_extensions import override

from proxy.tools.process import run
from tests.support.front import machine
from tests.support.image import ValidatedImage
from tests.support.wait import until

#: Every shape of a package: links, odd names, empty folders, programs that are files, texts that decide the root tree.
PACKAGES = "shell/odd/propagating/singleprogram/large/noise/several/beta"


@dataclass(slots=True)
class Served:
    """A cache by HTTP. `change` maps a request's path and the file's bytes to the bytes that go out, None for a 404."""

    url: str
    paths: list[str]
    change: list[Callable[[str, bytes], bytes | None]] = field(default_factory=list)

    def asked(self, ending: str) -> list[str]:
        """The requests for files of this kind."""
        return [path for path in self.paths if path.endswith(ending)]


class _Handler(http.server.SimpleHTTPRequestHandler):
    served: Served

    @override
    def do_GET(self) -> None:
        self.served.paths.append(self.path)
        file = Path(self.translate_path(self.path))
        data = file.read_bytes() if file.is_file() else None
        for change in self.served.change:
            data = data if data is None else change(self.path, data)
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        self.wfile.write(data)
        if len(data) != file.stat().st_size:
            self.close_connection = True

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    state = Served("", [])
    handler = functools.partial(type("_Bound", (_Handler,), {"served": state}), directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def packages_in(machine: Path) -> list[str]:
    """The packages in the store of a machine; derivations and sources do not count."""
    return sorted(path.name for path in (machine / "store/nix/store").glob("*-1.0"))


def all_paths(cache: Path) -> list[str]:
    """The store paths that a cache in a folder has."""
    return [file.read_text().split()[1] for file in sorted(cache.glob("*.narinfo"))]


async def copied(cache: Path, target: str) -> None:
    """Copy all store paths of a cache in a folder to another cache."""
    copy = ("nix", "--extra-experimental-features", "nix-command", "copy", "--no-check-sigs")
    await run((*copy, "--from", f"file://{cache}", "--to", target, *all_paths(cache)), deadline=60)


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
