"""Images from a binary cache: straight from it, against our own way through the Nix store in the same round.

The cache is nginx on loopback, signed, with listings as cache.nixos.org has them. Each nixfront has an empty store. It evaluates the
packages before anything is measured, so that its store has the derivations: a preview of the image does that. What counts then
goes from the request to the tag.

`cache/second` is one package more, after the store was emptied: its bytes against those of the NARs that no image had before, and its
time (`cache/second-time`) against that of the first image.
"""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import aiohttp

from proxy.core.model import EVERY_MANIFEST_TYPE
from tests.bench.bench import Bench, most_memory
from tests.bench.result import Measure, Result, result
from tests.support.processes import free_port, serving, succeed
from tests.support.servers import Server, answers

_IMAGES = {"medium": "git/python3/openssh/ripgrep", "huge": "gcc/clang/ffmpeg"}
_FIRST, _SECOND = "git/python3/openssh", "git/python3/openssh/ripgrep"
_LINES = {"medium-xz": ("medium", "xz"), "medium-zstd": ("medium", "zstd"), "huge-zstd": ("huge", "zstd")}
# A worker of root's nginx is somebody else otherwise, and may not read a folder of root's. `/v2/` says that nginx is ready.
_NGINX = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{}}
http {{
  log_format bytes "$request_uri $body_bytes_sent";
  access_log {folder}/access.log bytes;
  sendfile on;
  server {{ listen {host}; root {cache}; location = /v2/ {{ return 200; }} }}
}}
"""


class _Cache:
    """A signed binary cache with the closures of these images, behind nginx."""

    def __init__(self, url: str, key: str, folder: Path) -> None:
        self.url = url
        self.key = key
        self._log = folder / "access.log"
        self._files = folder / "cache"

    def fetched(self) -> dict[str, int]:
        """Bytes by NAR, as far as they were sent."""
        lines = (line.split() for line in self._log.read_text().splitlines())
        sent: dict[str, int] = {}
        for path, size in lines:
            if path.startswith("/nar/"):
                sent[path] = sent.get(path, 0) + int(size)
        return sent

    def forget(self) -> None:
        """Count from here on."""
        self._log.write_text("")

    def sizes(self, paths: Sequence[str]) -> int:
        """The bytes of the NARs of these store paths, as they lie in the cache."""
        texts = ((self._files / f"{path[11:43]}.narinfo").read_text() for path in paths)
        return sum(
            int(match[1]) for text in texts if (match := re.search(r"^FileSize: (\d+)$", text, re.MULTILINE))
        )


@asynccontextmanager
async def _cache(
    bench: Bench, folder: Path, compression: str, images: Sequence[str]
) -> AsyncIterator[_Cache]:
    chosen = await bench.set()
    await asyncio.to_thread(folder.mkdir)
    key, public, files = folder / "key", folder / "key.pub", folder / "cache"
    await succeed(("nix-store", "--generate-binary-cache-key", "bench-1", str(key), str(public)))
    target = f"file://{files}?secret-key={key}&write-nar-listing=true&compression={compression}"
    paths = sorted({info.path for image in images for info in chosen.closure(*image.split("/"))})
    copy = ("nix", "--extra-experimental-features", "nix-command", "copy", "--no-check-sigs", "--to", target)
    source = ("--store", chosen.store.prefix) if chosen.store.prefix else ()
    await succeed((*copy, *source, *paths), deadline=1800)
    host = f"127.0.0.1:{free_port()}"
    text = _NGINX.format(folder=folder, host=host, cache=files)
    await asyncio.to_thread((folder / "nginx.conf").write_text, text)
    argv = ("nginx", "-c", str(folder / "nginx.conf"))
    async with serving(argv, log=folder / "output", ready=answers(host)):
        trusted = await asyncio.to_thread(public.read_text)
        yield _Cache(f"http://{host}", trusted, folder)


@asynccontextmanager
async def _front(
    bench: Bench, folder: Path, registry: Server, cache: _Cache, fetch: str
) -> AsyncIterator[Server]:
    """A nixfront whose store is `folder/store`."""
    nix: dict[str, object] = {
        "store": str(folder / "store"),
        "substituters": [cache.url],
        "public_keys": [cache.key],
        "fetch": fetch,
    }
    async with bench.front(folder, registry, nix=nix) as front:
        yield front


async def _seconds(front: Server, image: str) -> float:
    """From the request to the tag, of an image whose packages were evaluated before."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{front.url}/compose", params={"names": image, "part": "1"}) as answer:
            assert answer.status == 200, await answer.text()
        started = perf_counter()
        accept = {"Accept": EVERY_MANIFEST_TYPE}
        async with session.get(f"{front.url}/v2/{image}/manifests/latest", headers=accept) as answer:
            assert answer.status == 200, await answer.text()
        return perf_counter() - started


async def _measure(bench: Bench) -> Sequence[Result]:
    lines: list[Result] = []
    async with bench.scratch() as folder:
        for name, (size, compression) in _LINES.items():
            image = _IMAGES[size]
            straight: list[float] = []
            stored: list[float] = []
            memory: list[float] = []
            async with _cache(bench, folder / f"cache-{name}", compression, (image,)) as cache:
                for number in range(1 if bench.quick and size == "huge" else bench.rounds):
                    for fetch, times in (("auto", straight), ("store", stored)):
                        at = folder / f"{name}-{number}-{fetch}"
                        async with (
                            bench.registry(at / "registry") as registry,
                            _front(bench, at, registry, cache, fetch) as front,
                        ):
                            times.append(await _seconds(front, image))
                            if fetch == "auto":
                                memory.append(most_memory(front.process.pid) / 1e6)
                        await succeed(("chmod", "-R", "u+w", str(at)))
                        await asyncio.to_thread(shutil.rmtree, at)
            lines.append(result(f"cache/{name}", straight, stored, unit="s"))
            lines.append(result(f"cache/memory-{name}", memory, unit="MB"))
    return lines


async def _second(bench: Bench) -> Sequence[Result]:
    """A second image after the store was emptied and nixfront was started anew; the registry has all but one package's layers."""
    chosen = await bench.set()
    first_times: list[float] = []
    second_times: list[float] = []
    sent: list[float] = []
    new: list[float] = []
    async with (
        bench.scratch() as folder,
        _cache(bench, folder / "cache", "xz", (_FIRST, _SECOND)) as cache,
    ):
        before, after = (
            {info.path for info in chosen.closure(*image.split("/"))} for image in (_FIRST, _SECOND)
        )
        for number in range(bench.rounds):
            at = folder / str(number)
            async with bench.registry(at / "registry") as registry:
                async with _front(bench, at, registry, cache, "auto") as front:
                    first_times.append(await _seconds(front, _FIRST))
                await succeed(("chmod", "-R", "u+w", str(at / "store")))
                await asyncio.to_thread(shutil.rmtree, at / "store")
                await asyncio.to_thread(cache.forget)
                async with _front(bench, at, registry, cache, "auto") as front:
                    second_times.append(await _seconds(front, _SECOND))
            sent.append(sum((await asyncio.to_thread(cache.fetched)).values()) / 1e6)
            new.append(await asyncio.to_thread(cache.sizes, sorted(after - before)) / 1e6)
    return [
        result("cache/second", sent, new, unit="MB"),
        result("cache/second-time", second_times, first_times, unit="s"),
    ]


MEASURES = (
    Measure(tuple(f"cache/{kind}{name}" for name in _LINES for kind in ("", "memory-")), _measure),
    Measure(("cache/second", "cache/second-time"), _second),
)
