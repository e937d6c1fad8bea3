"""Connections that ask for nothing, for too long, or with too many words; meanwhile the others are served."""

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from tests.support.front import PACKAGES, Front
from tests.support.servers import FROM_CHECKOUT, Server, nixfront
from tests.support.wait import PATIENCE, until

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: slow\r\nX: " + b"x" * 1000
Start = Callable[..., AbstractAsyncContextManager[Front]]


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection is closed."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
    return b""


async def test_a_megabyte_of_headers_is_431_as_the_stock_registry_says(
    start: Start, registry: Server
) -> None:
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(1100))
    told = []
    async with start(registry.url) as front:
        for url in (registry.url, front.url):
            async with connection(url) as (reader, writer):
                writer.write(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
                told.append(await answer(reader))

    assert told[0] == told[1]
    assert told[0].startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("before", [b"", b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["first", "second"])
async def test_headers_without_end_are_cut_off_and_not_gathered(
    start: Start, registry: Server, before: bytes
) -> None:
    async with (
        start(registry.url, http={"head_bytes": 100_000}) as front,
        connection(front.url) as (reader, writer),
    ):
        writer.write(before + b"GET /v2/ HTTP/1.1\r\nHost: a\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50_000_000 and not reader.at_eof():
                writer.write(b"X: " + b"x" * 1000 + b"\r\n")
                sent += 1000
                if sent % 50_000 == 0:
                    await writer.drain()
                    await asyncio.sleep(0)
        told = await answer(reader)

    assert sent < 50_000_000
    assert b"HTTP/1.1 431 " in told or told == b""


async def test_who_sends_a_byte_now_and_then_is_cut_off_and_nobody_waits(
    start: Start, registry: Server
) -> None:
    async with (
        start(registry.url, http={"head_seconds": 1}) as front,
        connection(front.url) as (reader, writer),
    ):
        began = time.monotonic()
        sent = 0

        async def drip() -> None:
            nonlocal sent
            with contextlib.suppress(ConnectionError):
                for byte in HEAD:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    sent += 1
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert (await front.get("/v2/"))[0] == 200
        assert await answer(reader) == b""
        assert time.monotonic() - began > 0.5, "it had some of its second"
        assert sent < len(HEAD) / 2, "each byte is no new second"
        dripping.cancel()


async def test_a_slow_body_and_a_slow_reader_have_their_time(start: Start, registry: Server) -> None:
    async with start(registry.url, http={"head_seconds": 0.5}) as front, aiohttp.ClientSession() as session:

        async def body() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"x"
                await asyncio.sleep(0.3)

        async with session.post(f"{front.url}/v2/a/blobs/uploads/") as begun:
            location = begun.headers["Location"]
        url = location if location.startswith("http") else front.url + location
        async with session.patch(url, data=body()) as taken:
            assert taken.status == 202
            assert taken.headers["Range"] == "0-4"
        async with session.get(f"{front.url}/v2/slow/manifests/latest") as built:
            assert built.status == 200, "a build takes longer than a head may"


async def test_an_idle_connection_may_ask_again(start: Start, registry: Server) -> None:
    async with (
        start(registry.url, http={"head_seconds": 0.3}) as front,
        connection(front.url) as (reader, writer),
    ):
        for _ in range(2):
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            while await reader.readline() != b"\r\n":
                pass
            assert await reader.readexactly(2) == b"{}"
            await asyncio.sleep(0.8)


async def test_one_connection_too_many_is_told_so(start: Start, registry: Server) -> None:
    limits = {"connections": 2, "connections_of_one": 2}
    async with start(registry.url, http=limits) as front, contextlib.AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connection(front.url)) for _ in range(2)]
        for _, busy in held:  # a request whose body is to come
            busy.write(b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        await asyncio.sleep(0.5)
        async with connection(front.url) as (reader, writer):
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await answer(reader)).startswith(b"HTTP/1.1 503 ")
        held[0][1].close()

        async def there_is_room() -> bool:
            return (await front.get("/v2/"))[0] == 200

        await until(there_is_room)


@pytest.mark.parametrize(
    "limits",
    [{"connections": 40}, {"connections": 160, "connections_of_one": 40}],
    ids=["of all", "of one address"],
)
async def test_silent_connections_shut_nobody_out(
    start: Start, registry: Server, limits: dict[str, int]
) -> None:
    """40 connections that were answered once and stay silent; the oldest goes for each that comes."""
    limits = {"connections_of_one": 40, **limits}
    async with start(registry.url, http=limits) as front, contextlib.AsyncExitStack() as stack:
        silent = []
        for _ in range(40):
            reader, writer = await stack.enter_async_context(connection(front.url))
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            silent.append(reader)
        for _ in range(3):
            assert (await front.get("/v2/"))[0] == 200
            await asyncio.sleep(0.1)
        assert await answer(silent[0]), "its answer and then the end"
        assert not silent[-1].at_eof(), "it was silent for a shorter time"


async def test_an_idle_connection_ends_after_its_time(start: Start, registry: Server) -> None:
    async with (
        start(registry.url, http={"idle_seconds": 0.5}) as front,
        connection(front.url) as (reader, writer),
    ):
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await answer(reader)).endswith(b"{}")


async def test_two_thousand_connections(tmp_path: Path, registry: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = {
        "registry": {"url": registry.url},
        "nix": {"store": str(tmp_path / "store")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "http": {"head_seconds": 600},
    }
    try:
        async with (
            nixfront(tmp_path, settings=settings, command=FROM_CHECKOUT) as server,
            contextlib.AsyncExitStack() as stack,
            aiohttp.ClientSession() as session,
        ):
            path = f"{server.url}/v2/hello/manifests/latest"
            async with session.get(path) as first:
                assert first.status == 200
            readers = []
            for _ in range(2000):
                reader, writer = await stack.enter_async_context(connection(server.url))
                writer.write(b"GET /v2/ HTTP/1.1\r\n")
                readers.append(reader)

            async with aiohttp.ClientSession() as fresh, fresh.get(path) as again:
                assert again.status == 200
            assert not any(reader.at_eof() for reader in readers), "nobody waited for the end of these"
            taken = await asyncio.to_thread(resident, server.process.pid)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert taken < 250 << 20


def resident(pid: int) -> int:
    """The bytes of memory that a process has."""
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) << 10
