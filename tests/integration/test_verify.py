"""`nixfront verify`: an image is made again, and what differs is named."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from proxy.core.model import Image, ImageRequest, Layer, LayerPlan, digest_of
from proxy.core.names import Vocabulary
from proxy.image import manifest
from proxy.image.manifest import ConfigFacts
from proxy.registry.client import Registry
from proxy.registry.endpoint import Endpoint
from proxy.upkeep.verify import MadeAgain, Verifier
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


async def test_one_image_is_compared_with_that_of_its_platform(registry: Server, tmp_path: Path) -> None:
    """It was made before the host made indexes, and its platform is not the first of them."""
    amd, old, new = (
        assembled(*each) for each in (("x86_64", b"a"), ("aarch64", b"old"), ("aarch64", b"new"))
    )
    index = manifest.assemble_index(
        [("x86_64-linux", amd.manifest_descriptor), ("aarch64-linux", new.manifest_descriptor)],
        {},
        form="oci",
    )

    async def make(request: ImageRequest) -> MadeAgain:
        assert request.tag == "r" * 40
        manifests = {digest_of(data): data for data in (index.data, amd.manifest, new.manifest)}
        return MadeAgain(
            index.data, manifests, {digest_of(image.config): image.config for image in (amd, new)}
        )

    async def pack(_: LayerPlan, file: Path) -> None:
        await asyncio.to_thread(file.write_bytes, handmade.tar([(handmade.member("x"), b"new")]))

    async with Endpoint(registry.url).opened() as connection:
        there = Registry(connection)
        for blob in (b"old", old.config, b"new", new.config):
            await there.put_blob("hello", blob)
        await there.put_manifest("hello", "latest", old.manifest_descriptor.media_type, old.manifest)
        verifier = Verifier(connection, Vocabulary(), make, pack)

        verdict = await verifier.one("hello", "latest")
        assert verdict.error.startswith("a layer is no archive"), (
            "it was downloaded, and is as its digest says"
        )
        hexadecimal = digest_of(b"old").partition(":")[2]
        file = (
            tmp_path
            / "registry/data/docker/registry/v2/blobs/sha256"
            / hexadecimal[:2]
            / hexadecimal
            / "data"
        )
        for tampered in (b"wol", b"o" * 1000):
            await asyncio.to_thread(file.write_bytes, tampered)
            verdict = await verifier.one("hello", "latest")
            assert "other bytes than" in verdict.error or "broke off" in verdict.error

        await asyncio.to_thread(file.write_bytes, b"old")
        await there.put_manifest("hello", "latest", new.manifest_descriptor.media_type, new.manifest)
        assert (await verifier.one("hello", "latest")).is_same


def assembled(processor: str, layer: bytes) -> Image:
    """An image with one layer of these bytes, whatever they are."""
    labels = {"nixfront.revision": "r" * 40}
    facts = ConfigFacts(f"{processor}-linux", "2026-01-31T00:00:00Z", labels=labels)
    layers = (Layer(digest_of(layer), len(layer), digest_of(layer)),)
    path = f"/nix/store/{'a' * 32}-a-1.0"
    return manifest.assemble(facts, layers, [path], form="oci", compression="gzip")
