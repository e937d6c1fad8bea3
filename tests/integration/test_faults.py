"""The registry fails, for real, behind a shim; nothing is lost and no half-pushed tag is left."""

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy import settings
from proxy.core.errors import RegistryUnavailable, SettingsInvalid
from proxy.core.events import BuildStarted
from proxy.registry import embedded as registry_embedded
from proxy.registry.client import Registry
from proxy.registry.endpoint import Endpoint
from proxy.state import redis as state_redis
from proxy.tools.process import run
from proxy.web.blobs import splice
from proxy.wiring import server
from tests.support import handmade
from tests.support.front import PACKAGES, Front
from tests.support.processes import free_port, program
from tests.support.servers import Server, redis
from tests.support.shim import Cut, Delay, Held, Rule, Status, WrongDigest, shim
from tests.support.stored import stored_tags
from tests.support.streams import Stream
from tests.support.wait import Gate, until

pytestmark = pytest.mark.usefixtures("documents_are_valid")

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
    # From the third blob on every try fails; a new pull finds the registry well again.
    broken = Rule("PUT", r"/blobs/uploads/", Status(500), nth=3, times=ALWAYS)
    async with shim(registry.url, broken) as relay, start(relay.url, layers={"uploads": 1}) as front:
        status, _, _ = await front.get("/v2/hello/manifests/latest")
        left = await tags(registry, "hello")
        relay.heal()
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
    broken = Rule(method, r"/blobs/uploads/", Cut(10_000 if method == "PATCH" else 0))
    async with shim(registry.url, broken) as relay, start(relay.url) as front:
        image = await front.pull("noise")
        sent = relay.counts[method, "upload"]

    assert image.digest
    assert sent >= 2


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


