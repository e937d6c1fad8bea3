"""The registry fails, for real, behind a shim; nothing is lost and no half-pushed tag is left."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from proxy import app, settings
from proxy.errors import SettingsInvalid
from proxy.process import run
from tests.support.front import PACKAGES, Front
from tests.support.servers import Server
from tests.support.shim import Cut, Delay, Rule, Status, WrongDigest, shim

Start = Callable[..., AbstractAsyncContextManager[Front]]
ALWAYS = 1000


async def tags(registry: Server, repository: str) -> list[str]:
    """What the registry itself says, asked directly."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{registry.url}/v2/{repository}/tags/list") as answer,
    ):
        return (await answer.json()).get("tags") or [] if answer.status == 200 else []


async def test_a_500_on_the_third_blob_leaves_no_tag_and_the_next_pull_succeeds(
    start: Start, registry: Server
) -> None:
    # Every try of the third blob's upload fails; a new pull finds the registry well again.
    broken = Rule("PATCH", r"/blobs/uploads/", Status(500), nth=3, times=3)
    async with shim(registry.url, broken) as relay, start(relay.url, layers={"concurrency": 1}) as front:
        status, _, _ = await front.get("/v2/hello/manifests/latest")
        left = await tags(registry, "hello")
        image = await front.pull("hello")

    assert status == 503
    assert left == []
    assert image.digest


async def test_a_passing_500_is_not_noticed(start: Start, registry: Server) -> None:
    rules = [Rule(method, r"/blobs/", Status(503), nth=2) for method in ("POST", "PATCH", "PUT", "HEAD")]
    async with shim(registry.url, *rules) as relay, start(relay.url) as front:
        image = await front.pull("hello")

    assert image.digest


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_connection_that_breaks_in_mid_upload(start: Start, registry: Server, method: str) -> None:
    broken = Rule(method, r"/blobs/uploads/", Cut(10_000 if method == "PATCH" else 0), nth=2)
    async with shim(registry.url, broken) as relay, start(relay.url) as front:
        image = await front.pull("large")

    assert image.digest


async def test_another_digest_than_was_sent_makes_no_tag(start: Start, registry: Server) -> None:
    wrong = Rule("PUT", r"/blobs/uploads/", WrongDigest(), times=ALWAYS)
    async with shim(registry.url, wrong) as relay, start(relay.url) as front:
        status, headers, _ = await front.get("/v2/hello/manifests/latest")

    assert status == 503
    assert headers["Content-Type"] == "application/json"
    assert await tags(registry, "hello") == []


async def test_a_registry_that_is_down_is_a_503_with_the_reason(start: Start) -> None:
    async with (
        start("http://127.0.0.1:1") as front,
        aiohttp.ClientSession() as session,
        session.get(f"{front.url}/v2/") as answer,
    ):
        assert answer.status == 503
        assert "does not answer" in (answer.reason or "")


async def test_a_blob_that_breaks_off_breaks_the_clients_connection(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        image = await front.pull("large")
    blob = max(image.layers, key=lambda layer: layer.size)
    path = f"/v2/large/blobs/{blob.digest}"

    cut = Rule("GET", r"/blobs/sha256:", Cut(blob.size // 2))
    async with shim(registry.url, cut) as relay, start(relay.url) as front:
        with pytest.raises(aiohttp.ClientPayloadError):
            await front.get(path)
        status, _, body = await front.get(path)

    assert (status, len(body)) == (200, blob.size)


async def test_a_layer_that_the_registry_lost_is_sent_again(start: Start, registry: Server) -> None:
    async with start(registry.url) as front, aiohttp.ClientSession() as session:
        first = await front.pull("alpha")
        async with session.delete(f"{registry.url}/v2/alpha/manifests/{first.digest}") as deleted:
            assert deleted.status == 202
        for layer in first.layers:
            async with session.delete(f"{registry.url}/v2/alpha/blobs/{layer.digest}") as gone:
                assert gone.status == 202
        second = await front.pull("alpha")

    assert second.digest == first.digest


async def test_the_embedded_registry_is_started_again(tmp_path: Path) -> None:
    chosen = settings.load(
        None,
        {},
        http={"addr": "127.0.0.1:0"},
        data={"dir": str(tmp_path / "data")},
        nix={"store": str(tmp_path / "store")},
        packages={"kind": "path", "path": str(PACKAGES)},
    )
    events: list[object] = []
    async with app.serve(chosen, events.append) as url:
        front = Front(url, [], tmp_path / "nix-starts")
        first = await front.pull("hello")
        pid = await asyncio.to_thread(_registry_pid, tmp_path / "data")
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while (await front.get("/v2/"))[0] != 200 or await asyncio.to_thread(
                _registry_pid, tmp_path / "data"
            ) in (0, pid):
                await asyncio.sleep(0.1)
        second = await front.pull("hello")

    assert second.digest == first.digest
    assert await asyncio.to_thread(_registry_pid, tmp_path / "data") == 0, "it ends with nixfront"


def _registry_pid(data: Path) -> int:
    """The process that serves the registry of this data folder, 0 if there is none."""
    needle = str(data / "registry" / "config.yml").encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if needle in words and b"serve" in words and b"registry" in words[0]:
            return int(process.name)
    return 0


async def test_a_garbage_collection_in_mid_build_takes_nothing_away(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    # The first layers are on their way, the others wait: all that needs them is our root.
    slow = Rule("PATCH", r"/blobs/uploads/", Delay(1.5), times=2)
    async with (
        shim(registry.url, slow) as relay,
        start(relay.url, layers={"concurrency": 1}) as front,
    ):
        pull = asyncio.create_task(front.pull("beta"))
        async with asyncio.timeout(30):
            while relay.counts["PATCH", "upload"] == 0:
                await asyncio.sleep(0.02)
        collected = await run(
            ("nix-store", "--gc"), env={**os.environ, "NIX_REMOTE": str(tmp_path / "store")}, deadline=60
        )
        image = await pull
        roots = await asyncio.to_thread(lambda: list((tmp_path / "data" / "gcroots").iterdir()))

    assert b"deleted" in collected or collected == b""
    assert "bin/beta" in image.files
    assert roots == [], "and it is gone afterwards"


async def test_a_data_folder_serves_one_nixfront(start: Start, registry: Server) -> None:
    async with start(registry.url):
        with pytest.raises(SettingsInvalid, match="in use by another nixfront"):
            async with start(registry.url):
                pass
