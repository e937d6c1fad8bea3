"""The demo set for arm64 on an amd64 host: nothing of arm64 is started to make an image, and every host makes the same one.

Needs a Debian archive: the host's own, or the one that TESTS_ARCHIVE names.
"""

import asyncio
import json
import os
import pickle
import platform
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy import settings
from proxy.core.errors import PackageUnusable
from proxy.core.model import Closure, PackageSet
from proxy.image import layering
from proxy.image.recipe import Recipe
from proxy.nix.sets.debian import apt
from proxy.nix.store import NixStore
from proxy.registry.endpoint import client_session
from proxy.settings import Settings
from proxy.tools.process import run
from proxy.wiring import builder, commands
from tests.support import emulator
from tests.support.layout import named_in, read_layout
from tests.support.needed import is_left_out, needs
from tests.support.validate import check_image

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    needs("apt-get"),
    pytest.mark.skipif(is_left_out(found=apt.KEYRING.is_file()), reason="needs Debian's keyring"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates the other processor on an x86-64"),
]

ARM64 = "aarch64-linux"
IMAGE = "arm64/foreign/hello/jq/python3"
EXPRESSION = """
{ lock, builder }: (import DEBIAN { system = "aarch64-linux"; inherit lock builder; }).hello
"""


# What an image consists of but for its compression: it needs `core` and `image` alone, and Python's own library.
PURE = """
import hashlib, pickle, sys
sys.path.insert(0, sys.argv[1])
from proxy.core.model import Layer
from proxy.image import layering, manifest, recipe, store_tree, tar
with open(sys.argv[3], "rb") as file:
    made, package_set, closure = pickle.load(file)
paths = {info.path for info in closure.paths}
listing = store_tree.StoreListing(sys.argv[2], paths)
root = recipe.root(made, package_set, listing, paths).entries
around = recipe.surroundings(made, root, listing, paths)
plans = layering.plan(closure, 8)
def packed(entries):
    hashed, size = hashlib.sha256(), 0
    for block in tar.blocks(entries):
        hashed.update(block)
        size += len(block)
    name = "sha256:" + hashed.hexdigest()
    return Layer(name, size, name)
layers = [packed(store_tree.store_entries(plan.paths, sys.argv[2])) for plan in plans] + [packed(root)]
facts = recipe.facts(made, package_set, "aarch64-linux", recipe.command(made, listing), around)
image = manifest.assemble(facts, layers, recipe.comments(made, plans), form="docker", compression="none")
children = [("aarch64-linux", image.manifest_descriptor)]
index = manifest.assemble_index(children, {"linux/amd64": "it is not made"}, form="docker")
print(*(layer.digest for layer in layers), image.manifest_descriptor.digest, index.descriptor.digest)
"""


