"""What goes through nixfront, against the same from the registry itself in the same round, and against nginx.

nixfront runs as installed, with the settings that it has by default. Manifests: 16 connections that ask for one tag
again and again. Blobs: one of random bytes, read by one client and by eight at once. nginx is Debian's, configured as its
package has it (as many workers as processors, sendfile, an access log, `proxy_buffering` on) with the `location` that
the distribution project recommends before a registry.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy.core.model import DOCKER_MANIFEST
from tests.bench import load
from tests.bench.bench import Bench
from tests.bench.load import Served
from tests.bench.result import Measure, Result, result
from tests.support import handmade
from tests.support.processes import free_port, serving, write
from tests.support.servers import Server, answers, nixfront

_LAYERS = 30
_PIECE = 1 << 20
_NGINX = """
daemon off;
user root;
worker_processes auto;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 768; }}
http {{
  sendfile on;
  tcp_nopush on;
  access_log {folder}/access.log;
  gzip on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen {host};
    client_max_body_size 0;
    chunked_transfer_encoding on;
    location /v2/ {{
      proxy_pass http://{registry};
      proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_read_timeout 900;
    }}
  }}
}}
"""


@asynccontextmanager
async def _front(folder: Path, registry: Server, **settings: str) -> AsyncIterator[Server]:
    """nixfront before this registry; it makes nothing, so it needs no package set."""
    chosen = {
        "registry": {"url": registry.url, **settings},
        "packages": {"kind": "path", "path": "/nonexistent"},
    }
    async with nixfront(folder, settings=chosen) as server:
        yield server


@asynccontextmanager
async def _nginx(folder: Path, registry: Server) -> AsyncIterator[Server]:
    host = f"127.0.0.1:{free_port()}"
    text = _NGINX.format(folder=folder, host=host, registry=registry.host)
    file = await asyncio.to_thread(write, folder / "nginx.conf", text)
    argv = ("nginx", "-c", str(file))
    async with serving(argv, log=folder / "output", ready=answers(host)) as process:
        yield Server(host, process)


async def _manifests(bench: Bench) -> Sequence[Result]:
    seconds, count = (1.0, 2000) if bench.quick else (3.0, 5000)
    gets: list[tuple[Served, Served]] = []
    heads: list[tuple[Served, Served]] = []
    async with (
        bench.scratch() as folder,
        bench.registry(folder / "registry") as registry,
        _front(folder / "front", registry) as front,
    ):
        # As large as the manifest of an image of thirty layers is.
        tars = [handmade.tar(handmade.store_layers(b"%d" % number)[0]) for number in range(_LAYERS)]
        await handmade.push(registry.url, "tool", "latest", handmade.image(tars))
        urls = [f"{server.url}/v2/tool/manifests/latest" for server in (front, registry)]
        for _ in range(bench.rounds):
            through, direct = [await load.get(url, DOCKER_MANIFEST, folder, seconds=seconds) for url in urls]
            gets.append((through, direct))
            # As many more as are answered faster: each is measured for about as long.
            through = await load.head(urls[0], DOCKER_MANIFEST, folder, count=count * 8)
            direct = await load.head(urls[1], DOCKER_MANIFEST, folder, count=count)
            heads.append((through, direct))
    return [*_served("manifest/warm", gets), *_served("manifest/head", heads)]


def _served(name: str, rounds: Sequence[tuple[Served, Served]]) -> list[Result]:
    p50 = [[one.p50 for one in side] for side in zip(*rounds, strict=True)]
    rate = [[one.rate for one in side] for side in zip(*rounds, strict=True)]
    return [
        result(f"{name}-p50", p50[0], p50[1], unit="ms"),
        result(f"{name}-throughput", rate[0], rate[1], unit="requests/s"),
    ]


@dataclass(frozen=True, slots=True)
class _Ways:
    """Where a blob can be had: its URL at each server."""

    direct: str
    through: str
    nginx: str
    shared: str
    redirect: str


async def _blobs(bench: Bench) -> Sequence[Result]:
    size = (64 if bench.quick else 256) << 20
    one: dict[str, list[float]] = {name: [] for name in _Ways.__slots__}
    eight: dict[str, list[float]] = {name: [] for name in ("direct", "through", "nginx")}
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(bench.scratch())
        registry = await stack.enter_async_context(bench.registry(folder / "registry"))
        path = await _store(registry, size)
        fronts = [
            await stack.enter_async_context(_front(folder / name, registry, **settings))
            for name, settings in _settings(registry, folder).items()
        ]
        servers = [registry, fronts[0], await stack.enter_async_context(_nginx(folder / "nginx", registry))]
        ways = _Ways(*(server.url + path for server in (*servers, *fronts[1:])))
        await _verified(fronts[1], ways.shared, size)
        for _ in range(bench.rounds):
            for name, speeds in one.items():
                speeds.append(await load.read(getattr(ways, name), 1, size) / 1e9)
            for name, speeds in eight.items():
                speeds.append(await load.read(getattr(ways, name), 8, size) / 1e9)
    return [
        result("blob/1-stream", one["through"], one["direct"], unit="GB/s"),
        result("blob/8-streams", eight["through"], eight["direct"], unit="GB/s"),
        result("blob/1-stream-vs-nginx", one["through"], one["nginx"], unit="GB/s"),
        result("blob/8-streams-vs-nginx", eight["through"], eight["nginx"], unit="GB/s"),
        result("blob/shared-disk", one["shared"], one["direct"], unit="GB/s"),
        result("blob/redirect", one["redirect"], one["direct"], unit="GB/s"),
    ]


def _settings(registry: Server, folder: Path) -> Mapping[str, Mapping[str, str]]:
    """The settings of `registry` of each nixfront, by its folder."""
    return {
        "front": {},
        "shared": {"storage": str(folder / "registry" / "data")},
        "redirect": {"public_url": registry.url},
    }


async def _store(registry: Server, size: int) -> str:
    """The path of a blob of random bytes, once the registry has it."""
    pieces = [os.urandom(_PIECE) for _ in range(size // _PIECE)]
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async with aiohttp.ClientSession() as session:
        async with session.post(f"{registry.url}/v2/tool/blobs/uploads/") as begun:
            location = begun.headers["Location"]
        digest = f"sha256:{hashed.hexdigest()}"
        async with session.put(f"{location}&digest={digest}", data=body()) as stored:
            assert stored.status == 201, await stored.text()
    return f"/v2/tool/blobs/{digest}"


async def _verified(front: Server, url: str, size: int) -> None:
    """Read the blob until it comes from the disk."""
    gets = 'nixfront_registry_seconds_count{kind="blob",method="GET"}'
    async with aiohttp.ClientSession(front.url) as session, asyncio.timeout(120):
        before = None
        while True:
            await load.read(url, 1, size)
            async with session.get("/metrics") as answer:
                text = await answer.text()
            now = [line for line in text.splitlines() if line.startswith(gets)]
            if now == before:
                return
            before = now
            await asyncio.sleep(0.2)


MEASURES = (
    Measure(
        tuple(f"manifest/{kind}-{what}" for kind in ("warm", "head") for what in ("p50", "throughput")),
        _manifests,
    ),
    Measure(
        (
            "blob/1-stream",
            "blob/8-streams",
            "blob/1-stream-vs-nginx",
            "blob/8-streams-vs-nginx",
            "blob/shared-disk",
            "blob/redirect",
        ),
        _blobs,
    ),
)