@pytest.mark.parametrize("who", ["client", "registry"])
async def test_a_body_that_ends_too_early_is_a_line_in_the_log_and_no_error_of_ours(
    start: Start,
    registry: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    who: str,
) -> None:
    monkeypatch.setattr(splice, "possible", lambda _: False)
    async with shim(registry.url) as relay, start(relay.url, log={"requests": True}) as front:
        # More than the sockets between us hold.
        noise = random.Random(7).randbytes(20_000_000)
        made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers(noise)])
        await handmade.push(registry.url, "large", "v1", made)
        blob = max(made.layers, key=len)
        path = f"/v2/large/blobs/{handmade.digest_of(blob)}"
        if who == "registry":
            relay.break_by(Rule("GET", r"/blobs/sha256:", Cut(len(blob) // 2)))
            with pytest.raises(aiohttp.ClientPayloadError):
                await front.get(path)
        else:
            reader, writer = await asyncio.open_connection(*front.url.removeprefix("http://").split(":"))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await reader.readexactly(1000)
            writer.transport.abort()
        relay.heal()
        assert (await front.get(path))[0] == 200

    assert ("the registry broke off" in caplog.text) is (who == "registry")
    assert "Error handling request" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_layer_that_the_registry_lost_is_sent_again(start: Start, registry: Server) -> None:
    async with start(registry.url, answers={"seconds": 0}) as front, aiohttp.ClientSession() as session:
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
    async with server.serve(chosen, events.append) as url:
        front = Front(url, [], tmp_path / "nix-starts")
        first = await front.pull("hello")
        pid = await asyncio.to_thread(_registry_pid, tmp_path / "data")
        os.kill(pid, signal.SIGKILL)

        async def started_again() -> bool:
            return (await front.get("/v2/"))[0] == 200 and _registry_pid(tmp_path / "data") not in (0, pid)

        await until(started_again)
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
    uploads = Held()
    async with (
        shim(registry.url, Rule("PUT", r"/blobs/uploads/", uploads, times=2)) as relay,
        start(relay.url, layers={"uploads": 1}) as front,
    ):
        pull = asyncio.create_task(front.pull("beta"))
        await until(lambda: relay.held)
        on_it = {**os.environ, "NIX_REMOTE": str(tmp_path / "store")}
        (tmp_path / "unrooted").write_text("nobody needs this")
        added = await run(("nix-store", "--add", str(tmp_path / "unrooted")), env=on_it, deadline=60)
        unrooted = tmp_path / "store" / added.decode().strip().lstrip("/")
        assert await asyncio.to_thread(unrooted.exists)
        await run(("nix-store", "--gc"), env=on_it, deadline=60)
        uploads.go.set()
        image = await pull
        roots = await asyncio.to_thread(lambda: list((tmp_path / "data" / "gcroots").iterdir()))

    assert not await asyncio.to_thread(unrooted.exists), "it did collect"
    assert "bin/beta" in image.files
    assert roots == [], "and it is gone afterwards"


async def test_a_long_line_in_its_log_does_not_end_the_embedded_registry(tmp_path: Path) -> None:
    chosen = settings.load(
        None,
        {},
        http={"addr": "127.0.0.1:0"},
        data={"dir": str(tmp_path / "data")},
        packages={"kind": "path", "path": str(PACKAGES)},
    )
    long = dict.fromkeys(("User-Agent", "Referer", "X-Forwarded-For", "X-Real-Ip"), "\x80" * 4000)
    async with server.serve(chosen, lambda _: None) as url:
        front = Front(url, [], tmp_path / "nix-starts")
        pid = await asyncio.to_thread(_registry_pid, tmp_path / "data")
        for _ in range(3):
            await front.get(f"/v2/a/manifests/sha256:{'0' * 64}", headers=long)
        status, _, _ = await front.get("/v2/")

        assert status == 200
        assert await asyncio.to_thread(_registry_pid, tmp_path / "data") == pid


async def test_a_registry_program_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "programs" / "docker-registry"
    program.write_text("#!/bin/sh\necho no room on this host >&2; exit 1\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setattr(registry_embedded, "_START_SECONDS", 3.0)

    with pytest.raises(RegistryUnavailable, match="it said: no room on this host"):
        async with registry_embedded.run(tmp_path / "registry"):
            pass


async def test_an_upload_is_followed_on_the_registrys_own_host_only() -> None:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.method)
        return web.Response(status=202, headers={"Location": "http://127.0.0.1:1/v2/a/blobs/uploads/1"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def data() -> AsyncIterator[bytes]:
        yield b"x"

    try:
        async with Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}").opened() as opened:
            registry = Registry(opened)
            with pytest.raises(RegistryUnavailable, match="follows it on its own host only"):
                await registry.upload("a", Stream(data(), "sha256:x"))
    finally:
        await runner.cleanup()
    assert asked == ["POST"]


@pytest.mark.without_documents("it counts uploads")
async def test_a_passing_500_on_the_last_blob_is_not_noticed(start: Start, registry: Server) -> None:
    # cacert, common, hello and the root, then the config
    async with (
        shim(registry.url, Rule("PUT", r"/blobs/", Status(503), nth=5)) as relay,
        start(relay.url) as front,
    ):
        image = await front.pull("hello")
        puts = relay.counts["PUT", "upload"]

    assert image.digest
    assert puts == 6


async def test_a_store_path_that_cannot_be_read_is_not_the_registrys_fault(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    async with start(registry.url) as front:
        await front.pull("hello")
        (path,) = await asyncio.to_thread(lambda: [*(tmp_path / "store/nix/store").glob("*-common-1.0")])
        async with aiohttp.ClientSession() as session:
            for layer in (await front.pull("hello")).layers:
                await session.delete(f"{registry.url}/v2/hello/blobs/{layer.digest}")
        await asyncio.to_thread(shutil.rmtree, path / "lib")
        await asyncio.to_thread((path / "lib").symlink_to, "nothing")
        os.mkfifo(path / "pipe")
        status, _, body = await front.get("/v2/alpha/manifests/latest")

    assert status == 404
    assert b"is neither a file, a directory nor a symlink" in body


async def test_a_data_folder_serves_one_nixfront(start: Start, registry: Server) -> None:
    async with start(registry.url):
        with pytest.raises(SettingsInvalid, match="in use by another nixfront"):
            async with start(registry.url):
                pass


async def test_a_store_path_that_is_deleted_by_hand_is_told_with_its_cure(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    on_it = {**os.environ, "NIX_REMOTE": str(tmp_path / "store")}
    # All of alpha waits for the first upload; then what it still has to read is gone.
    uploads = Held()
    async with (
        shim(registry.url, Rule("POST", r"/blobs/uploads/", uploads, times=ALWAYS)) as relay,
        start(relay.url, layers={"uploads": 1, "packers": 1}) as front,
    ):
        pull = asyncio.create_task(front.get("/v2/alpha/manifests/latest"))
        await until(lambda: relay.held)
        for path in await asyncio.to_thread(lambda: [*(tmp_path / "store/nix/store").glob("*-alpha-1.0")]):
            await asyncio.to_thread(shutil.rmtree, path)
        uploads.go.set()
        status, _, body = await pull
        left = await stored_tags(registry.url)
        again, _, _ = await front.get("/v2/alpha/manifests/latest")
        await run(("nix-store", "--verify", "--check-contents", "--repair"), env=on_it, deadline=60)
        image = await front.pull("alpha")

    assert (status, again) == (503, 503)
    assert b"nix-store --verify --check-contents --repair" in body
    assert left == []
    assert "bin/alpha" in image.files


async def test_a_slow_registry_takes_longer_and_nothing_else(start: Start, registry: Server) -> None:
    slow = [
        Rule(method, r"/v2/hello/", Delay(0.3), times=ALWAYS) for method in ("HEAD", "POST", "PATCH", "PUT")
    ]
    async with shim(registry.url, *slow) as relay, start(relay.url) as front:
        image = await front.pull("hello")

    assert image.digest


@pytest.mark.parametrize("embedded", [False, True], ids=["stock", "embedded"])
@pytest.mark.without_documents("a collection of all that has no tag takes documents away")
async def test_the_stock_garbage_collection_while_images_are_there(
    start: Start, registry: Server, tmp_path: Path, embedded: bool
) -> None:
    """It takes away what no manifest names. What we remember of that is asked about, packed and sent anew."""
    async with AsyncExitStack() as stack:
        url, config = registry.url, registry.process.log.parent / "registry.yml"
        if embedded:
            url = await stack.enter_async_context(registry_embedded.run(tmp_path / "own"))
            config = tmp_path / "own" / "config.yml"
        front = await stack.enter_async_context(start(url, answers={"seconds": 0}))
        hello, alpha = await front.pull("hello"), await front.pull("alpha")
        async with (
            aiohttp.ClientSession() as session,
            session.delete(f"{url}/v2/alpha/manifests/{alpha.digest}") as deleted,
        ):
            assert deleted.status == 202
        collect = (
            program("docker-registry", "registry"),
            "garbage-collect",
            "--delete-untagged",
            str(config),
        )
        told = (await run(collect, deadline=60)).decode()
        kept = await stored_tags(url)
        assert await front.pull("hello") == hello
        assert await front.pull("alpha") == alpha, "the layer that was collected is there again"
        beta = await front.pull("beta")
        await stored_tags(url)

    assert "\nblob eligible for deletion: " in told
    assert {tag.repository for tag in kept} == {"hello"}
    assert beta.digest


async def test_a_push_that_breaks_off_half_way_leaves_nothing_in_the_way(
    start: Start, registry: Server
) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers(b"x" * 3_000_000)])

    async def half() -> AsyncIterator[bytes]:
        yield b"y" * 1_000_000
        raise ConnectionResetError

    async with start(registry.url) as front:
        async with aiohttp.ClientSession(front.url) as session:
            async with session.post("/v2/pushed/blobs/uploads/") as begun:
                location = begun.headers["Location"]
            with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
                await session.patch(location, data=half())
        digest = await handmade.push(front.url, "pushed", "v1", made)
        status, headers, _ = await front.get("/v2/pushed/manifests/v1", headers={"Accept": made.media_type})

    assert (status, headers["Docker-Content-Digest"]) == (200, digest)


async def test_redis_gone_in_mid_build_costs_nothing_but_time(
    start: Start, registry: Server, tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    state = {"url": f"redis://127.0.0.1:{port}/0", "lease_seconds": 1}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(redis(tmp_path / "redis", port))
        front = await stack.enter_async_context(start(registry.url, state=state, answers={"seconds": 0}))
        building = asyncio.create_task(front.get("/v2/gated/manifests/latest"))
        await until(lambda: front.told(BuildStarted))
        os.kill(first.process.pid, signal.SIGKILL)
        gate.open()
        assert (await building)[0] == 200
        without = await front.pull("hello")

        await stack.enter_async_context(redis(tmp_path / "redis", port))
        await until(lambda: "state back" in caplog.text)
        async with state_redis.open_state(state["url"]) as known:  # type: ignore[arg-type]
            remembered = await known.recall_tag("hello", "latest")

    assert "state gone, going on without it" in caplog.text
    assert remembered is not None
    assert remembered.digest == without.digest, "what could not be written then is written now"
