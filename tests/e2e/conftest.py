"""What the end-to-end tests share: one docker engine."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.clients import Docker, dockerd


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def docker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Docker]:
    """A docker engine that starts empty."""
    async with dockerd(tmp_path_factory.mktemp("docker")) as engine:
        yield engine
