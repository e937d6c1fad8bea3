"""With nixfront in front, everything that is there already is as if it were not."""

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from proxy.core.events import BuildStarted
from proxy.core.model import DOCKER_MANIFEST, OCI_MANIFEST
from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.wait import PATIENCE, Gate, until

Start = Callable[..., AbstractAsyncContextManager[Front]]


def pushed(media_type: str) -> handmade.HandmadeImage:
    """A small image that a person could have made."""
    return handmade.image(
        [handmade.tar(entries) for entries in handmade.store_layers()], media_type=media_type
    )


async def test_a_push_through_the_proxy(start: Start, registry: Server) -> None:
    made = pushed(DOCKER_MANIFEST)
    async with start(registry.url) as front, aiohttp.ClientSession() as session:
        digest = await handmade.push(front.url, "team/tool", "v1", made)
        async with session.get(
            f"{registry.url}/v2/team/tool/manifests/v1", headers={"Accept": DOCKER_MANIFEST}
        ) as direct:
            assert direct.headers["Docker-Content-Digest"] == digest
            assert await direct.read() == made.manifest


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, OCI_MANIFEST])
async def test_a_tag_that_a_person_pushed_is_never_overwritten(
    start: Start, registry: Server, media_type: str
) -> None:
    made = pushed(media_type)
    digest = await handmade.push(registry.url, "hello", "latest", made)
    async with start(registry.url) as front:
        accepts = [DOCKER_MANIFEST, OCI_MANIFEST, "*/*"]
        answers = [
            await front.get("/v2/hello/manifests/latest", headers={"Accept": accept}) for accept in accepts
        ]

        assert front.told(BuildStarted) == []
        assert front.nix_starts() == 0
    stored = [answer for answer in answers if answer[2] == made.manifest]
    assert stored, "the registry's own manifest came through"
    if media_type == OCI_MANIFEST:
        assert answers[0][0] == 404, "the stock registry's 404 for a type that was not asked for stands"
    async with (
        aiohttp.ClientSession() as session,
        session.head(f"{registry.url}/v2/hello/manifests/latest", headers={"Accept": media_type}) as direct,
    ):
        assert direct.headers["Docker-Content-Digest"] == digest


async def test_a_tag_that_is_pushed_during_the_build_stands(
    start: Start, registry: Server, gate: Gate
) -> None:
    made = pushed(DOCKER_MANIFEST)
    async with start(registry.url) as front:
        building = asyncio.create_task(
            front.get("/v2/gated/manifests/latest", headers={"Accept": DOCKER_MANIFEST})
        )
        await until(lambda: front.told(BuildStarted))
        await handmade.push(front.url, "gated", "latest", made)
        gate.open()
        _, _, body = await building

    assert body == made.manifest


async def test_several_accept_lines_reach_the_registry(start: Start, registry: Server) -> None:
    made = pushed(OCI_MANIFEST)
    await handmade.push(registry.url, "hello", "latest", made)
    lines = [("Accept", DOCKER_MANIFEST), ("Accept", OCI_MANIFEST), ("Accept", "text/plain")]
    async with start(registry.url) as front:
        status, _, body = await front.get("/v2/hello/manifests/latest", headers=lines)

    assert (status, body) == (200, made.manifest)


async def test_a_range_of_a_blob(start: Start, registry: Server) -> None:
    made = pushed(DOCKER_MANIFEST)
    await handmade.push(registry.url, "hello", "latest", made)
    blob = made.layers[0]
    path = f"/v2/hello/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
    async with start(registry.url) as front:
        status, headers, body = await front.get(path, headers={"Range": "bytes=10-19"})

    assert status == 206
    assert headers["Content-Range"] == f"bytes 10-19/{len(blob)}"
    assert body == blob[10:20]


async def test_nothing_is_decompressed_or_recompressed(start: Start, registry: Server) -> None:
    squeezed = gzip.compress(b"a" * 100_000)
    digest = f"sha256:{hashlib.sha256(squeezed).hexdigest()}"
    async with (
        start(registry.url) as front,
        aiohttp.ClientSession(front.url, auto_decompress=False) as session,
    ):
        async with session.post("/v2/some/blobs/uploads/") as begun:
            location = begun.headers["Location"]
        joined = "&" if "?" in location else "?"
        async with session.put(
            f"{location}{joined}digest={digest}", data=squeezed, headers={"Content-Encoding": "gzip"}
        ) as stored:
            assert stored.status == 201, await stored.text()
        status, _, body = await front.get(f"/v2/some/blobs/{digest}", headers={"Accept-Encoding": "gzip"})

    assert (status, body) == (200, squeezed)


