"""Large bodies pass as they come: nothing piles up in nixfront, and what breaks off is seen to be broken."""

import asyncio
import hashlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.front import front
from tests.support.processes import Running
from tests.support.servers import FROM_CHECKOUT, Server, nixfront, stock_registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 300 << 20
PIECE = bytes(range(256)) * 4096  # 1 MiB
MOST_GROWTH = 24 << 20  # bytes: the buffers of both sides, and what the allocator keeps


@pytest.fixture
def nix_count() -> None:
    """Nothing is built here."""


def process(folder: Path, registry: str) -> AbstractAsyncContextManager[Server]:
    """nixfront in a process of its own: its memory is to be measured."""
    settings = {"registry": {"url": registry}, "packages": {"kind": "path", "path": "/nonexistent"}}
    nothing = "nothing is built, and what is here is no registry"
    return nixfront(folder, settings=settings, command=FROM_CHECKOUT, without_documents=nothing)


def blob_digest() -> str:
    hashed = hashlib.sha256()
    for _ in range(SIZE // len(PIECE)):
        hashed.update(PIECE)
    return f"sha256:{hashed.hexdigest()}"


def memory(server: Running) -> int:
    """The bytes of memory that a process has for itself."""
    for line in Path(f"/proc/{server.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon in /proc")


class Watch:
    """How much a process grew at most since this was made."""

    def __init__(self, server: Server) -> None:
        self._process = server.process
        self._before = memory(server.process)
        self.growth = 0

    def look(self) -> None:
        self.growth = max(self.growth, memory(self._process) - self._before)


async def connect(url: str) -> socket.socket:
    """A connection that holds little by itself."""
    host, _, port = url.removeprefix("http://").partition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    return client


async def begin_upload(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v2/large/blobs/uploads/") as begun:
        return begun.headers["Location"].removeprefix(url)


async def push(front: Server, digest: str, watch: Watch) -> str:
    """The status line that answers a push in one go; the first pieces come slowly."""
    loop = asyncio.get_running_loop()
    location = await begin_upload(front.url)
    client = await connect(front.url)
    head = f"PUT {location}&digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"
    await loop.sock_sendall(client, head.encode())
    for number in range(SIZE // len(PIECE)):
        await loop.sock_sendall(client, PIECE)
        if number < 20:
            await asyncio.sleep(0.02)
        if number % 10 == 0:
            watch.look()
    answer = await loop.sock_recv(client, 1 << 12)
    client.close()
    return answer.partition(b"\r\n")[0].decode()


@dataclass(frozen=True, slots=True)
class Pushed:
    """A registry, nixfront before it, and the blob that was pushed through it."""

    registry: Server
    front: Server
    digest: str
    status: str
    growth: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pushed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pushed]:
    folder = tmp_path_factory.mktemp("streaming")
    async with stock_registry(folder, quiet=True) as registry, process(folder, registry.url) as front:
        digest, watch = blob_digest(), Watch(front)
        status = await push(front, digest, watch)
        yield Pushed(registry, front, digest, status, watch.growth)


async def test_a_large_push_holds_no_memory(pushed: Pushed) -> None:
    assert pushed.status == "HTTP/1.1 201 Created"
    assert pushed.growth < MOST_GROWTH


async def test_a_slow_pull_holds_no_memory(pushed: Pushed) -> None:
    loop, watch = asyncio.get_running_loop(), Watch(pushed.front)
    client = await connect(pushed.front.url)
    asked = f"GET /v2/large/blobs/{pushed.digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    await loop.sock_sendall(client, asked.encode())
    hashed, received, head = hashlib.sha256(), 0, b""
    while data := await loop.sock_recv(client, 1 << 18):
        if not head:
            head, _, data = data.partition(b"\r\n\r\n")
        hashed.update(data)
        received += len(data)
        if received < 2 << 20:  # slow at first: now the rest of the blob could pile up
            await asyncio.sleep(0.1)
            watch.look()
    watch.look()
    client.close()

    assert head.startswith(b"HTTP/1.1 200 OK")
    assert (received, f"sha256:{hashed.hexdigest()}") == (SIZE, pushed.digest)
    assert watch.growth < MOST_GROWTH


async def test_a_registry_that_takes_slowly_makes_the_client_wait(tmp_path: Path) -> None:
    taken, measured = 0, False

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /v2/"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        while not measured and (data := await reader.read(1 << 14)):
            taken += len(data)
            await asyncio.sleep(0.05)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=1 << 14)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, process(tmp_path, url) as front:
        watch = Watch(front)
        client = await connect(front.url)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(
            client,
            f"PATCH /v2/large/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n".encode(),
        )
        sent = 0
        while sent < SIZE:
            try:  # of what the registry takes in three seconds
                await asyncio.wait_for(loop.sock_sendall(client, PIECE), 3)
            except TimeoutError:
                if taken:
                    break
            sent += len(PIECE)
            watch.look()
        watch.look()
        measured = True
        client.close()

    assert 0 < taken < SIZE
    # Two sockets send, at most 4 MiB each, and two receive, at most 32 MiB each, with the limits that Linux sets.
    assert sent < 100 << 20, "the rest waits at the client: only the sockets in between hold some"
    assert watch.growth < MOST_GROWTH


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_body_without_a_length_that_breaks_off_is_not_a_short_success(
    tmp_path: Path, version: str
) -> None:
    """In HTTP/1.0 such a body ends with its connection, which therefore has to be reset."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        ends = b"0\r\n\r\n" if head.startswith(b"GET /v2/ ") else b""
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstart\r\n" + ends)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, front(tmp_path, tmp_path / "nix-starts", url) as behind:
        reader, writer = await asyncio.open_connection(*behind.url.removeprefix("http://").split(":"))
        writer.write(f"GET /v2/x/blobs/y HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        try:
            received = await reader.read()
            ended = received.endswith(b"0\r\n\r\n") or version == "1.0"
        except ConnectionResetError:
            ended = False
        writer.close()

    assert not ended


async def test_a_registry_that_dies_in_mid_blob_breaks_the_clients_connection(pushed: Pushed) -> None:
    """The last of these tests: there is no registry after it."""
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 16) as session,
        session.get(f"{pushed.front.url}/v2/large/blobs/{pushed.digest}") as pulled,
    ):
        assert pulled.status == 200
        assert len(await pulled.content.readexactly(1 << 20)) < SIZE
        os.kill(pushed.registry.process.pid, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientPayloadError):
            await pulled.content.read()
        async with session.get(f"{pushed.front.url}/v2/") as after:
            assert after.status == 503
