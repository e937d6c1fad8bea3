"""What one host does at once is bounded, and who is sent away is told so in the words of their client."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from proxy.core.events import BuildEnded, BuildStarted
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import Held, Rule, shim
from tests.support.wait import Gate, until

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
SKOPEO = {"User-Agent": "skopeo/1.9.3"}
DOCKER = {"User-Agent": "docker/20.10.24 go/go1.19.8 UpstreamClient(Docker-Client/20.10.24 (linux))"}


async def test_past_the_queue_a_client_is_told_in_its_own_words(
    start: Start, registry: Server, gate: Gate
) -> None:
    async with start(registry.url, builds={"at_once": 1, "share": 1, "queue": 1}) as front:
        running = asyncio.create_task(front.get("/v2/gated/manifests/latest"))
        await until(lambda: front.told(BuildStarted))
        second = asyncio.create_task(front.get("/v2/alpha/manifests/latest"))
        await until(lambda: waiting(front, 1))

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
        assert ((await running)[0], (await second)[0]) == (200, 200)
        assert [event.repository for event in front.told(BuildStarted)] == ["gated", "alpha", "hello"]


ORDERS = ["/".join(order) for order in itertools.permutations(("alpha", "beta", "hello", "several", "twice"))]
BEHIND_A_SERVER = {"trusted_proxies": ("127.0.0.1",)}
ONE_TURN_EACH = {"at_once": 2, "share": 1}


def attack(front: Front, path: str, address: str) -> asyncio.Task[tuple[int, dict[str, str], bytes]]:
    return asyncio.create_task(front.get(path, headers={"X-Forwarded-For": address}))


def sent_away(crowd: list[asyncio.Task[tuple[int, dict[str, str], bytes]]]) -> int:
    return sum(task.done() and task.result()[0] == 429 for task in crowd)


@pytest.mark.parametrize(
    "addresses",
    [("192.0.2.1", "192.0.2.2"), ("2001:db8::{}", "2001:db8:1::{}")],
    ids=["two addresses", "two networks"],
)
async def test_two_clients_that_ask_for_very_much_leave_room_for_a_third(
    start: Start, registry: Server, gate: Gate, addresses: tuple[str, str]
) -> None:
    """120 requests fill the queue of 100 and both turns, and their clients stay."""
    async with start(registry.url, http=BEHIND_A_SERVER, builds=ONE_TURN_EACH) as front:
        crowd = [
            attack(front, f"/v2/gated/{order}/manifests/latest", addresses[number % 2].format(number + 1))
            for number, order in enumerate(ORDERS)
        ]
        await until(lambda: waiting(front, 100))
        await until(lambda: sent_away(crowd) == 18)
        third = attack(front, "/v2/hello/manifests/latest", "198.51.100.1")
        await until(lambda: sent_away(crowd) == 19)  # the third one has the place
        refused = await attack(front, "/v2/alpha/manifests/latest", addresses[0].format(999))
        gate.open()
        served = await third
        turns = [event.repository for event in front.told(BuildStarted)].index("hello")
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    assert served[0] == 200
    # Two builds ran, and both may end at the same moment: then nobody can say whose successor starts first.
    assert turns in (2, 3), "one of the first two turns that ended was its own"
    assert refused[0] == 429


async def test_clients_that_went_away_keep_no_place(start: Start, registry: Server, gate: Gate) -> None:
    """What has begun goes on without them, and what waited is as if nobody had asked."""
    async with start(registry.url, http=BEHIND_A_SERVER, builds=ONE_TURN_EACH) as front:
        crowd = [
            attack(front, f"/v2/gated/{order}/manifests/latest", f"192.0.2.{number % 2}")
            for number, order in enumerate(ORDERS)
        ]
        await until(lambda: waiting(front, 100))
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        await until(lambda: waiting(front, 0))
        third = attack(front, "/v2/hello/manifests/latest", "198.51.100.1")
        await until(lambda: waiting(front, 1))
        gate.open()
        served = await third
        await until(lambda: len(front.told(BuildEnded)) == 3)

    assert served[0] == 200
    assert all(event.digest for event in front.told(BuildEnded))
    assert len(front.told(BuildStarted)) == 3


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
@pytest.mark.without_documents("it counts the uploads of an image")
async def test_uploads_at_once_are_bounded(start: Start, registry: Server, uploads: int) -> None:
    held = Held()
    rule = Rule("PUT", r"/blobs/uploads/", held, times=100)
    async with shim(registry.url, rule) as relay, start(relay.url, layers={"uploads": uploads}) as front:
        pull = asyncio.create_task(front.pull("alpha/beta"))
        await until(lambda: relay.held == uploads)
        await asyncio.sleep(0.3)  # for one too many, which does not come
        at_once = relay.held
        held.go.set()
        await pull

    assert relay.counts["PUT", "upload"] > 3
    assert at_once == uploads


async def waiting(front: Front, builds: int) -> bool:
    """Whether so many builds wait for their turn."""
    return b"\nnixfront_builds_waiting %d.0\n" % builds in (await front.get("/metrics"))[2]
