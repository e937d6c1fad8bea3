"""Lists of names: what Nix cannot list is not listed again for a while, and a damaged file is made anew."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.core.errors import EvaluationFailed, ProcessFailed
from proxy.core.facts import PackageFacts
from proxy.core.model import PackageSet, Policy
from proxy.nix.name_lists import NameLists
from proxy.nix.name_lists.channel import ChannelLists
from proxy.nix.runner import Expressions, Limits, NixRunner
from proxy.registry.endpoint import client_session
from proxy.tools import name_file
from tests.support import many_names

SET = PackageSet("set", "/nix/store/source", "0123", "https://example.org", "2026-01-31T00:00:00Z")


async def test_a_set_that_nix_cannot_list_costs_one_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    async def fail(*_words: object, **_options: object) -> bytes:
        nonlocal runs
        runs += 1
        raise ProcessFailed("nix-instantiate", 1, ("error: out of memory",))

    runner = NixRunner(Limits(1, 1))
    monkeypatch.setattr(runner, "run", fail)
    expressions = Expressions(runner, tmp_path, system="x86_64-linux", policy=Policy())
    lists = NameLists(expressions, tmp_path)

    for _ in range(3):
        assert len(await lists.index_soon(SET)) == 0
    with pytest.raises(EvaluationFailed, match="out of memory"):
        await lists.index(SET)

    assert runs == 2, "all names at once, then the top level alone"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 64,
        "hello\t\t\t\t\n",
        "hello\t\t\t\t\n\tend\t2\n",
        "hello\n\tend\t1\n",
        "\tend\t",
        "\udcff\t\t\t\t\n\tend\t1\n",
    ],
)
async def test_a_damaged_list_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    async def answer(*_words: object, **_options: object) -> bytes:
        return b'{"jq": null, "hello": null}'

    runner = NixRunner(Limits(1, 1))
    monkeypatch.setattr(runner, "run", answer)
    expressions = Expressions(runner, tmp_path, system="x86_64-linux", policy=Policy())
    await NameLists(expressions, tmp_path).index(SET)
    (file,) = await asyncio.to_thread(lambda: list(tmp_path.glob("names-*.tsv")))
    whole = file.read_bytes()
    file.write_bytes(text.encode(errors="surrogateescape"))

    assert tuple(await NameLists(expressions, tmp_path).index(SET)) == ("hello", "jq")
    assert file.read_bytes() == whole


def test_a_list_keeps_what_fits_into_lines(tmp_path: Path) -> None:
    package_facts = [
        PackageFacts("git", "2.51", "Version\tcontrol\nsystem ", "GPL-2.0-only", "git"),
        PackageFacts("evil", "1\x1b[2J", "x" * 9999, "", ""),
        PackageFacts('vimPlugins."a.b"'),
        PackageFacts("two words"),
        PackageFacts(""),
        PackageFacts("line\nbreak"),
        PackageFacts("abc"),
    ]

    written = name_file.write(tmp_path / "list", package_facts)
    read = name_file.read(tmp_path / "list")

    assert read is not None
    assert tuple(read) == tuple(written) == ("abc", "evil", "git")
    assert (
        read.facts(2)
        == written.facts(2)
        == PackageFacts("git", "2.51", "Version control system", "GPL-2.0-only", "git")
    )
    assert read.facts(1) == PackageFacts("evil", "1", "x" * 200)


async def test_an_old_list_of_a_channel_serves_until_the_channel_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    body: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(body=body[0]) if body else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/list", answer)
    expressions = Expressions(NixRunner(Limits(1, 1)), tmp_path, system="x86_64-linux", policy=Policy())
    async with TestServer(app) as server, client_session() as session:
        package_set = replace(SET, listing=str(server.make_url("/list")))
        body.append(many_names.channel_list(["old"]))
        await NameLists(expressions, tmp_path, ChannelLists(session)).index(package_set)
        body.clear()
        (file,) = await asyncio.to_thread(lambda: list(tmp_path.glob("channel-*.tsv")))
        os.utime(file, (1, 1))

        lists = NameLists(expressions, tmp_path, ChannelLists(session))
        for _ in range(3):
            assert tuple(await lists.index(package_set)) == ("old",)
        assert len(asked) == 2, "a channel that fails is left alone for a while"

        monkeypatch.setattr("proxy.nix.name_lists._UNLISTED_SECONDS", 0.0)
        lists = NameLists(expressions, tmp_path, ChannelLists(session))
        assert tuple(await lists.index(package_set)) == ("old",)
        body.append(many_names.channel_list(["new"]))
        assert tuple(await lists.index(package_set)) == ("new",)
