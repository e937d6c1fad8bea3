"""Images from a binary cache: straight from it, against a floor in C (see `floor`) and our own way through the Nix store.

All three are made in each round. The floor fetches the same NARs and makes the same layers of them; it does not know what a narinfo,
a derivation or a manifest is.

The cache is nginx on loopback, signed, with listings as cache.nixos.org has them; its files are kept beside the package set. Each nixfront has an empty store. It evaluates the
packages before anything is measured, so that its store has the derivations: a preview of the image does that. What counts then
goes from the request to the tag.

`cache/second` is one package more, after the store was emptied: its bytes against those of the NARs that no image had before, and its
time (`cache/second-time`) against that of the first image.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import aiohttp

from proxy.core.model import EVERY_MANIFEST_TYPE
from proxy.nix.cache import narinfo
from proxy.nix.cache.narinfo import NarInfo
from proxy.registry.endpoint import Endpoint
from proxy.upkeep.explain import explain
from tests.bench import floor
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
    """A signed binary cache in the folder `files`, at the host of an nginx that writes its log to `log`."""

    def __init__(self, host: str, key: str, files: Path, log: Path) -> None:
        self.host = host
        self.key = key
        self._files = files
        self._log = log

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

    def nars(self, paths: Sequence[str]) -> list[NarInfo]:
        """What the cache says of these store paths."""
        return [
            narinfo.parse((self._files / f"{narinfo.hash_of(path)}.narinfo").read_text(), path)
            for path in paths
        ]


@asynccontextmanager
async def _cache(
    bench: Bench, folder: Path, compression: str, images: Sequence[str]
) -> AsyncIterator[_Cache]:
    chosen = await bench.set(*images)
    await asyncio.to_thread(folder.mkdir)
    files = chosen.folder / f"cache-{compression}"
    key, public = chosen.folder / "cache-key", chosen.folder / "cache-key.pub"
    if not await asyncio.to_thread(key.exists):
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
        yield _Cache(host, trusted, files, folder / "access.log")


@asynccontextmanager
async def _front(
    bench: Bench, folder: Path, registry: Server, cache: _Cache, fetch: str
) -> AsyncIterator[Server]:
    """A nixfront whose store is `folder/store`."""
    nix: dict[str, object] = {
        "store": str(folder / "store"),
        "substituters": [f"http://{cache.host}"],
        "public_keys": [cache.key],
        "fetch": fetch,
    }
    async with bench.front(folder, registry, nix=nix) as front:
        yield front


async def _evaluate(front: Server, image: str) -> None:
    """Let it evaluate the packages of an image: a preview does that."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{front.url}/compose", params={"names": image, "part": "1"}) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def _seconds(front: Server, image: str) -> float:
    """From the request to the tag, of an image whose packages were evaluated before."""
    await _evaluate(front, image)
    async with aiohttp.ClientSession() as session:
        started = perf_counter()
        accept = {"Accept": EVERY_MANIFEST_TYPE}
        async with session.get(f"{front.url}/v2/{image}/manifests/latest", headers=accept) as answer:
            assert answer.status == 200, await answer.text()
        return perf_counter() - started


def _on_disk(folder: Path) -> int:
    """The bytes of a nixfront's store and data."""
    files = [file for name in ("store", "data") for file in (folder / name).rglob("*")]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


async def _measure(bench: Bench, name: str) -> Sequence[Result]:
    size, compression = _LINES[name]
    image = _IMAGES[size]
    times: dict[str, list[float]] = {"auto": [], "store": [], "floor": []}
    memory: list[float] = []
    disk: list[float] = []
    async with (
        bench.scratch() as folder,
        _cache(bench, folder / "cache", compression, (image,)) as cache,
    ):
        program = await floor.build(folder)
        for number in range(1 if bench.quick and size == "huge" else bench.rounds):
            for fetch in ("auto", "store"):
                at = folder / f"{number}-{fetch}"
                async with (
                    bench.registry(at / "registry") as registry,
                    _front(bench, at, registry, cache, fetch) as front,
                ):
                    await _evaluate(front, image)
                    before = await asyncio.to_thread(_on_disk, at)
                    times[fetch].append(await _seconds(front, image))
                    if fetch == "auto":
                        disk.append((await asyncio.to_thread(_on_disk, at) - before) / 1e6)
                        memory.append(most_memory(front.process.pid) / 1e6)
                        times["floor"].append(await _floor(bench, folder, program, registry, cache, image))
                await succeed(("chmod", "-R", "u+w", str(at)))
                await asyncio.to_thread(shutil.rmtree, at)
    return [
        result(f"cache/{name}", times["auto"], times["floor"], unit="s"),
        result(f"cache/{name}-vs-store", times["auto"], times["store"], unit="s"),
        result(f"cache/memory-{name}", memory, unit="MB"),
        result(f"cache/disk-{name}", disk, unit="MB"),
    ]


async def _floor(
    bench: Bench, folder: Path, program: Path, made_in: Server, cache: _Cache, image: str
) -> float:
    """The seconds of the floor for the layers of this image, which is in the registry `made_in`."""
    async with Endpoint(made_in.url).opened() as reached:
        made = await explain(reached, image, "latest")
    layers = [layer for layer in made.layers if layer.store_paths]
    prefix = (await bench.set(image)).store.prefix
    described, paths = folder / "layers", sorted({path for layer in layers for path in layer.store_paths})
    await asyncio.to_thread(
        floor.write_layers,
        [layer.store_paths for layer in layers],
        prefix,
        described,
        await asyncio.to_thread(cache.nars, paths),
        cache.host,
    )
    async with bench.registry(folder / "other-registry") as registry:
        least = await floor.run(program, registry, described)
    await asyncio.to_thread(shutil.rmtree, folder / "other-registry")
    assert [layer.diff_id for layer in least.layers] == [layer.diff_id for layer in layers]
    return least.seconds


async def _second(bench: Bench) -> Sequence[Result]:
    """A second image after the store was emptied and nixfront was started anew; the registry has all but one package's layers."""
    chosen = await bench.set(_FIRST, _SECOND)
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
            nars = await asyncio.to_thread(cache.nars, sorted(after - before))
            new.append(sum(nar.file_size for nar in nars) / 1e6)
    return [
        result("cache/second", sent, new, unit="MB"),
        result("cache/second-time", second_times, first_times, unit="s"),
    ]


MEASURES = (
    *(
        Measure(
            (f"cache/{name}", f"cache/{name}-vs-store", f"cache/memory-{name}", f"cache/disk-{name}"),
            partial(_measure, name=name),
        )
        for name in _LINES
    ),
    Measure(("cache/second", "cache/second-time"), _second),
)
