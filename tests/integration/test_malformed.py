"""Requests that break HTTP's rules, or name what no registry can have: each ends with an answer, soon and quietly."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import shim
from tests.support.wait import PATIENCE, Gate, until
from tests.support.wire import Reply, exchange, parse

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
UPLOAD = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"3\r\nabc\r\n"

#: What comes behind the head and the first chunk of a body.
BODIES = {
    "a-length-in-a-trailer": b"0\r\nContent-Length: 3\r\n\r\n",
    "a-coding-in-a-trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a-trailer-that-is-no-header": b"0\r\nno header\r\n\r\n",
    "a-trailer-with-a-control-character": b"0\r\nX: \x01\r\n\r\n",
    "many-trailers": b"0\r\n" + b"X: y\r\n" * 1100 + b"\r\n",
    "no-size": b"zz\r\n",
    "a-negative-size": b"-3\r\nabc\r\n0\r\n\r\n",
    "an-endless-size": b"f" * 40 + b"\r\nabc",
    "a-chunk-that-is-longer-than-its-size": b"3\r\nabcd\r\n0\r\n\r\n",
    "an-extension-with-a-control-character": b"5;x=\x00\r\nabcde\r\n0\r\n\r\n",
}
HEADS = {
    "no-http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "tls": bytes.fromhex("16030100f1010000ed0303") + b"\r\n\r\n",
    "no-target": b"GET\r\n\r\n",
    "a-space-in-the-target": b"GET /v2/ a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a-header-without-a-colon": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nodd\r\n\r\n",
    "a-space-in-a-name": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n",
    "a-nul": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "two-lengths": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a-negative-length": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nab",
}


async def in_pieces(url: str, *pieces: bytes) -> Reply:
    """The answer until the server closes. Each piece arrives alone. Raises `TimeoutError` if the server waits for ever."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE):
            return parse(await reader.read())
    finally:
        writer.close()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.exc_info or (record.levelno >= logging.WARNING and "layer table" not in record.message)
    ]


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_breaks_the_rules_ends_its_request(
    start: Start, registry: Server, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with shim(registry.url) as relay, start(relay.url) as front:
        told = await in_pieces(front.url, UPLOAD, CHUNK, BODIES[name])
        assert (await front.get("/v2/"))[0] == 200
        uploads = relay.counts["POST", "upload"]

    assert told.status == 400
    assert b'"SIZE_INVALID"' in told.body
    assert told.complete
    assert told.header("Connection") == "close"
    assert uploads <= 1
    assert errors(caplog) == []


@pytest.mark.parametrize("method", [b"POST", b"GET"])
async def test_a_body_that_stands_still_ends_its_request(
    start: Start, registry: Server, caplog: pytest.LogCaptureFixture, method: bytes
) -> None:
    request = UPLOAD.replace(b"POST", method).replace(b"/blobs/uploads/", b"/manifests/v1")
    async with start(registry.url, http={"body_seconds": 0.3}) as front:
        told = await in_pieces(front.url, request, CHUNK)

    assert told.status == 400
    assert b"it stood still for 0.3 s" in told.body
    assert errors(caplog) == []


async def test_a_body_that_nobody_reads_any_more_ends_its_connection_too(
    start: Start, registry: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is there, and the server reads the rest of the body."""
    request = UPLOAD.replace(b"POST", b"PUT").replace(b"/v2/a/blobs/uploads/", b"/v2/a/manifests/v1")
    async with start(registry.url, access={"push": "none"}) as front:
        told = await in_pieces(front.url, request, CHUNK, b"zz\r\n")

    assert told.status == 403
    assert told.complete, "nothing came behind the answer"
    assert errors(caplog) == []


async def test_what_is_no_http_behind_a_request_does_not_disturb_its_answer(
    start: Start, registry: Server, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    request = b"GET /v2/gated/manifests/latest HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"
    async with start(registry.url) as front:
        asked = asyncio.create_task(in_pieces(front.url, request, b"no http\r\n\r\n"))
        await until(lambda: front.events)
        gate.open()
        told = await asked

    assert (told.status, told.complete) == (200, True)
    assert errors(caplog) == []


@pytest.mark.parametrize("name", HEADS)
async def test_what_is_no_http_is_400_as_the_stock_registry_says(
    start: Start, registry: Server, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO, "proxy.web.connections")
    async with start(registry.url) as front:
        told, straight = await in_pieces(front.url, HEADS[name]), await in_pieces(registry.url, HEADS[name])

    assert told.head.partition(b"\r\n")[::2] == (
        b"HTTP/1.1 400 Bad Request",
        straight.head.partition(b"\r\n")[2],
    )
    assert (straight.status, told.body) == (400, b"400 Bad Request")
    assert errors(caplog) == []
    assert caplog.text.count("it breaks the rules of HTTP remote=127.0.0.1") == (name != "tls")


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
@pytest.mark.parametrize(
    "before", [b"", b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["alone", "after another"]
)
async def test_another_version_of_http_is_505_as_the_stock_registry_says(
    start: Start, registry: Server, version: bytes, before: bytes
) -> None:
    """aiohttp's server answers HTTP/2.0 in its own words, and its status line is none that a client of HTTP/1 reads."""
    data = before + b"GET /v2/team/tool/tags/list HTTP/" + version + b"\r\nHost: a\r\n\r\n"
    async with start(registry.url) as front:
        told, straight = await in_pieces(front.url, data), await in_pieces(registry.url, data)

    assert told.status == straight.status == (200 if before else 505)
    assert "team/tool" not in registry.process.log_text(), "no handler saw it"


@pytest.mark.parametrize("mirror", [False, True], ids=["direct", "mirror"])
@pytest.mark.parametrize(
    "name",
    ["a" * 256, "/".join(["a" * 50] * 6), "a" * 5000, "hello/" * 42 + "alpha", "%61" * 300],
    ids=["one component", "several", "very long", "packages", "escapes"],
)
async def test_a_name_that_is_too_long_for_a_registry(
    start: Start, registry: Server, name: str, mirror: bool
) -> None:
    """The stock registry answers 500."""
    paths = [
        f"/v2/{name}/manifests/latest",
        f"/v2/{name}/manifests/sha256:{'0' * 64}",
        f"/v2/{name}/blobs/sha256:{'0' * 64}",
        f"/v2/{name}/tags/list",
        f"/v2/{name}/referrers/sha256:{'0' * 64}",
    ]
    rules = {"mirror": {"allow": ("*",)}} if mirror else {}
    async with shim(registry.url) as relay, start(relay.url, **rules) as front:
        for path in paths:
            for method in ("GET", "HEAD"):
                status, _, body = await front.get(path + ("?ns=docker.io" if mirror else ""), method)
                assert status == 404, path
                assert method == "HEAD" or b'"NAME_INVALID"' in body or mirror, path
        if not mirror:
            assert (await front.get(f"/v2/{name}/blobs/uploads/", "POST"))[0] == 404
            assert (await front.get(f"/v2/{name}/manifests/v1", "PUT", data=b"{}"))[0] == 404
        assert not [path for _, path in relay.requests if "nixfront-doctor" not in path]


async def test_the_longest_name_is_built_and_served(start: Start, registry: Server) -> None:
    name = "hello/" * 41 + "hello.out"
    assert len(name) == 255
    async with start(registry.url, registry={"storage": "/nowhere"}) as front:
        image = await front.pull(name)
        status, _, body = await front.get("/status.json")

    assert "bin/hello" in image.files
    assert status == 200
    assert name.encode() in body


async def test_the_longest_component_is_looked_up_on_a_shared_disk(start: Start, registry: Server) -> None:
    """Names of files have the same limit."""
    name = "a" * 255
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    storage = {"storage": str(registry.process.log.parent / "data")}
    async with start(registry.url, registry=storage) as front:
        await handmade.push(front.url, name, "v1", made)
        path = f"/v2/{name}/blobs/{handmade.digest_of(made.layers[0])}"
        told = [await front.get(path) for _ in range(3)]
        line = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        straight = await exchange(registry.url, line)
        async with aiohttp.ClientSession() as session, session.get(front.url + "/images") as page:
            assert page.status == 200

    assert {(status, body) for status, _, body in told} == {(200, straight.body)}