def host(folder: Path, name: str, platforms: tuple[str, ...] = (), *, compression: str = "gzip") -> Settings:
    """The settings of a host with a store and data of its own."""
    archive = os.environ.get("TESTS_ARCHIVE")
    return settings.load(
        None,
        {},
        data={"dir": str(folder / name / "data")},
        nix={"store": str(folder / name / "store")},
        packages={"kind": "demo"} | ({"archive": archive} if archive else {}),
        image={"platforms": platforms},
        layers={"compression": compression},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the hosts, which all tests of this module share."""
    return tmp_path_factory.mktemp("hosts")


async def build(chosen: Settings, name: str) -> str:
    """The digest of the image, which is a layout in the folder of the host."""
    return await commands.build(chosen, name, "latest", layout(chosen, name))


def layout(chosen: Settings, name: str) -> Path:
    return chosen.data_dir.parent / name.replace("/", "-")


async def packages(chosen: Settings, *names: str) -> tuple[NixStore, PackageSet, Closure]:
    """Packages of arm64 in the store of a host, in this order, with all that they need."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client_session())
        opened = builder.open_packages(chosen, stack, session)
        package_set = await opened.sets.resolve("", "latest", ARM64)
        found = await opened.evaluator.evaluate(package_set, names, system=ARM64)
        roots = chosen.data_dir / "roots"
        await asyncio.to_thread(roots.mkdir, exist_ok=True)
        closure = await opened.store.realise(
            package_set, [found[name] for name in names], names, roots, lambda _: None
        )
        return opened.store, package_set, closure


def children(chosen: Settings, name: str) -> dict[str, str]:
    """The digest of each image in the index of this name, by its architecture."""
    blobs = layout(chosen, name) / "blobs/sha256"
    named = named_in(layout(chosen, name), "latest")
    index = json.loads((blobs / named["digest"].removeprefix("sha256:")).read_bytes())
    return {child["platform"]["architecture"]: child["digest"] for child in index["manifests"]}


async def test_images_are_the_same_in_any_store_and_order(folder: Path) -> None:
    one, other = (host(folder, name, ("linux/amd64", "linux/arm64")) for name in ("one", "other"))
    names = ("arm64/hello", "hello")
    digests = [await build(one, name) for name in names]

    # Both have the packages of the same day.
    await asyncio.to_thread(shutil.copytree, one.data_dir / "sets", other.data_dir / "sets", symlinks=True)
    again = [await build(other, name) for name in reversed(names)]

    assert again == digests[::-1]
    assert children(one, "hello") == children(other, "hello")
    assert children(one, "hello")["arm64"] == digests[0]
    config = check_image(read_layout(layout(one, "arm64/hello"), "latest")).config
    assert (config["architecture"], config["variant"]) == ("arm64", "v8")


async def test_programs_run_on_the_other_processor(folder: Path, tmp_path: Path) -> None:
    """Also one of another distribution, by the loader at the path that is in it, and nixfront itself."""
    chosen = host(folder, "one", compression="none")
    await build(chosen, IMAGE)
    image = read_layout(layout(chosen, IMAGE), "latest")
    root = tmp_path / "root"
    await asyncio.to_thread(emulator.unpack, image.layers, root)
    variables = dict(text.split("=", 1) for text in json.loads(image.config)["config"]["Env"])
    debs = sorted((folder / "one/store/nix/store").glob("*-hello_*_arm64.deb"))
    await run(("dpkg-deb", "-x", str(debs[0]), str(root / "opt")), deadline=60)

    async def printed(*argv: str) -> str:
        return await emulator.start(root, variables, *argv)

    own = await printed("/bin/hello")
    others = await printed("/opt/usr/bin/hello")

    assert own == others == "Hello, world!\n"
    assert (await printed("/bin/jq", "--version")).startswith("jq-")

    # The same image by a Python of each processor.
    store, package_set, closure = await packages(chosen, "hello")
    made = Recipe(packages=closure.packages, version=closure.packages[0].version)
    facts = root / "facts"
    await asyncio.to_thread(facts.write_bytes, pickle.dumps((made, package_set, closure)))
    code = Path(layering.__file__).parents[2]
    await asyncio.to_thread(shutil.copytree, code / "proxy", root / "code/proxy")
    here = await run((sys.executable, "-I", "-c", PURE, str(code), store.prefix, str(facts)), deadline=200)
    there = await printed("/bin/python3", "-I", "-c", PURE, "/code", "", "/facts")

    assert there == here.decode()
    assert len(set(there.split())) >= 4, "layers, a manifest and an index"
    assert await printed("/bin/python3", "-c", "import platform; print(platform.machine())") == "aarch64\n"


async def test_an_arm64_host_builds_the_same_packages(folder: Path) -> None:
    """Its own builder makes them, here under the emulator; what they need is copied from the store of the amd64 host."""
    chosen, there = host(folder, "one"), folder / "emulated"
    store, package_set, closure = await packages(chosen, "hello", "bash")
    path, needed = (package.outputs[0][1] for package in closure.packages)

    async def nix(store: str, *argv: str) -> str:
        environment = {**os.environ, "NIX_REMOTE": store}
        return (await run(argv, env=environment, deadline=100)).decode().strip()

    copy = 'NIX_REMOTE=$1 nix-store --export $(NIX_REMOTE=$1 nix-store -qR "$3") | NIX_REMOTE=$2 nix-store --import'
    await run(("sh", "-euc", copy, "sh", store.prefix, str(there), needed), deadline=100)
    configuration = os.environ["NIX_CONFIG"] + "build-users-group =\nextra-platforms = aarch64-linux\n"
    expression = EXPRESSION.replace("DEBIAN", package_set.expression)
    arguments = [
        word for name in ("lock", "builder") for word in ("--argstr", name, package_set.arguments[name])
    ]
    built = await emulator.on_an_emulated_host(
        {"NIX_REMOTE": str(there), "NIX_CONFIG": configuration},
        *("nix-build", "--no-out-link", "-E", expression, *arguments),
    )

    assert built.strip() == path
    for question in ("--hash", "--references"):
        query = ("nix-store", "--query", question, path)
        assert await nix(str(there), *query) == await nix(store.prefix, *query)


async def test_errors_say_what_the_host_lacks(folder: Path) -> None:
    chosen = host(folder, "one")
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client_session())
        opened = builder.open_packages(chosen, stack, session)
        with pytest.raises(PackageUnusable, match="x86_64-linux and aarch64-linux, and none for riscv64"):
            await opened.sets.resolve("", "latest", "riscv64-linux")
