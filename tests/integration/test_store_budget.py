"""The Nix store does not grow without an end, and a collection takes nothing from the builds under way."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from proxy.core.events import BuildStarted
from proxy.nix import budget
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.wait import Gate, until

Start = Callable[..., AbstractAsyncContextManager[Front]]


async def test_what_no_build_needs_goes_and_a_build_under_way_ends_well(
    start: Start, registry: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    assert again.files == before.files, "the registry has its layers"
    free = next(line for line in metrics.splitlines() if line.startswith("nixfront_store_free_bytes "))
    assert float(free.split()[1]) > 0
