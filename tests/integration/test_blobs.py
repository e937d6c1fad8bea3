"""Blobs on their shorter ways: the same answers as on the long one, and the registry decides who gets them."""

import asyncio
import base64
import errno
import hashlib
import io
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from proxy import settings
from proxy.web.blobs.shared_disk import SharedDisk
from proxy.wiring import server as wiring_server
from tests.integration.test_answers import HTPASSWD
from tests.integration.test_passthrough import raw
from tests.support.front import PACKAGES, Front
from tests.support.servers import Server, stock_registry
from tests.support.shim import Cut, Rule, Shim, shim
from tests.support.wait import until

Start = Callable[..., AbstractAsyncContextManager[Front]]
Answer = tuple[int, dict[str, str], bytes]
REPOSITORY = "team/tool"
ALWAYS = 1000
BASIC = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}
WRONG = {"Authorization": "Basic " + base64.b64encode(b"user:wrong").decode()}


def bytes_of(size: int) -> bytes:
    """The same for each size, and no two parts alike."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(size // 32 + 1))[:size]


async def store(url: str, data: bytes, repository: str = REPOSITORY, **headers: str) -> str:
    """The path of a blob, once the registry has it."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{url}/v2/{repository}/blobs/uploads/") as begun:
            location = begun.headers["Location"]
        joined = "&" if "?" in location else "?"
        async with session.put(
            URL(f"{location}{joined}digest={digest}", encoded=True), data=io.BytesIO(data)
        ) as stored:
            assert stored.status == 201
    return f"/v2/{repository}/blobs/{digest}"


def data_file(folder: Path, path: str) -> Path:
    """Where a registry that stores in this folder has the bytes of a blob."""
    digest = path.rpartition(":")[2]
    return folder / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"


async def ask(url: str, path: str, method: str = "GET", **options: Any) -> Answer:
    """The answer without what is each one's own."""
    status, headers, body = await Front(url, [], Path()).get(path, method, **options)
    own = ("Date", "X-Request-ID", "Server")
    return status, {name: value for name, value in headers.items() if name not in own}, body


@pytest.fixture
def descriptors() -> Callable[[], int]:
    """How many descriptors this process has open."""
    return lambda: len([*Path("/proc/self/fd").iterdir()])


# --- through the kernel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 17) - 1, 1 << 17, 5_000_001])
async def test_a_blob_of_any_size_comes_as_it_is(start: Start, registry: Server, size: int) -> None:
    data = bytes_of(size)
    path = await store(registry.url, data)
    async with start(registry.url) as front:
        through = [await ask(front.url, path) for _ in range(2)]
        straight = await ask(registry.url, path)

    assert through == [straight] * 2
    assert straight[2] == data


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Range": "bytes=1000000-"}, id="the rest"),
        pytest.param({"Range": "bytes=10-19"}, id="a part"),
        pytest.param({"If-None-Match": '"ETAG"'}, id="known"),
        pytest.param({"Accept-Encoding": "gzip", "Connection": "close"}, id="as docker asks"),
    ],
)
@pytest.mark.parametrize("shared", [False, True], ids=["plain", "shared disk"])
async def test_parts_and_conditions_are_answered_as_without_us(
    start: Start, registry: Server, tmp_path: Path, shared: bool, headers: Mapping[str, str]
) -> None:
    path = await store(registry.url, bytes_of(3_000_000))
    headers = {name: value.replace("ETAG", path.rpartition("/")[2]) for name, value in headers.items()}
    folder = tmp_path / "registry/data"
    storage = {"storage": str(folder)} if shared else {}
    async with shim(registry.url) as relay, start(relay.url, registry=storage) as front:
        if shared:
            await Shared(front, relay, folder).warm(path)
        else:
            await ask(front.url, path)
        through = await ask(front.url, path, headers=headers)
        head = await ask(front.url, path, "HEAD", headers=headers)
        straight = await ask(registry.url, path, headers=headers)
        straight_head = await ask(registry.url, path, "HEAD", headers=headers)

    assert through == straight
    assert head == straight_head


