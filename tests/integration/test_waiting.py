"""Clients that wait for a build, as they themselves see it: hops, joins, failures in the middle, and the end."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import monotonic, thread_time
from typing import Any

import aiohttp
from yarl import URL

from proxy.core.events import BuildEnded, BuildStarted, LogLine, NixBegun
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.wait import Gate, at_redirect, until

Start = Callable[..., AbstractAsyncContextManager[Front]]

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
CTR = {
    "User-Agent": "containerd/1.6.20",
    "Accept": f"{DOCKER}, application/vnd.oci.image.manifest.v1+json, */*",
}
OTHER = {"User-Agent": "skopeo/1.9.3", "Accept": DOCKER}
#: A build that waits at the gate is longer than any of these.
SCALED: dict[str, object] = {
    "patience": 0.3,
    "hop_seconds": 0.3,
    "hops": 3,
    "restart_seconds": 0.3,
    "hold_seconds": 600,
}
PATH = "/v2/gated/manifests/latest"


async def get(front: Front, path: str, headers: dict[str, str] = OTHER, *traces: aiohttp.TraceConfig) -> Any:
    """(status, the answers that led there, reason, body), redirects followed as clients do."""
    async with (
        aiohttp.ClientSession(
            headers=headers, requote_redirect_url=False, trace_configs=[*traces]
        ) as session,
        session.get(URL(front.url + path, encoded=True)) as answer,
    ):
        return answer.status, answer.history, answer.reason, await answer.read()


async def test_a_chain_of_redirects_leads_to_the_image(start: Start, registry: Server, gate: Gate) -> None:
    async with start(registry.url, builds=SCALED) as front:
        third = at_redirect(3, gate.open)
        status, history, _, body = await get(front, f"{PATH}?a=%2F&b", OTHER, third)

        assert len(front.told(BuildStarted)) == 1
        assert (await get(front, PATH))[1:2] == ((),), "it is there: no redirect any more"
    assert status == 200
    assert json.loads(body)["mediaType"] == DOCKER
    assert [answer.status for answer in history] == [307] * 3
    assert [answer.headers["Location"] for answer in history] == [f"?a=%2F&b&wait={hop}" for hop in (1, 2, 3)]
    assert {answer.headers["Content-Length"] for answer in history} == {"18"}
    assert "wait=" not in registry.process.log_text()


async def test_a_head_is_told_to_ask_with_get(start: Start, registry: Server, gate: Gate) -> None:
    async with start(registry.url, builds=SCALED) as front:
        began = monotonic()
        status, headers, _ = await front.get(PATH, "HEAD", headers=CTR)
        waited = monotonic() - began
        assert not front.told(BuildEnded)
        gate.open()
        found = await get(front, PATH)
        after = await front.get(PATH, "HEAD", headers=CTR)

        assert len(front.told(BuildStarted)) == 1
    assert (status, headers["Allow"]) == (405, "GET")
    assert waited >= 0.3
    assert found[0] == 200
    assert after[0] == 200
    assert after[1]["Content-Length"] == str(len(found[3]))


async def test_a_build_that_ends_in_time_is_simply_answered(start: Start, registry: Server) -> None:
    async with start(registry.url, builds={"patience": 60, "hop_seconds": 60}) as front:
        head, got = await asyncio.gather(
            front.get("/v2/hello/manifests/latest", "HEAD", headers=OTHER),
            get(front, "/v2/alpha/manifests/latest"),
        )

    assert head[0] == 200
    assert (got[0], got[1]) == (200, ())


async def test_who_starts_over_and_who_is_held(start: Start, registry: Server, gate: Gate) -> None:
    async with start(registry.url, builds=SCALED) as front:
        holding = asyncio.create_task(get(front, PATH))
        first = await get(front, PATH, CTR)
        gate.open()
        other = await holding
        tries = 1
        while first[0] == 408:
            assert "still being made after" in first[2]
            first = await get(front, PATH, CTR)
            tries += 1

        assert len(front.told(BuildStarted)) == 1
        assert len([event for event in front.told(NixBegun) if event.part == "building"]) == 1
    assert tries > 1
    assert (first[0], other[0]) == (200, 200)
    assert first[3] == other[3]


async def test_at_the_very_end_it_says_how_far_it_is_and_the_next_try_joins(
    start: Start, registry: Server, gate: Gate
) -> None:
    async with start(registry.url, builds={**SCALED, "hops": 1, "hold_seconds": 0.3}) as front:
        first = asyncio.create_task(get(front, PATH))
        await until(lambda: [event for event in front.told(LogLine) if event.line.startswith("building")])
        await first
        status, history, reason, body = await get(front, PATH)
        _, _, place = reason.partition("; pull again to go on waiting; its log: ")
        page = await get(front, place.removeprefix(front.url))
        gate.open()
        again = await get(front, PATH)
        while again[0] == 503:
            again = await get(front, PATH)

        assert len(front.told(BuildStarted)) == 1
    assert (status, len(history)) == (503, 1)
    assert json.loads(body)["errors"][0]["message"] == reason
    assert re.match(r"still being made after \d+ s \(building: building '/nix/store/", reason)
    assert page[0] == 200, "where the log is said to be"
    assert b">Build of gated</h1>" in page[3]
    assert again[0] == 200


async def test_who_waits_for_a_turn_is_told_so(start: Start, registry: Server, gate: Gate) -> None:
    hurried = {**SCALED, "hops": 0, "hold_seconds": 0.3, "at_once": 1}
    async with start(registry.url, builds=hurried) as front:
        first = asyncio.create_task(get(front, PATH))
        await until(lambda: front.told(BuildStarted))
        status, _, reason, _ = await get(front, "/v2/hello/manifests/latest")
        gate.open()
        await first

    assert status == 503
    assert reason.startswith("waiting for its turn, or being made by another machine; pull again")


async def test_without_hops_all_are_held(start: Start, registry: Server, gate: Gate) -> None:
    async with start(registry.url, builds={**SCALED, "hops": 0, "restart_agents": ()}) as front:
        waiting = asyncio.gather(front.get(PATH, "HEAD", headers=CTR), front.get(PATH, "GET", headers=CTR))
        await until(lambda: front.told(BuildStarted))
        await asyncio.sleep(1)  # longer than all but `hold_seconds`
        gate.open()
        head, got = await waiting

    assert (head[0], got[0]) == (200, 200)


async def test_a_failure_in_mid_chain_reaches_everybody_with_its_message(
    start: Start, registry: Server, gate: Gate
) -> None:
    path = "/v2/failsgated/manifests/latest"
    redirected: set[str] = set()
    async with start(registry.url, builds={**SCALED, "hops": 9, "restart_seconds": 600}) as front:
        ctr = at_redirect(1, lambda: redirected.add("ctr"))
        other = at_redirect(1, lambda: redirected.add("other"))
        waiting = asyncio.gather(get(front, path, CTR, ctr), get(front, path, OTHER, other))
        head = await front.get(path, "HEAD", headers=CTR)
        await until(lambda: len(redirected) == 2)
        gate.open()
        got = await waiting

        assert len(front.told(BuildStarted)) == 1
    assert head[0] == 405
    assert [status for status, *_ in got] == [403, 404], "containerd prints nothing of a 404"
    for _, history, reason, body in got:
        (error,) = json.loads(body)["errors"]
        assert history
        assert "this is how it failed" in error["message"]
        assert reason.startswith("building failsgated failed")


async def test_at_its_deadline_a_build_fails_for_all_with_the_end_of_its_log(
    start: Start, registry: Server
) -> None:
    path = "/v2/endless/manifests/latest"
    async with start(registry.url, builds=SCALED, nix={"build_deadline": 2}) as front:
        answers = await asyncio.gather(get(front, path), get(front, path), get(front, path, CTR))

        assert len(front.told(BuildStarted)) == 1
        (ended,) = front.told(BuildEnded)
    assert "longer than 2 s" in ended.error
    for status, _, _, body in answers:
        if status != 408:  # that client comes again, and hears it then
            assert status in (403, 404)
            assert "this is how far it came" in json.loads(body)["errors"][0]["message"]


async def test_the_ping_answers_at_once_while_nix_evaluates_and_builds_and_layers_are_packed(
    start: Start, registry: Server
) -> None:
    async with start(registry.url, builds=SCALED) as front:
        pull = asyncio.create_task(front.pull("thinking/large"))
        longest, pings = 0.0, 0
        while not pull.done():
            began = thread_time()
            assert (await front.get("/v2/"))[0] == 200
            longest, pings = max(longest, thread_time() - began), pings + 1
            await asyncio.sleep(0.01)
        await pull

    assert pings > 20
    assert longest < 1, "seconds of a processor that the loop took; what else stops it raises BlockingError"
