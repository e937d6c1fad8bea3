"""What the end-to-end tests share: one docker engine, and one Nix store for the packages of the demo set."""

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
    """A Nix store of our own: nothing in it was built before these tests, and the host's stays as it is."""
    return tmp_path_factory.mktemp("store")