async def test_an_upload_comes_back_through_us(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        status, headers, _ = await front.get("/v2/some/blobs/uploads/", "POST")

    assert status == 202
    assert headers["Location"].startswith(f"{front.url}/v2/some/blobs/uploads/")


async def test_a_trusted_proxy_in_front_says_how_clients_name_us(start: Start, registry: Server) -> None:
    said = {
        "X-Forwarded-Host": "images.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.1",
    }
    async with start(registry.url, http={"trusted_proxies": ("127.0.0.0/8",)}) as front:
        _, headers, _ = await front.get("/v2/some/blobs/uploads/", "POST", headers=said)

    assert headers["Location"].startswith("https://images.example/v2/some/blobs/uploads/")
    assert "192.0.2.1" in registry.process.log_text(), "the registry's log names the client"


@pytest.mark.parametrize("name", ["hello", "user/hello", "no-such-package", "team/tool"])
async def test_a_name_that_has_no_tag_yet_has_an_empty_list_of_them(
    start: Start, registry: Server, name: str
) -> None:
    async with start(registry.url) as front:
        status, headers, body = await front.get(f"/v2/{name}/tags/list?n=10")

        assert front.nix_starts() == 0
        assert front.told(BuildStarted) == []
    assert (status, body) == (200, f'{{"name":"{name}","tags":[]}}\n'.encode())
    assert headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("name", ["user", "fetch--00", "a..b"])
async def test_a_name_that_can_never_be_built_has_no_list(start: Start, registry: Server, name: str) -> None:
    direct = Front(registry.url, [], registry.process.log)
    async with start(registry.url) as front:
        through = await front.get(f"/v2/{name}/tags/list")

    assert (through[0], through[2]) == (404, (await direct.get(f"/v2/{name}/tags/list"))[2])


async def test_another_404_of_a_tag_list_stands(start: Start) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 404 Gone\r\nContent-Length: 20\r\n\r\n{"errors":')
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b'["other"]}')
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, start(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as front:
        status, _, body = await front.get("/v2/hello/tags/list")

    assert (status, body) == (404, b'{"errors":["other"]}')


async def test_a_page_that_browses_starts_no_build(start: Start, registry: Server) -> None:
    """Catalog, tags of each, then manifest and config of every tag; some were deleted since."""
    made = pushed(DOCKER_MANIFEST)
    for name in ("hello", "alpha"):
        await handmade.push(registry.url, name, "v1", made)
    async with start(registry.url) as front, aiohttp.ClientSession(front.url) as session:
        async with session.delete(f"/v2/alpha/manifests/{handmade.digest_of(made.manifest)}") as deleted:
            assert deleted.status == 202
        async with session.get("/v2/_catalog?n=1000") as catalog:
            names = (await catalog.json())["repositories"]
        tags = {}
        for name in names:
            async with session.get(f"/v2/{name}/tags/list") as listed:
                tags[name] = (await listed.json())["tags"] or []
            for tag in tags[name]:
                accept = {"Accept": DOCKER_MANIFEST}
                async with session.get(f"/v2/{name}/manifests/{tag}", headers=accept) as manifest:
                    config = (await manifest.json(content_type=None))["config"]["digest"]
                async with session.get(f"/v2/{name}/blobs/{config}") as read:
                    assert read.status == 200

        assert front.told(BuildStarted) == []
        assert front.nix_starts() == 0
    assert tags == {"alpha": [], "hello": ["v1"]}


async def raw(url: str, request: str) -> bytes:
    """What a server answers to these very bytes, up to the end of the connection."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode())
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    return answer


async def test_a_request_line_may_hold_a_whole_url(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        answer = await raw(
            front.url, "GET http://elsewhere.example/v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )

    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_headers_are_the_registrys_and_no_others(start: Start) -> None:
    """A registry behind a web server names it; one that gives no Content-Type gets none."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 Fine\r\nServer: other/1\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nContent-Length: 1\r\n\r\nx"
        )
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, start(f"http://127.0.0.1:{port}") as front:
        got = await raw(
            front.url,
            "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTE: trailers\r\nX-Kept: 1\r\n\r\n",
        )

    assert got.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert b"Server: other/1" in got
    assert b"X-Hop" not in got
    assert b"Content-Type" not in got
    assert b"X-Kept: 1" in seen[-1]
    for added in (b"User-Agent", b"Accept", b"Accept-Encoding", b"TE:"):
        assert added not in seen[-1]