async def test_a_part_behind_the_end(start: Start, registry: Server) -> None:
    """The stock registry announces the whole blob, sends a word of explanation, and hangs up."""
    path = await store(registry.url, bytes_of(3_000_000))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=9000000-\r\nConnection: close\r\n\r\n"
    async with start(registry.url) as front:
        through, straight = await raw(front.url, request), await raw(registry.url, request)

    assert through.startswith(b"HTTP/1.1 416 ")
    assert through.partition(b"\r\n")[0] == straight.partition(b"\r\n")[0]
    assert through.partition(b"\r\n\r\n")[2] == straight.partition(b"\r\n\r\n")[2]


async def test_what_is_not_there_is_the_registrys_own_404(start: Start, registry: Server) -> None:
    await store(registry.url, b"x")
    paths = [f"/v2/{REPOSITORY}/blobs/sha256:{'0' * 64}", f"/v2/nobody/blobs/sha256:{'0' * 64}"]
    async with start(registry.url) as front:
        for path in paths:
            through, straight = await ask(front.url, path), await ask(registry.url, path)
            assert through == straight
            assert through[0] == 404


async def test_the_clients_connection_goes_on(start: Start, registry: Server) -> None:
    """What comes behind a large body is found where it should be."""
    data = bytes_of(3_000_000)
    path = await store(registry.url, data)
    asked = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
    last = "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with start(registry.url) as front:
        answered = await raw(front.url, asked + asked + last)

    pieces = answered.split(data)
    assert [piece.startswith(b"HTTP/1.1 200 OK\r\n") for piece in pieces] == [True] * 3
    assert pieces[2].endswith(b"{}")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_of_any_version(start: Start, registry: Server, version: str) -> None:
    data = bytes_of(300_000)
    path = await store(registry.url, data)
    async with start(registry.url) as front:
        answered = await raw(front.url, f"GET {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert answered.startswith(f"HTTP/{version} 200 OK\r\n".encode())
    assert answered.endswith(b"\r\n\r\n" + data)


@pytest.mark.parametrize("after", [0, 1000, 2_000_000])
async def test_a_registry_that_breaks_off_breaks_the_clients_connection(
    start: Start, registry: Server, after: int
) -> None:
    data = bytes_of(3_000_000)
    path = await store(registry.url, data)
    cut = Rule("GET", "/blobs/", Cut(after))
    async with shim(registry.url, cut) as relay, start(relay.url) as front:
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(front.url, path)
        status, _, body = await ask(front.url, path)

    assert (status, body) == (200, data)


async def test_a_registry_that_was_started_again(start: Start, tmp_path: Path) -> None:
    """The connections to the one before are closed, and nobody notices."""
    data, folder = bytes_of(300_000), tmp_path / "again"
    folder.mkdir()
    async with stock_registry(folder) as first:
        path = await store(first.url, data)
        port = int(first.host.rpartition(":")[2])
        front_ = start(first.url)
        front = await front_.__aenter__()
        before = await ask(front.url, path)
        os.kill(first.process.pid, signal.SIGTERM)

        async def away() -> bool:
            return (await ask(front.url, path))[0] == 503

        await until(away)
    async with stock_registry(folder, port=port):
        after = await ask(front.url, path)
    await front_.__aexit__(None, None, None)

    assert before == after
    assert after[2] == data


async def test_a_client_that_hangs_up_leaves_nothing_behind(
    start: Start, registry: Server, descriptors: Callable[[], int]
) -> None:
    path = await store(registry.url, bytes_of(30_000_000))
    async with start(registry.url) as front:
        await ask(front.url, path)
        before = descriptors()
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*front.url.removeprefix("http://").split(":"))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readexactly(100_000)
            writer.transport.abort()
        await until(lambda: descriptors() <= before)
        assert (await ask(front.url, path))[0] == 200


