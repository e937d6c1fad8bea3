"""A stock registry keeps the contract of destinations, which the unit tests hold the one in memory to."""

from collections.abc import AsyncIterator

import aiohttp
import pytest_asyncio

from proxy.registry.client import Registry
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import Credentials, Login
from tests.support.destinations import check_blobs, check_manifests, check_mounts
from tests.support.servers import Server


@pytest_asyncio.fixture
async def destination(registry: Server) -> AsyncIterator[Registry]:
    async with aiohttp.ClientSession() as session:
        yield Registry(OpenEndpoint(registry.url, session, Login(session, Credentials(), secure=False)))


async def test_blobs(destination: Registry) -> None:
    await check_blobs(destination)


async def test_mounts(destination: Registry) -> None:
    await check_mounts(destination)


async def test_manifests(destination: Registry) -> None:
    await check_manifests(destination)
