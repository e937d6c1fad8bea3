"""The management side sees what is in the registry, past the first page; and works where the registry has no catalog."""

import asyncio
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxy import cli
from proxy.registry.endpoint import Endpoint
from proxy.registry.management import Management
from tests.support import handmade, stored
from tests.support.commands import Command, set_back
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import Rule, Status, shim

Start = Callable[..., AbstractAsyncContextManager[Front]]


async def test_every_page_of_the_catalog(registry: Server) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    names = sorted(f"team/tool-{number:03}" for number in range(103))
    for name in names:
        await handmade.push(registry.url, name, "v1", made)
    digest = await handmade.push(registry.url, names[0], "latest", made)
    async with (
        aiohttp.ClientSession() as session,
        session.delete(f"{registry.url}/v2/{names[1]}/manifests/{digest}") as deleted,
    ):
        assert deleted.status == 202
    filters = list(warnings.filters)

    found = await stored.listed(Endpoint(registry.url))

    assert sorted(found) == names
    assert found[names[0]] == ("latest", "v1")
    assert found[names[1]] == (), "its only manifest was deleted"
    assert warnings.filters == filters, "the library's silence does not outlive its import"


async def test_every_page_of_tags() -> None:
    """The registry sends two tags at once, whatever is asked for."""
    tags = ["a", "b", "c", "d", "e"]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        behind = [tag for tag in tags if tag > request.query.get("last", "")]
        return web.json_response({"name": "x", "tags": behind[:2] or None})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}").opened() as registry:
        assert await Management(registry).tags("x") == ("a", "b", "c", "d", "e")
    await runner.cleanup()


@pytest.mark.parametrize("status", [401, 403, 404, 405])
@pytest.mark.without_documents("it counts tags")
async def test_commands_without_a_catalog(
    start: Start,
    registry: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    status: int,
) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    async with (
        shim(registry.url, Rule("GET", "/v2/_catalog", Status(status), times=1000)) as relay,
        start(relay.url) as front,
    ):
        nixfront = Command(tmp_path, relay.url, monkeypatch, capsys)
        hello = await front.pull("hello")
        await front.pull("alpha")
        await handmade.push(registry.url, "stranger", "v1", made)

        listed = {image["repository"]: image["tags"] for image in await nixfront("images")}
        assert await asyncio.to_thread(cli.main, ["images"]) == 0
        shown = capsys.readouterr()
        indexed = await nixfront("reindex")
        by_name = await nixfront("reindex", f"{relay.url}/alpha", "stranger")
        await asyncio.to_thread(set_back, tmp_path, "hello", 40)
        gone = await nixfront("prune", "--days", "30", "--yes")
        findings = {found["check"]: found for found in await nixfront("doctor")}
        left = await stored.listed(Endpoint(registry.url))

    assert sorted(listed) == ["alpha", "hello"]
    assert "latest" in listed["hello"]
    head, *rows = shown.out.splitlines()
    assert head.split() == ["NAME", "TAGS", "PLATFORMS", "SIZE", "OWN", "CREATED", "PULLS", "PULLED", "FROM"]
    (hello_row,) = [row for row in rows if row.startswith("hello ")]
    assert "latest +2 fixed" in hello_row
    assert hello_row.endswith("nixfront")
    assert "nixfront cannot see others" in shown.err
    both = len(listed["alpha"]) + len(listed["hello"])
    assert (indexed["tags"], indexed["ours"] >= 6, indexed["is_whole"]) == (both, True, False)
    assert (by_name["tags"], by_name["ours"] >= 3, by_name["is_whole"]) == (
        len(listed["alpha"]) + 1,
        True,
        True,
    )
    assert [(image["digest"], image["gone"]) for image in gone] == [(hello.digest, True)]
    assert (left["hello"], left["stranger"]) == ((), ("v1",))
    assert findings["registry catalog"]["level"] == "doubtful"
    assert "nixfront prune work without it" in findings["registry catalog"]["cure"]


async def test_a_lost_state_is_found_again_by_name(
    start: Start, registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    async with shim(registry.url, Rule("GET", "/v2/_catalog", Status(404), times=1000)) as relay:
        nixfront = Command(tmp_path, relay.url, monkeypatch, capsys)
        async with start(relay.url) as front:
            await front.pull("hello")
        shutil.rmtree(tmp_path / "data")

        assert (await nixfront("reindex"))["tags"] == 0
        assert (await nixfront("reindex", "hello"))["ours"] >= 3
        assert [image["repository"] for image in await nixfront("images")] == ["hello"]


async def test_who_is_let_in_for_nothing_is_told_so(
    tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A wrong password is another thing than no catalog."""
    async with shim(registry.url, Rule("GET", "/v2/", Status(401), times=1000)) as relay:
        Command(tmp_path, relay.url, monkeypatch, capsys)
        for command in ("images", "reindex", "prune"):
            assert await asyncio.to_thread(cli.main, [command]) == 1
            error = capsys.readouterr().err
            assert "401" in error
            assert "catalog" not in error
