"""Same package set and request, same manifest digest: on any machine and after any history."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from proxy.process import run
from tests.support.front import PACKAGES, front
from tests.support.servers import stock_registry

REQUESTS = ["hello", "shell/alpha/beta", "odd", "manyparts"]


async def digests(folder: Path, nix_count: Path, requests: list[str]) -> dict[str, str]:
    """What a new nixfront with an empty store, an empty registry, an empty data folder and its own copy of the set."""
    registry_folder = folder / "registry"
    registry_folder.mkdir(parents=True)
    await asyncio.to_thread(shutil.copytree, PACKAGES, folder / "packages")
    packages = {"path": str(folder / "packages")}
    async with (
        stock_registry(registry_folder) as registry,
        front(folder, nix_count, registry.url, layers={"most": 60}, packages=packages) as running,
    ):
        return {request: (await running.pull(request)).digest for request in requests}


async def test_two_empty_stores_and_any_order_give_the_same_digests(tmp_path: Path, nix_count: Path) -> None:
    one = await digests(tmp_path / "one", nix_count, REQUESTS)
    other = await digests(tmp_path / "other", nix_count, [*reversed(REQUESTS)])

    assert one == other
    assert len(set(one.values())) == len(REQUESTS)


async def test_the_locale_of_the_host_changes_nothing(tmp_path: Path, nix_count: Path) -> None:
    """Names in the store are bytes; what Python makes of them depends on how it was started."""
    store = await digests(tmp_path / "utf8", nix_count, ["odd"])
    walk = (
        "import sys; from proxy import archive, store; from hashlib import sha256;"
        "entries = store.store_entries([sys.argv[2]], sys.argv[1]);"
        "print(sha256(b''.join(archive.blocks(entries))).hexdigest())"
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
