"""What one host does at once is bounded, and who is sent away is told so in the words of their client."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from proxy.core.events import BuildStarted
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import Held, Rule, shim
from tests.support.wait import Gate, until

Start = Callable[..., AbstractAsyncContextManager[Front]]
SKOPEO = {"User-Agent": "skopeo/1.9.3"}
DOCKER = {"User-Agent": "docker/20.10.24 go/go1.19.8 UpstreamClient(Docker-Client/20.10.24 (linux))"}


async def test_past_the_queue_a_client_is_told_in_its_own_words(
    start: Start, registry: Server, gate: Gate
) -> None:
    async with start(registry.url, builds={"at_once": 1, "share": 1, "queue": 1}) as front:
        running = asyncio.create_task(front.get("/v2/gated/manifests/latest"))
        await until(lambda: front.told(BuildStarted))
        waiting = asyncio.create_task(front.get("/v2/alpha/manifests/latest"))
        await until(lambda: one_waits(front))

        status, headers, body = await front.get("/v2/hello/manifests/latest", headers=SKOPEO)
        deaf, _, _ = await front.get("/v2/hello/manifests/latest", headers=DOCKER)
        joining = asyncio.create_task(front.get("/v2/alpha/manifests/latest"))
        await front.get("/v2/")
        gate.open()
        joined, _, _ = await joining
        later, _, _ = await front.get("/v2/hello/manifests/latest")

        assert (status, headers["Retry-After"]) == (429, "30")
        assert b"1 builds waiting already (builds.queue)" in body
        assert deaf == 503
        assert joined == 200, "who asks for what waits already is not one more"
        assert later == 200
        assert ((await running)[0], (await waiting)[0]) == (200, 200)
        assert [event.repository for event in front.told(BuildStarted)] == ["gated", "alpha", "hello"]


async def test_warm_pulls_do_not_wait_for_builds(start: Start, registry: Server, gate: Gate) -> None:
    async with start(registry.url, builds={"at_once": 1, "share": 1, "queue": 0}) as front:
        await front.pull("hello")
        running = asyncio.create_task(front.get("/v2/gated/manifests/latest"))
        await until(lambda: len(front.told(BuildStarted)) == 2)

        await front.pull("hello")
        assert not running.done()
        gate.open()
        assert (await running)[0] == 200


@pytest.mark.parametrize("at_once", [1, 3])
async def test_builds_at_once_are_bounded(start: Start, registry: Server, at_once: int, gate: Gate) -> None:
    names = ["alpha", "beta", "hello", "several"]
    async with start(registry.url, builds={"at_once": at_once, "share": at_once}) as front:
        pulls = asyncio.gather(*(front.get(f"/v2/gated/{name}/manifests/latest") for name in names))
        await until(lambda: len(front.told(BuildStarted)) == at_once)
        gate.open()
        answers = await pulls

        running = most = 0
        for event in front.events:
            if type(event).__name__ in ("BuildStarted", "BuildEnded"):
                running += 1 if isinstance(event, BuildStarted) else -1
                most = max(most, running)
    assert {answer[0] for answer in answers} == {200}
    assert most == at_once


@pytest.mark.parametrize("uploads", [1, 3])
async def test_uploads_at_once_are_bounded(start: Start, registry: Server, uploads: int) -> None:
    held = Held()
    rule = Rule("PUT", r"/blobs/uploads/", held, times=100)
    async with shim(registry.url, rule) as relay, start(relay.url, layers={"uploads": uploads}) as front:
        pull = asyncio.create_task(front.pull("alpha/beta"))
        await until(lambda: relay.held == uploads)
        await asyncio.sleep(0.3)  # for one too many, which does not come
        held.go.set()
        await pull

    assert relay.counts["PUT", "upload"] > 3
    assert relay.most["PUT", "upload"] == uploads


async def one_waits(front: Front) -> bool:
    """Whether one build waits for its turn."""
    return b"\nnixfront_builds_waiting 1.0\n" in (await front.get("/metrics"))[2]
