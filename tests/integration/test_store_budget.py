"""The Nix store does not grow without an end, and a collection takes nothing from the builds under way."""

import asyncio
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from proxy import cli
from proxy.core.events import BuildStarted
from proxy.nix import budget
from proxy.nix.runner import Limits, NixRunner
from proxy.nix.store import NixStore
from proxy.wiring.files import EXPRESSIONS
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.wait import Gate, until

Start = Callable[..., AbstractAsyncContextManager[Front]]


async def test_what_no_build_needs_goes_and_a_build_under_way_ends_well(
    start: Start,
    registry: Server,
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(budget, "_PAUSE", 0.2)
    store = tmp_path / "store/nix/store"

    def there(name: str) -> bool:
        return any(path.name.endswith(name) for path in store.iterdir())

    async with start(registry.url, nix={"most_store_bytes": 1}) as front:
        running = asyncio.create_task(front.pull("gated/alpha"))
        await until(lambda: front.told(BuildStarted))
        before = await front.pull("hello")
        await until(lambda: not there("-hello-1.0"))
        assert not running.done()
        again = await front.pull("hello")
        gate.open()
        assert (await running).files
        metrics = (await front.get("/metrics"))[2].decode()
        monkeypatch.setenv("NIXFRONT_HTTP_ADDR", front.url.removeprefix("http://"))
        await asyncio.to_thread(cli.main, ["status"])
        shown = capsys.readouterr().out

    assert again.files == before.files, "the registry has its layers"
    free = next(line for line in metrics.splitlines() if line.startswith("nixfront_store_free_bytes "))
    assert float(free.split()[1]) > 0
    assert re.search(r"^store: \d+\.\d GB, \d+\.\d GB free$", shown, re.MULTILINE)


class _Collecting(NixRunner):
    """A garbage collection comes between the fetch of a source and the root that holds it."""

    collected = 0

    @override
    async def run(self, argv: tuple[str, ...], deadline: float, **options: Any) -> bytes:
        output = await super().run(argv, deadline, **options)
        if argv[0] == "nix-instantiate" and not self.collected:
            self.collected += 1
            await super().run(("nix-store", "--gc"), deadline)
        return output


async def test_a_source_that_a_collection_takes_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/default.nix").write_text("{ }")
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "set", "set")
    runner = _Collecting(Limits(60, 60), store=str(tmp_path / "store"))
    (tmp_path / "roots").mkdir()

    source = await NixStore(runner, EXPRESSIONS).fetch(
        {"type": "tarball", "url": f"file://{tmp_path}/set.tar.gz"}, tmp_path / "roots/set"
    )

    assert runner.collected
    assert (tmp_path / f"store{source.path}/default.nix").read_text() == "{ }"
    assert source.last_modified == int((tmp_path / "set/default.nix").stat().st_mtime)
    assert [root.name for root in (tmp_path / "roots").iterdir()] == ["set"]


async def test_without_a_budget_nobody_lists_the_store(
    start: Start, registry: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_PAUSE", 0.01)
    async with start(registry.url) as front:
        await front.pull("hello")
        monkeypatch.setenv("NIXFRONT_HTTP_ADDR", front.url.removeprefix("http://"))
        await asyncio.to_thread(cli.main, ["status"])
        assert front.nix_starts("nix path-info") == 1, "for the closure of the image"

    assert "store:" not in capsys.readouterr().out


async def test_a_large_store_is_listed_once_for_each_change(tmp_path: Path, nix_count: Path) -> None:
    """Some thousand paths, which Nix holds for valid."""
    store, count = tmp_path / "store", 3000
    lines = [f"/nix/store/{number:032d}-p\n{number:064x}\n1000\n\n0\n" for number in range(count)]
    environment = {**os.environ, "NIX_REMOTE": str(store)}

    async def load(text: str) -> None:
        argv = ("nix-store", "--load-db")
        await asyncio.to_thread(subprocess.run, argv, input=text.encode(), env=environment, check=True)

    def listings() -> int:
        return nix_count.read_text().splitlines().count("nix path-info")

    await load("".join(lines))
    (store / "nix/store").mkdir(parents=True, exist_ok=True)
    kept = budget.StoreBudget(NixRunner(Limits(60, 60), store=str(store)), most_bytes=10**9, keep_free=0)
    for _ in range(5):
        assert await kept.keep() == 0
    first, size = listings(), kept.usage.store_bytes
    await load(f"/nix/store/{count:032d}-p\n{0:064x}\n500\n\n0\n")
    await kept.keep()

    assert (first, size) == (1, 1000 * count)
    assert (listings(), kept.usage.store_bytes) == (2, size + 500)
    assert kept.usage.free_bytes > 0
