"""What one host does at once is bounded, and who is sent away is told so in the words of their client."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from proxy.core.events import BuildStarted
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import Delay, Rule, shim

Start = Callable[..., AbstractAsyncContextManager[Front]]
SKOPEO = {"User-Agent": "skopeo/1.9.3"}
DOCKER = {"User-Agent": "docker/20.10.24 go/go1.19.8 UpstreamClient(Docker-Client/20.10.24 (linux))"}


async def test_past_the_queue_a_client_is_told_in_its_own_words(start: Start, registry: Server) -> None:
    async with start(registry.url, builds={"at_once": 1, "share": 1, "queue": 1}) as front:
        running = asyncio.create_task(front.get("/v2/slow/manifests/latest"))
        await told(front, 1)
        waiting = asyncio.create_task(front.get("/v2/alpha/manifests/latest"))
        await asyncio.sleep(0.2)

        status, headers, body = await front.get("/v2/hello/manifests/latest", headers=SKOPEO)
        deaf, _, _ = await front.get("/v2/hello/manifests/latest", headers=DOCKER)
        joined, _, _ = await front.get("/v2/alpha/manifests/latest")
        later, _, _ = await front.get("/v2/hello/manifests/latest")

        assert (status, headers["Retry-After"]) == (429, "30")
        assert b"1 builds waiting already (builds.queue)" in body
        assert deaf == 503
        assert joined == 200, "who asks for what waits already is not one more"
        assert later == 200
        assert ((await running)[0], (await waiting)[0]) == (200, 200)
        assert [event.repository for event in front.told(BuildStarted)] == ["slow", "alpha", "hello"]


async def test_warm_pulls_do_not_wait_for_builds(start: Start, registry: Server) -> None:
    async with start(registry.url, builds={"at_once": 1, "share": 1, "queue": 0}) as front:
        await front.pull("hello")
        running = asyncio.create_task(front.get("/v2/slow/manifests/latest"))
        await told(front, 2)

        before = time.monotonic()
        await front.pull("hello")
        assert time.monotonic() - before < 1.5
        assert (await running)[0] == 200


@pytest.mark.parametrize("at_once", [1, 3])
async def test_builds_at_once_are_bounded(start: Start, registry: Server, at_once: int) -> None:
    names = ["alpha", "beta", "hello", "several"]
    async with start(registry.url, builds={"at_once": at_once, "share": at_once}) as front:
        answers = await asyncio.gather(*(front.get(f"/v2/{name}/manifests/latest") for name in names))

        running = most = 0
        for event in front.events:
            if type(event).__name__ in ("BuildStarted", "BuildEnded"):
                running += 1 if isinstance(event, BuildStarted) else -1
                most = max(most, running)
    assert {answer[0] for answer in answers} == {200}
    assert most == at_once


@pytest.mark.parametrize("uploads", [1, 3])
async def test_uploads_at_once_are_bounded(start: Start, registry: Server, uploads: int) -> None:
    slow = Rule("PUT", r"/blobs/uploads/", Delay(0.3), times=100)
    async with shim(registry.url, slow) as relay, start(relay.url, layers={"uploads": uploads}) as front:
        await front.pull("alpha/beta")

    assert relay.counts["PUT", "upload"] > 3
    assert relay.most["PUT", "upload"] == uploads


async def told(front: Front, builds: int) -> None:
    """So many builds have started."""
    async with asyncio.timeout(30):
        while len(front.told(BuildStarted)) < builds:
            await asyncio.sleep(0.02)
