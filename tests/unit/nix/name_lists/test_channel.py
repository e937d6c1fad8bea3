"""The list that a channel publishes: read as a stranger's, from a real server."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import brotli
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.core.errors import PackageSetUnavailable
from proxy.core.facts import PackageFacts
from proxy.nix.name_lists.channel import ChannelLists
from proxy.registry.endpoint import client_session
from tests.support import many_names


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as session:
        yield session


class Channel:
    """A server of lists: its answers by path, and the paths of requests."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.requests: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if (location := self.redirects.get(request.path)) is not None:
            return web.Response(status=302, headers={"Location": location})
        if (body := self.bodies.get(request.path)) is None:
            return web.Response(status=404)
        return web.Response(body=body, headers={"Content-Encoding": "br"})


@pytest_asyncio.fixture
async def channel() -> AsyncIterator[tuple[Channel, str]]:
    channel = Channel()
    app = web.Application()
    app.router.add_get("/{path:.*}", channel.answer)
    async with TestServer(app) as server:
        yield channel, str(server.make_url("")).rstrip("/")


async def test_a_list_of_the_shape_of_nixpkgs_is_read(
    session: aiohttp.ClientSession, channel: tuple[Channel, str], tmp_path: Path
) -> None:
    served, url = channel
    names = many_names.names(2000)
    served.redirects["/nixpkgs-unstable/packages.json.br"] = "/releases/pre1/packages.json.br"
    served.bodies["/releases/pre1/packages.json.br"] = many_names.channel_list(names)

    lists = ChannelLists(session)
    index = await lists.fetch(f"{url}/nixpkgs-unstable/packages.json.br", tmp_path / "list")

    assert list(index) == names
    (git,) = (index.facts(at) for at in index.search("git") if index.name(at) == "git")
    assert git == PackageFacts("git", *_ordered(*many_names.REAL["git"]))
    assert index.with_program("rg") == ["ripgrep"]
    assert [path.name for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))] == ["list"]


def _ordered(version: str, description: str, license_name: str, program: str) -> tuple[str, str, str, str]:
    return version, description, license_name, program


async def test_licences_are_of_any_type(
    session: aiohttp.ClientSession, channel: tuple[Channel, str], tmp_path: Path
) -> None:
    served, url = channel
    licenses = {
        "text": ("MIT", "MIT"),
        "several": ([{"spdxId": "MIT"}, "Artistic", {"fullName": "Own"}], "MIT AND Artistic AND Own"),
        "short": ({"shortName": "unfree", "free": False}, "unfree"),
        "wrong": (7, ""),
    }
    packages: dict[str, object] = {
        name: {"meta": {"license": value}} for name, (value, _) in licenses.items()
    }
    packages |= {"no-object": [], "no-meta": {"meta": "x", "version": 3}}
    served.bodies["/list"] = brotli.compress(json.dumps({"version": 2, "packages": packages}).encode())

    index = await ChannelLists(session).fetch(f"{url}/list", tmp_path / "list")

    read = {name: index.facts(at).license for at, name in enumerate(index)}
    assert read == {name: text for name, (_, text) in licenses.items()} | {"no-object": "", "no-meta": ""}


WHOLE = brotli.compress(b'{"packages":{"a":{}},"version":"2"}')


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(WHOLE[:-4], id="cut"),
        pytest.param(os.urandom(4096), id="noise"),
        pytest.param(b'{"packages":{}}', id="not compressed"),
        pytest.param(brotli.compress(b'{"packages":'), id="half of a JSON"),
        pytest.param(brotli.compress(b"[]"), id="no object"),
        pytest.param(
            brotli.compress(b'{"packages":{"a":"' + b"x" * (5 << 20) + b'"}}', quality=1), id="a long text"
        ),
    ],
)
async def test_what_is_no_list_is_refused_and_leaves_nothing(
    session: aiohttp.ClientSession, channel: tuple[Channel, str], tmp_path: Path, body: bytes
) -> None:
    served, url = channel
    served.bodies["/list"] = body

    with pytest.raises(PackageSetUnavailable, match="cannot read the list of packages at"):
        await ChannelLists(session).fetch(f"{url}/list", tmp_path / "list")

    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("/list", id="in a circle"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("ftp://127.0.0.1/list", id="another scheme"),
        pytest.param("", id="nowhere"),
    ],
)
async def test_a_redirect_leads_to_no_other_scheme(
    session: aiohttp.ClientSession, channel: tuple[Channel, str], tmp_path: Path, location: str
) -> None:
    served, url = channel
    served.redirects["/list"] = location

    with pytest.raises(PackageSetUnavailable, match="redirects"):
        await ChannelLists(session).fetch(f"{url}/list", tmp_path / "list")

    assert len(served.requests) <= 5
