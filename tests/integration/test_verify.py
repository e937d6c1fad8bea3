"""`nixfront verify`: an image is made again, and what differs is named."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from tests.support import handmade
from tests.support.commands import Command
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.stored import stored_tags

Start = Callable[..., AbstractAsyncContextManager[Front]]


@pytest.fixture
def nixfront(tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    return Command(tmp_path, registry.url, monkeypatch, capsys)


def change(store: Path, name: str, file: str) -> str:
    """Change a package behind Nix's back, and return its store path."""
    (path,) = (store / "nix" / "store").glob(f"*-{name}")
    for folder in (path / file, *(path / file).parents):
        if folder == path.parent:
            break
        folder.chmod(0o755)
    (path / file).write_text("#!/bin/sh\necho something else\n")
    (path / file).chmod(0o555)
    return f"/nix/store/{path.name}"


async def test_images_are_made_again_and_compared(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path, capsys: Any
) -> None:
    async with start(registry.url) as front:
        images = {name: await front.pull(name) for name in ("hello", "alpha/beta", "shell/git")}
        await handmade.push(registry.url, "hello", "mine", handmade.image([b""]))
        before = await stored_tags(registry.url)

        verdicts = {each["name"]: each for each in await nixfront("verify", "--all")}
        assert {name.rpartition(":")[0] for name in verdicts} == set(images), (
            "each image once, and no stranger's"
        )
        for name, verdict in verdicts.items():
            image = images[name.rpartition(":")[0]]
            assert (verdict["same"], verdict["now"], verdict["layers"]) == (True, image.digest, [])
            assert verdict["total"] == len(image.layers)
        (by_digest,) = await nixfront("verify", f"{front.url}/hello@{images['hello'].digest}")
        assert by_digest["same"]
        assert await stored_tags(registry.url) == before, "it writes nothing there"

        path = await asyncio.to_thread(change, tmp_path / "store", "hello-1.0", "bin/hello")
        assert (
            await asyncio.to_thread(
                cli.main, ["verify", "hello", "alpha", "hello:mine", "nano:none", "--json"]
            )
            == 1
        )
        hello, missing, mine, none = json.loads(capsys.readouterr().out)

        (layer,) = hello["layers"]
        assert layer["differences"] == [f"{path}: bin/hello"]
        assert (hello["same"], hello["digest"]) == (False, images["hello"].digest)
        assert layer["now"] != layer["digest"]
        assert hello["differences"] == []
        assert missing["error"] == none["error"] == "the registry does not have it"
        assert "no image of nixfront's" in mine["error"]

        assert await asyncio.to_thread(cli.main, ["verify", "hello", "alpha/beta"]) == 1
        printed = capsys.readouterr().out
        assert f"        {path}: bin/hello\n" in printed
        assert "2 images, 2 of them differ" in printed, "beta needs hello"

        assert await asyncio.to_thread(cli.main, ["verify"]) == 2

    # Another setting is another image.
    async def with_setting(name: str, value: str) -> Any:
        monkey = pytest.MonkeyPatch()
        monkey.setenv(name, value)
        try:
            assert await asyncio.to_thread(cli.main, ["verify", "shell/git", "--json"]) == 1
        finally:
            monkey.undo()
        return json.loads(capsys.readouterr().out)[0]

    other = await with_setting("NIXFRONT_IMAGE_FORMAT", "oci")
    assert [each.rpartition(" ")[2] for each in other["differences"]] == ["(image.format)"]
    fewer = await with_setting("NIXFRONT_LAYERS_MOST", "3")
    assert {each for layer in fewer["layers"] for each in layer["differences"]} == {
        "its store paths are in other layers now (layers.table, layers.most)"
    }
