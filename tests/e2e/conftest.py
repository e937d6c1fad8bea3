"""What the end-to-end tests share: one docker engine, and one Nix store and one lock for the packages of the demo set."""

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.nix.sets import debian
from tests.support.clients import Docker, dockerd

_SHIPPED = Path(__file__).parents[2] / "nix" / "debian"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def docker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Docker]:
    """A docker engine that starts empty."""
    async with dockerd(tmp_path_factory.mktemp("docker")) as engine:
        yield engine


def _shared(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that the workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Nix store of our own: nothing in it was built before these tests, and the host's stays as it is.

    The workers of a run share it, as Nix lets processes do, so that none builds what another has built.
    """
    return _shared(tmp_path_factory, "store")


@pytest.fixture(scope="session")
def lock_demo_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Puts the lock of the demo set into a data folder: to resolve the set takes seconds of a processor."""
    folder = _shared(tmp_path_factory, "sets")

    def put(data: Path) -> None:
        with (folder / "turn").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            resolved = debian.resolve(
                folder / "demo",
                expression=_SHIPPED,
                recipe=_SHIPPED / "packages.json",
                archive=None,
                deadline=600,
            )
            lock = asyncio.run(resolved).lock
        there = data / "sets" / "demo"
        there.mkdir(parents=True)
        shutil.copy(lock, there)
        shutil.copytree(folder / "demo" / "builder", there / "builder", symlinks=True, copy_function=os.link)

    return put
