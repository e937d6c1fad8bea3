"""Same package set and request, same manifest digest: on any machine and after any history."""

from pathlib import Path

from tests.support.front import front
from tests.support.servers import stock_registry

REQUESTS = ["hello", "shell/alpha/beta", "odd", "manyparts"]


async def digests(folder: Path, nix_count: Path, requests: list[str]) -> dict[str, str]:
    """What a new nixfront with an empty store, an empty registry and an empty data folder makes of the requests."""
    registry_folder = folder / "registry"
    registry_folder.mkdir(parents=True)
    async with (
        stock_registry(registry_folder) as registry,
        front(folder, nix_count, registry.url, layers={"most": 60}) as running,
    ):
        return {request: (await running.pull(request)).digest for request in requests}


async def test_two_empty_stores_and_any_order_give_the_same_digests(tmp_path: Path, nix_count: Path) -> None:
    one = await digests(tmp_path / "one", nix_count, REQUESTS)
    other = await digests(tmp_path / "other", nix_count, [*reversed(REQUESTS)])

    assert one == other
    assert len(set(one.values())) == len(REQUESTS)