async def test_others_are_served_while_a_blob_goes_to_a_slow_client(start: Start, registry: Server) -> None:
    path = await store(registry.url, bytes_of(30_000_000))
    async with start(registry.url) as front:
        reader, writer = await asyncio.open_connection(*front.url.removeprefix("http://").split(":"))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = len(await reader.readexactly(1000))
        assert (await ask(front.url, "/v2/"))[0] == 200, "it would wait for ever, as nobody reads the blob"
        received += len(await reader.read())
        writer.close()

    assert received > 30_000_000


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, None])
async def test_a_system_that_cannot_move_it_has_it_copied(
    start: Start, registry: Server, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    data = bytes_of(3_000_000)
    path = await store(registry.url, data)

    def refuse(*_: object, **__: object) -> int:
        assert error is not None
        raise OSError(error, os.strerror(error))

    if error is None:
        monkeypatch.delattr(os, "splice")
    else:
        monkeypatch.setattr(os, "splice", refuse)
    async with start(registry.url) as front:
        status, _, body = await ask(front.url, path)

    assert (status, body) == (200, data)


async def test_a_body_whose_length_the_registry_does_not_say(start: Start) -> None:
    data = bytes_of(1_000_000)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(data), 100_000):
            writer.write(b"%x\r\n%b\r\n" % (100_000, data[at : at + 100_000]))
        writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, start(url) as front:
        status, headers, body = await ask(front.url, f"/v2/a/blobs/sha256:{'0' * 64}")

    assert (status, body) == (200, data)
    assert headers["Transfer-Encoding"] == "chunked"


# --- from a disk that is shared ---------------------------------------------------------------------------


class Shared:
    """A registry behind a relay that counts, its storage, and nixfront that shares it."""

    def __init__(self, front: Front, relay: Shim, storage: Path) -> None:
        self.url, self.relay, self.storage = front.url, relay, storage

    def gets(self) -> int:
        return self.relay.counts["GET", "blob"]

    async def warm(self, path: str, **options: Any) -> None:
        """Pull until the file is known: then the registry gets no GET."""

        async def comes_from_the_disk() -> bool:
            before = self.gets()
            assert (await ask(self.url, path, **options))[0] == 200
            return self.gets() == before

        await until(comes_from_the_disk)


@pytest_asyncio.fixture
async def shared(start: Start, registry: Server, tmp_path: Path) -> AsyncIterator[Shared]:
    storage = tmp_path / "registry" / "data"
    async with (
        shim(registry.url) as relay,
        start(relay.url, registry={"storage": str(storage)}) as front,
    ):
        yield Shared(front, relay, storage)


@pytest.mark.parametrize("size", [1, 5_000_001])
async def test_a_verified_blob_comes_from_the_disk(shared: Shared, registry: Server, size: int) -> None:
    data = bytes_of(size)
    path = await store(registry.url, data)
    first = await ask(shared.url, path)
    asked = shared.gets()
    await shared.warm(path)
    gets, heads = shared.gets(), shared.relay.counts["HEAD", "blob"]
    later = [await ask(shared.url, path) for _ in range(3)]
    straight = await ask(registry.url, path)

    assert asked == 1, "it was not verified yet"
    assert first == straight
    assert later == [straight] * 3
    assert straight[2] == data
    assert shared.gets() == gets, "no body came from the registry"
    assert shared.relay.counts["HEAD", "blob"] == heads + 3, "which was asked whether the client may have it"


async def test_a_damaged_file_is_never_sent_from_the_disk(
    shared: Shared, registry: Server, caplog: pytest.LogCaptureFixture
) -> None:
    path = await store(registry.url, bytes_of(300_000))
    file = data_file(shared.storage, path)
    damaged = bytearray(file.read_bytes())
    damaged[1000] ^= 1
    file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "proxy.web.blobs.shared_disk"):
        await ask(shared.url, path)
        await until(lambda: "is damaged" in caplog.text)
        for _ in range(3):
            await ask(shared.url, path)

    assert shared.gets() == 4
    assert str(file) in caplog.text
    assert caplog.text.count("is damaged") == 1, "it is hashed once"


