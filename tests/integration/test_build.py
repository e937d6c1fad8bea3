"""`nixfront build`: the image that a pull would get, as a folder, without a registry."""

import json
import os
from pathlib import Path

import pytest

from proxy import settings
from proxy.core.errors import NameInvalid, PackageUnknown
from proxy.settings import Settings
from proxy.wiring import commands
from tests.support.front import PACKAGES, front
from tests.support.image import ValidatedImage
from tests.support.layout import read_layout
from tests.support.servers import stock_registry
from tests.support.validate import check_image

FILE = """
{ pkgs, ... }: {
  web = { packages = [ "hello" ]; extraCommands = "echo hi > made; chmod 600 made"; uid = 5; gid = 6; cmd = [ "x" ]; };
}
"""


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    """Settings of a nixfront that has no registry."""
    (tmp_path / "images.nix").write_text(FILE)
    return settings.load(
        None,
        {},
        data={"dir": str(tmp_path / "data")},
        nix={"store": str(tmp_path / "store")},
        packages={"kind": "path", "path": str(PACKAGES)},
        images={"file": str(tmp_path / "images.nix")},
        image={"index": False},
        trust={"attach": False},
    )


def checked(folder: Path, tag: str = "latest", commanded: tuple[int, int] | None = None) -> ValidatedImage:
    return check_image(read_layout(folder, tag), commanded=commanded)


async def test_it_is_the_image_of_a_pull(chosen: Settings, tmp_path: Path, nix_count: Path) -> None:
    layout = tmp_path / "layout"
    built = {
        name: await commands.build(chosen, name, "latest", tmp_path / name.replace("/", "-"))
        for name in ("hello/alpha", "images/web")
    }
    digest = await commands.build(chosen, "hello", "latest", layout)

    (tmp_path / "registry").mkdir()
    async with stock_registry(tmp_path / "registry") as registry:
        images = {"file": str(tmp_path / "images.nix")}
        async with front(tmp_path, nix_count, registry.url, image={"format": "oci"}, images=images) as pulled:
            for name, made in built.items():
                same = await pulled.pull(name, commanded=(5, 6) if name == "images/web" else None)
                assert same.digest == made
            assert (await pulled.pull("hello")).digest == digest == checked(layout).digest

            running = await commands.build(
                chosen, "alpha", "latest", layout
            )  # beside a server on the same data
            assert checked(layout).digest == running

    web = checked(tmp_path / "images-web", commanded=(5, 6))
    assert web.files["made"].mode == 0o600
    assert {path.name for path in (tmp_path / "data").iterdir() if path.name.startswith("build-")} == set()


async def test_with_docker_manifests_the_layers_are_the_same(
    chosen: Settings, tmp_path: Path, nix_count: Path
) -> None:
    await commands.build(chosen, "hello", "latest", tmp_path / "layout")

    (tmp_path / "registry").mkdir()
    async with (
        stock_registry(tmp_path / "registry") as registry,
        front(tmp_path, nix_count, registry.url) as pulled,
    ):
        image = await pulled.pull("hello")

    layout = checked(tmp_path / "layout")
    assert [layer.digest for layer in image.layers] == [layer.digest for layer in layout.layers]
    assert image.config == layout.config
    assert image.digest != layout.digest


async def test_roots_of_killed_builds_are_cleared(chosen: Settings, tmp_path: Path) -> None:
    gone, ours = tmp_path / "data/build-999999999-x", tmp_path / f"data/build-{os.getpid()}-x"
    for folder in (gone, ours):
        (folder / "tmp").mkdir(parents=True)

    await commands.build(chosen, "hello", "latest", tmp_path / "layout")

    assert not gone.exists()
    assert ours.exists()


async def test_a_tag_is_a_name_in_the_layout(chosen: Settings, tmp_path: Path) -> None:
    await commands.build(chosen, "hello", "latest", tmp_path / "layout")
    labels = json.loads(read_layout(tmp_path / "layout", "latest").config)["config"]["Labels"]
    revision = labels["nixfront.revision"]

    digest = await commands.build(chosen, "hello", revision, tmp_path / "layout")

    assert checked(tmp_path / "layout", revision).digest == checked(tmp_path / "layout").digest == digest


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("helo", PackageUnknown, "no package helo, did you mean hello?"),
        ("user", NameInvalid, "'user' names no package"),
        ("Hello", NameInvalid, "Hello:latest cannot be an image of ours"),
    ],
)
async def test_a_mistake_is_told_and_nothing_is_written(
    chosen: Settings, tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as refused:
        await commands.build(chosen, name, "latest", tmp_path / "layout")

    assert message in str(refused.value)
    assert not (tmp_path / "layout").exists()
