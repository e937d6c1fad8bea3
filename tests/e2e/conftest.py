"""What the end-to-end tests share: one docker engine, and one Nix store for the packages of the demo set."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.clients import Docker, dockerd


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def docker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Docker]:
    """A docker engine that starts empty."""
    async with dockerd(tmp_path_factory.mktemp("docker")) as engine:
        yield engine


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Nix store of our own: nothing in it was built before these tests, and the host's stays as it is.

    The workers of a run share it, as Nix lets processes do, so that none builds what another has built.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "store"
    folder.mkdir(exist_ok=True)
    return folder