async def test_a_file_that_is_written_anew_is_verified_anew(shared: Shared, registry: Server) -> None:
    data = bytes_of(300_000)
    path = await store(registry.url, data)
    await shared.warm(path)
    file = data_file(shared.storage, path)
    other = file.with_name("other")
    other.write_bytes(b"X" * len(data))
    other.replace(file)
    gets = shared.gets()
    for _ in range(3):
        await ask(shared.url, path)
        await asyncio.sleep(0.1)

    assert shared.gets() == gets + 3


async def test_a_blob_of_another_repository_is_not_there(shared: Shared, registry: Server) -> None:
    """Its bytes are in the same folder; what the registry says of them is by repository."""
    path = await store(registry.url, bytes_of(300_000))
    await shared.warm(path)
    elsewhere = path.replace(REPOSITORY, "team/other")
    through, straight = await ask(shared.url, elsewhere), await ask(registry.url, elsewhere)

    assert through == straight
    assert through[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../secret/blobs/sha256:{digest}",
        "/v2/team/tool/../tool/blobs/sha256:{digest}",
        "/v2/team%2ftool/blobs/sha256:{digest}",
        "/v2//team/tool/blobs/sha256:{digest}",
        "/v2/team/tool/blobs/sha256:..%2f..%2f{digest}",
        "/v2/team/tool/blobs/sha256:{digest}/../../../../../../secret",
        "/v2/team/tool/blobs/SHA256:{digest}",
    ],
)
async def test_a_path_that_plays_tricks_is_the_registrys_to_answer(
    shared: Shared, registry: Server, path: str
) -> None:
    blob = await store(registry.url, bytes_of(300_000))
    await shared.warm(blob)
    heads = shared.relay.counts["HEAD", "blob"]
    request = (
        f"GET {path.format(digest=blob.rpartition(':')[2])} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    through, straight = await raw(shared.url, request), await raw(registry.url, request)

    assert through.split(b"\r\n")[0] == straight.split(b"\r\n")[0]
    assert shared.relay.counts["HEAD", "blob"] == heads, "nobody looked at the disk"


async def test_who_may_have_it_is_asked_each_time(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD, encoding="ascii")
    guarded = {"auth": {"htpasswd": {"realm": "ours", "path": str(folder / "htpasswd")}}}
    data = bytes_of(300_000)
    async with (
        stock_registry(folder, sections=guarded) as registry,
        shim(registry.url) as relay,
        start(relay.url, registry={"storage": str(folder / "data")}) as front,
    ):
        path = await store(registry.url, data, **BASIC)
        shared = Shared(front, relay, folder / "data")
        await shared.warm(path, headers=BASIC)
        gets = shared.gets()
        allowed = await ask(front.url, path, headers=BASIC)
        assert (allowed[0], allowed[2], shared.gets()) == (200, data, gets)
        for headers in ({}, WRONG):
            refused = await ask(front.url, path, headers=headers)
            assert refused == await ask(registry.url, path, headers=headers)
            assert refused[0] == 401
            assert b"UNAUTHORIZED" in refused[2]


async def test_a_folder_that_is_not_the_registrys(start: Start, registry: Server, tmp_path: Path) -> None:
    data = bytes_of(300_000)
    path = await store(registry.url, data)
    async with start(registry.url, registry={"storage": str(tmp_path / "nowhere")}) as front:
        answers = [await ask(front.url, path) for _ in range(2)]

    assert [(status, body) for status, _, body in answers] == [(200, data)] * 2


async def test_a_client_that_hangs_up_closes_the_file(
    shared: Shared, registry: Server, descriptors: Callable[[], int]
) -> None:
    path = await store(registry.url, bytes_of(30_000_000))
    await shared.warm(path)
    before = descriptors()
    for _ in range(3):
        reader, writer = await asyncio.open_connection(*shared.url.removeprefix("http://").split(":"))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readexactly(100_000)
        writer.transport.abort()
    await until(lambda: descriptors() <= before)


async def test_the_embedded_registrys_folder_is_known(tmp_path: Path) -> None:
    chosen = settings.load(
        None,
        {},
        http={"addr": "127.0.0.1:0"},
        data={"dir": str(tmp_path / "data")},
        nix={"store": str(tmp_path / "store")},
        packages={"kind": "path", "path": str(PACKAGES)},
    )
    data = bytes_of(300_000)
    counted = 'nixfront_registry_seconds_count{kind="blob",method="GET"}'
    async with wiring_server.serve(chosen) as url:
        path = await store(url, data)

        async def gets() -> str:
            text = (await ask(url, "/metrics"))[2].decode()
            return next((line for line in text.splitlines() if line.startswith(counted)), "")

        async def comes_from_the_disk() -> bool:
            before = await gets()
            assert (await ask(url, path))[2] == data
            return before != "" and await gets() == before

        await until(comes_from_the_disk)
        assert (await ask(url, path))[2] == data


@pytest.mark.parametrize(
    "digest", ["sha256:" + "A" * 64, "sha256:" + "0" * 63, "sha512:" + "0" * 64, "sha256:../x"]
)
async def test_the_disk_knows_no_other_digests(tmp_path: Path, digest: str) -> None:
    disk = SharedDisk(tmp_path)
    async with disk.open("a", digest, 1) as file:
        assert file is None
    await disk.close()


async def test_a_link_to_a_file_elsewhere_is_not_followed(
    shared: Shared, registry: Server, tmp_path: Path
) -> None:
    data = bytes_of(300_000)
    path = await store(registry.url, data)
    file = data_file(shared.storage, path)
    (tmp_path / "moved").write_bytes(data)
    file.unlink()
    file.symlink_to(tmp_path / "moved")
    for _ in range(3):
        assert (await ask(shared.url, path))[2] == data
        await asyncio.sleep(0.1)

    assert shared.gets() == 3


# --- to the registry's public address ---------------------------------------------------------------------

PUBLIC = "https://blobs.example:5443"


async def test_clients_are_sent_to_the_public_address(start: Start, registry: Server) -> None:
    path = await store(registry.url, bytes_of(300_000))
    missing = path[:-4] + "0000"
    async with start(registry.url, registry={"public_url": PUBLIC}) as front:
        status, headers, _ = await ask(front.url, path)
        head = await ask(front.url, path, "HEAD")
        absent = await ask(front.url, missing)
        straight = await ask(registry.url, missing)

    assert (status, headers["Location"]) == (307, PUBLIC + path)
    assert (head[0], head[1]["Content-Length"]) == (200, "300000")
    assert absent == straight
    assert absent[0] == 404


async def test_a_mirrors_client_is_sent_to_the_path_that_the_registry_knows(
    start: Start, registry: Server
) -> None:
    path = await store(registry.url, b"x", "tool")
    mirror = {"allow": ("tool",)}
    async with start(registry.url, registry={"public_url": PUBLIC}, mirror=mirror) as front:
        asked = path.replace("/tool/", "/library/tool/") + "?ns=docker.io"
        status, headers, _ = await ask(front.url, asked)

    assert (status, headers["Location"]) == (307, PUBLIC + path)


async def test_only_who_may_have_it_is_sent_on(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD, encoding="ascii")
    guarded = {"auth": {"htpasswd": {"realm": "ours", "path": str(folder / "htpasswd")}}}
    async with (
        stock_registry(folder, sections=guarded) as registry,
        start(registry.url, registry={"public_url": registry.url}) as front,
    ):
        path = await store(registry.url, bytes_of(300_000), **BASIC)
        statuses = [(await ask(front.url, path, headers=headers))[0] for headers in (BASIC, {}, WRONG)]

    assert statuses == [307, 401, 401]
