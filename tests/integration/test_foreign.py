"""Documents that somebody pushed to hurt the others: each is the failure of one image, on the page and in every command."""

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from proxy.core.model import DOCKER_LIST, canonical_json, digest_of
from tests.support import handmade
from tests.support.commands import Command, set_back
from tests.support.front import Front
from tests.support.handmade import HandmadeImage
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]
GOOD = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
#: Configurations that a stock registry takes; none of them is one.
HOSTILE = {
    "list": b"[]",
    "number": b"1",
    "deep": b'{"history":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "twins": b'{"config": {}, "config": {"Labels": {}}}',
    "labels": b'{"config": {"Labels": {"nixfront.packages": [1]}}}',
    "label-list": b'{"config": {"Labels": ["a"]}}',
    "half": rb'{"config": {"Labels": {"nixfront.packages": "\ud800"}}}',
    "history": b'{"history": [null, 1]}',
    "not-a-number": b'{"created": NaN}',
    "no-json": b"\x7fELF\xff",
}


def with_config(config: bytes) -> HandmadeImage:
    """An image with this configuration, whatever it is."""

    def describe(manifest: dict[str, Any]) -> None:
        manifest["config"] |= {"digest": handmade.digest_of(config), "size": len(config)}

    tars = [handmade.tar(entries) for entries in handmade.store_layers()]
    return dataclasses.replace(handmade.image(tars, manifest=describe), config=config)


@pytest.fixture
def nixfront(tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    return Command(tmp_path, registry.url, monkeypatch, capsys)


async def test_a_wrong_document_is_the_failure_of_its_own_image(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(registry.url) as front:
        hello = await front.pull("hello")
        for name, config in HOSTILE.items():
            await handmade.push(registry.url, f"evil/{name}", "latest", with_config(config))
        await handmade.push(registry.url, "hello", "evil", with_config(b"[]"))
        pages = {
            path: await front.get(path)
            for path in ("/", "/images", "/compose?names=hello", f"/images/{hello.digest}/hello")
        }

    assert {path: status for path, (status, _, _) in pages.items()} == dict.fromkeys(pages, 200)
    listed = pages["/images"][2].decode()
    assert listed.count("nixfront cannot read this image") == len(HOSTILE) + 1
    assert f"/images/{hello.digest}/hello" in listed, "a wrong tag hides no other of its repository"

    for name in HOSTILE:
        code = await asyncio.to_thread(cli.main, ["explain", f"evil/{name}"])
        assert (code, "is no image that nixfront can read" in capsys.readouterr().err) == (1, True), name
    assert (await nixfront("reindex"))["ours"] >= 1
    table = tmp_path / "table"
    assert await nixfront("popularity", "--served", "-o", str(table))
    assert "1 images served" in table.read_text(encoding="utf-8")
    await asyncio.to_thread(set_back, tmp_path, "hello", 40)
    assert [image["gone"] for image in await nixfront("prune", "--days", "30", "--yes")] == [True]


async def put_index(registry: str, repository: str, tag: str, children: list[bytes]) -> bytes:
    """An index of these indexes, under this tag."""
    entries = [{"mediaType": DOCKER_LIST, "size": len(each), "digest": digest_of(each)} for each in children]
    index = canonical_json({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries})
    await handmade.put_manifest(registry, repository, tag, DOCKER_LIST, index)
    return index


async def test_indexes_in_indexes_keep_their_repository_and_no_other(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    async with start(registry.url) as front:
        for name in ("hello", "alpha"):
            await front.pull(name)
            await asyncio.to_thread(set_back, tmp_path, name, 40)
        index = await put_index(registry.url, "hello", "deep", [])
        for _ in range(1200):
            index = await put_index(registry.url, "hello", "deep", [index])
        pruned = {image["repository"]: image for image in await nixfront("prune", "--days", "30", "--yes")}

    assert pruned["alpha"]["gone"]
    assert not pruned["hello"]["gone"]
    assert pruned["hello"]["kept"] == "tag deep has more than 8 levels of indexes"


async def test_an_index_that_cannot_be_read_keeps_its_repository(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    async with start(registry.url) as front:
        await front.pull("hello")
        await asyncio.to_thread(set_back, tmp_path, "hello", 40)
        twice = b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"manifests":[]}' % DOCKER_LIST.encode()
        await handmade.put_manifest(registry.url, "hello", "twice", DOCKER_LIST, twice)
        (image,) = await nixfront("prune", "--days", "30", "--yes")

    assert not image["gone"]
    assert "an object has the same name twice" in image["kept"]
