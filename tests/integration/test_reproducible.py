"""Same package set and request, same digests of the manifest and of its documents: on any machine and after any history."""

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from proxy.core.events import LayerStored
from proxy.tools.process import run
from proxy.trust.kinds import KINDS
from tests.support.front import PACKAGES, Front, front
from tests.support.servers import Server, stock_registry

REQUESTS = ["hello", "shell/alpha/beta", "odd", "manyparts"]
# Beside the packages of the tests, one whose layer is many blocks, which several threads pack.
WITH_HEAVY = """
{ system, ... }@arguments:
import ./tests.nix arguments // {
  heavy = derivation {
    name = "heavy-1.0";
    inherit system;
    builder = "/bin/sh";
    args = [ "-euc" "/bin/mkdir -p $out/share; for n in 1 2 3; do /usr/bin/seq $n 900000 > $out/share/$n; done" ];
  };
}
"""


#: A manifest, and what nixfront attaches to it.
Digests = tuple[str, Mapping[str, str]]


async def pulled(front: Front, request: str) -> Digests:
    image = await front.pull(request)
    assert image.documents.keys() == KINDS.keys()
    return image.digest, image.documents


async def digests(folder: Path, nix_count: Path, requests: list[str]) -> dict[str, Digests]:
    """What a new nixfront with an empty store, an empty registry, an empty data folder and its own copy of the set."""
    registry_folder = folder / "registry"
    registry_folder.mkdir(parents=True)
    await asyncio.to_thread(shutil.copytree, PACKAGES, folder / "packages")
    packages = {"path": str(folder / "packages")}
    async with (
        stock_registry(registry_folder) as registry,
        front(folder, nix_count, registry.url, layers={"most": 60}, packages=packages) as running,
    ):
        return {request: await pulled(running, request) for request in requests}


async def test_two_empty_stores_and_any_order_give_the_same_digests(tmp_path: Path, nix_count: Path) -> None:
    one = await digests(tmp_path / "one", nix_count, REQUESTS)
    other = await digests(tmp_path / "other", nix_count, [*reversed(REQUESTS)])

    assert one == other
    assert len({digest for digest, _ in one.values()}) == len(REQUESTS)


async def test_the_locale_of_the_host_changes_nothing(tmp_path: Path, nix_count: Path) -> None:
    """Names in the store are bytes; what Python makes of them depends on how it was started."""
    store = await digests(tmp_path / "utf8", nix_count, ["odd"])
    walk = (
        "import sys; from proxy.image import store_tree, tar; from hashlib import sha256;"
        "entries = store_tree.store_entries([sys.argv[2]], sys.argv[1]);"
        "print(sha256(b''.join(tar.blocks(entries))).hexdigest())"
    )
    prefix = tmp_path / "utf8" / "store"
    (path,) = await asyncio.to_thread(lambda: [*(prefix / "nix/store").glob("*-odd-1.0")])
    words = (sys.executable, "-c", walk, str(prefix), f"/nix/store/{path.name}")
    hashes = {
        await run(words, env={**os.environ, **locale}, deadline=60)
        for locale in (
            {"LC_ALL": "C.UTF-8"},
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            {"LC_ALL": "POSIX", "PYTHONUTF8": "1"},
        )
    }

    assert store
    assert len(hashes) == 1


async def test_neither_threads_nor_company_nor_history_change_a_digest(
    tmp_path: Path, nix_count: Path
) -> None:
    """The store is the same one, so that each image is built once; nixfront and its registry are new but for the last."""
    packages, store = tmp_path / "packages", {"store": str(tmp_path / "store")}
    await asyncio.to_thread(shutil.copytree, PACKAGES, packages)
    await asyncio.to_thread((packages / "default.nix").rename, packages / "tests.nix")
    await asyncio.to_thread((packages / "default.nix").write_text, WITH_HEAVY)
    requests = ["heavy/hello", "hello", "alpha/beta", "shell/alpha/beta", "beta/heavy"]

    def running(
        name: str, registry: Server, packers: int, uploads: int
    ) -> AbstractAsyncContextManager[Front]:
        layers = {"packers": packers, "uploads": uploads}
        chosen: dict[str, Any] = {"layers": layers, "nix": store, "packages": {"path": str(packages)}}
        return front(tmp_path / name, nix_count, registry.url, **chosen)

    async with AsyncExitStack() as stack:
        registries = []
        for number in range(4):
            (tmp_path / str(number)).mkdir()
            registries.append(await stack.enter_async_context(stock_registry(tmp_path / str(number))))
        async with running("alone", registries[0], 1, 1) as one:
            expected = {request: await pulled(one, request) for request in requests}
        async with running("together", registries[1], 8, 8) as many:
            together = await asyncio.gather(*(pulled(many, request) for request in requests * 2))
        async with running("history", registries[2], 3, 2) as other:
            for request in ("manyparts", "beta", *reversed(requests)):
                backward = await pulled(other, request)
                assert backward == expected.get(request, backward)
        # What it remembers is of another registry: nothing of it is there.
        async with running("history", registries[3], 2, 5) as misled:
            again = {request: await pulled(misled, request) for request in requests}

    assert together == [*expected.values()] * 2
    assert again == expected
    assert len({digest for digest, _ in expected.values()}) == len(requests)
    assert max(layer.size for layer in one.told(LayerStored)) > 2 << 20, "a layer of more than two blocks"
    assert {layer.how for layer in other.told(LayerStored)} >= {"packed", "mounted"}
