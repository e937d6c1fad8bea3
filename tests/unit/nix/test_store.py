"""The store on a host without Nix, and where it lies."""

from pathlib import Path

import pytest

from proxy.core.errors import NixUnavailable
from proxy.core.model import Package, PackageSet, Policy
from proxy.nix.evaluate import Evaluator
from proxy.nix.runner import Limits, NixRunner
from proxy.nix.store import NixStore

ENTRY = Path("/expressions/default.nix")
GIT = Package(
    "git", "git-2", "/nix/store/g.drv", (("out", "/nix/store/g"), ("doc", "/nix/store/g-doc")), "git"
)


async def test_a_host_without_nix_is_told_from_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runner = NixRunner(Limits(5, 5))
    store = NixStore(runner, tmp_path)
    evaluator = Evaluator(runner, tmp_path, system="x86_64-linux", policy=Policy(), folder=tmp_path)
    package_set = PackageSet("demo", "/x", "r", "s", "1980-01-01T00:00:00Z")

    with pytest.raises(NixUnavailable, match=r"nix-instantiate could not be started .* is Nix installed"):
        await evaluator.evaluate(package_set, ["git"])
    with pytest.raises(NixUnavailable):
        await store.fetch({"type": "path", "path": "/x"}, tmp_path / "root")
    with pytest.raises(NixUnavailable, match="nix-store"):
        await store.realise(package_set, [GIT], ["git"], tmp_path, lambda _: None)


def test_the_prefix_is_the_folder_of_the_store() -> None:
    assert NixStore(NixRunner(Limits(1, 1), store="/data/nix"), ENTRY).prefix == "/data/nix"
