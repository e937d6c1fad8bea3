"""One build for each tag, with everything in memory: flights, remembered failures, leases, turns, the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from typing_extensions import override

from proxy.builds import coordinator
from proxy.builds.coordinator import Coordinator
from proxy.core.errors import BuildFailed, NixUnavailable, Stopping
from proxy.core.events import BuildStarted
from proxy.core.model import OCI_MANIFEST
from proxy.pipeline.destination import MemoryDestination
from proxy.state import Failure
from proxy.tools.fair_queue import FairQueue
from tests.support.destinations import CONFIG, manifest
from tests.support.workshop import Workshop, request, workshop

KEY = "a:latest"


class Looks(MemoryDestination):
    """A destination that counts the questions for manifests."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    @override
    async def manifest_digest(self, repository: str, reference: str) -> str | None:
        self.looks += 1
        return await super().manifest_digest(repository, reference)


def machine(made: Workshop, name: str = "one", *, at_once: int = 4, lease_seconds: float = 60) -> Coordinator:
    """A machine that shares registry and state with the others, and here the pipeline too."""
    queue = FairQueue(at_once, share=at_once, most_waiting=9, waiting_share=9)
    return Coordinator(
        made.pipeline,
        made.destination,
        made.state,
        queue,
        machine=name,
        lease_seconds=lease_seconds,
        failure_seconds=60,
    )


@pytest_asyncio.fixture
async def registry() -> Looks:
    return Looks()


@pytest_asyncio.fixture
async def made(tmp_path: Path, registry: Looks, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workshop]:
    monkeypatch.setattr(coordinator, "_LOOK", 0.01)
    async with workshop(tmp_path, registry) as open_workshop:
        yield open_workshop


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def push(destination: MemoryDestination, repository: str, tag: str) -> None:
    """A person's image."""
    await destination.put_blob(repository, CONFIG)
    await destination.put_manifest(repository, tag, OCI_MANIFEST, manifest())


async def test_two_pulls_are_one_build_and_outlive_their_clients(made: Workshop, registry: Looks) -> None:
    builds = machine(made)
    made.contents.go.clear()
    pulls = [asyncio.create_task(builds.image(request("a"))) for _ in range(5)]
    await until(lambda: made.contents.opened)
    pulls[0].cancel()
    pulls[3].cancel()
    made.contents.go.set()
    ends = await asyncio.gather(*pulls, return_exceptions=True)

    assert [type(end) for end in ends] == [
        asyncio.CancelledError,
        type(None),
        type(None),
        asyncio.CancelledError,
        type(None),
    ]
    assert made.count(BuildStarted) == 1
    assert "latest" in registry.tags("a")
    await builds.close()


async def test_a_build_asks_the_registry_once_before_it_once_for_each_tag_and_again_for_the_last(
    made: Workshop, registry: Looks
) -> None:
    await machine(made).image(request("a"))

    assert registry.looks == 1 + len(registry.tags("a")) + 1 == 5


async def test_an_image_that_is_there_is_not_built(made: Workshop, registry: Looks) -> None:
    builds = machine(made)
    await push(registry, "a", "latest")

    assert not await builds.is_new(request("a"))
    await builds.image(request("a"))

    assert made.count(BuildStarted) == 0


async def test_a_failure_is_remembered_for_all_machines(made: Workshop, registry: Looks) -> None:
    made.contents.error = BuildFailed("building a failed")
    for name in ("one", "one", "two"):
        with pytest.raises(BuildFailed, match="building a failed"):
            await machine(made, name).image(request("a"))

    assert not await machine(made).is_new(request("a"))
    assert made.count(BuildStarted) == 1
    assert registry.looks == 1, "who meets a remembered failure asks nothing"


async def test_a_failure_that_may_pass_is_not_remembered(made: Workshop) -> None:
    builds = machine(made)
    made.contents.error = NixUnavailable("Nix does not answer")
    with pytest.raises(NixUnavailable):
        await builds.image(request("a"))
    made.contents.error = None

    await builds.image(request("a"))

    assert made.count(BuildStarted) == 2


async def test_a_build_that_is_new_is_looked_for_once(made: Workshop, registry: Looks) -> None:
    builds = machine(made)
    made.contents.go.clear()

    assert await builds.is_new(request("a"))
    pull = asyncio.create_task(builds.image(request("a"), is_absent=True))
    await until(lambda: made.contents.opened)
    assert not await builds.is_new(request("a")), "it is being built"
    assert registry.looks == 1
    made.contents.go.set()
    await pull

    assert not await builds.is_new(request("a"))


async def test_what_another_machine_builds_is_waited_for(made: Workshop, registry: Looks) -> None:
    assert await made.state.take(KEY, "other", 60)
    pull = asyncio.create_task(machine(made).image(request("a")))
    await until(lambda: registry.looks > 2)
    assert made.count(BuildStarted) == 0
    await push(registry, "a", "latest")
    await pull

    assert made.count(BuildStarted) == 0
    assert not await made.state.take(KEY, "one", 60), "the lease is still the other machine's"


async def test_the_failure_of_another_machine_ends_the_wait(made: Workshop, registry: Looks) -> None:
    assert await made.state.take(KEY, "other", 60)
    pull = asyncio.create_task(machine(made).image(request("a")))
    await until(lambda: registry.looks > 1)
    await made.state.record_failure(KEY, Failure("BuildFailed", "it failed there"), 60)

    with pytest.raises(BuildFailed, match="it failed there"):
        await pull


async def test_a_lease_that_nobody_prolongs_is_taken_over(made: Workshop, registry: Looks) -> None:
    assert await made.state.take(KEY, "dead", 0.05)

    await machine(made).image(request("a"))

    assert made.count(BuildStarted) == 1
    assert "latest" in registry.tags("a")
    assert await made.state.take(KEY, "two", 60), "the lease was given back"


async def test_a_lease_is_prolonged_while_a_build_runs(made: Workshop) -> None:
    made.contents.go.clear()
    pull = asyncio.create_task(machine(made, lease_seconds=0.3).image(request("a")))
    await until(lambda: made.contents.opened)
    takes: list[float] = []
    take = made.state.take

    async def watched(key: str, holder: str, seconds: float) -> bool:
        takes.append(seconds)
        return await take(key, holder, seconds)

    made.state.take = watched  # type: ignore[method-assign]
    await until(lambda: len(takes) >= 2)
    made.contents.go.set()
    await pull


async def test_who_waited_for_a_turn_looks_again(made: Workshop, registry: Looks) -> None:
    builds = machine(made, at_once=1)
    made.contents.go.clear()
    first = asyncio.create_task(builds.image(request("a")))
    await until(lambda: made.contents.opened)
    second = asyncio.create_task(builds.image(request("b")))
    await until(lambda: registry.looks == 2)
    await push(registry, "b", "latest")  # another machine did
    made.contents.go.set()
    await asyncio.gather(first, second)

    assert made.count(BuildStarted) == 1


async def test_a_build_that_waits_ends_with_its_last_client(made: Workshop, registry: Looks) -> None:
    builds = machine(made, at_once=1)
    made.contents.go.clear()
    first = asyncio.create_task(builds.image(request("a"), "one"))
    await until(lambda: made.contents.opened)
    waiting = [asyncio.create_task(builds.image(request("b"), client)) for client in ("one", "two")]
    await until(lambda: registry.looks == 2)
    waiting[0].cancel()
    await asyncio.sleep(0.01)
    assert not await builds.is_new(request("b")), "another client waits for it"
    waiting[1].cancel()
    await asyncio.sleep(0.01)
    assert await builds.is_new(request("b"))

    again = asyncio.create_task(builds.image(request("b"), "one"))
    made.contents.go.set()
    await asyncio.gather(first, again)
    assert made.count(BuildStarted) == 2


async def test_who_was_sent_away_to_come_again_keeps_its_place(
    made: Workshop, registry: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "_RETURN", 0.05)
    builds = machine(made, at_once=1)
    made.contents.go.clear()
    first = asyncio.create_task(builds.image(request("a"), "one"))
    await until(lambda: made.contents.opened)
    with builds.visit(request("b"), "two") as visit:
        waiting = asyncio.create_task(builds.image(request("b"), "two"))
        await until(lambda: registry.looks == 2)
        waiting.cancel()
        await asyncio.sleep(0.01)
        visit.returns = True

    assert not await builds.is_new(request("b"))
    await asyncio.sleep(0.1)
    assert await builds.is_new(request("b")), "it did not come in time"
    made.contents.go.set()
    await first


async def test_a_refresh_moves_the_tag_unless_another_machine_did(made: Workshop, registry: Looks) -> None:
    builds = machine(made)
    await builds.image(request("a"))
    before = registry.tags("a")["latest"]
    record = await made.state.recall_tag("a", "latest")
    assert record is not None
    made.contents.revision = "4567"
    await builds.refresh(request("a"), record)
    assert registry.tags("a")["latest"] != before

    stale = replace(record, checked=0.0)
    assert await made.state.take(f"refresh {KEY}", "other", 0.05)
    await builds.refresh(request("a"), stale)
    assert made.count(BuildStarted) == 2, "the record says that it was checked since"


async def test_drain_lets_builds_end_and_starts_none(made: Workshop, registry: Looks) -> None:
    builds = machine(made)
    made.contents.go.clear()
    pull = asyncio.create_task(builds.image(request("a")))
    await until(lambda: made.contents.opened)
    drain = asyncio.create_task(builds.drain(60))
    await asyncio.sleep(0)
    with pytest.raises(Stopping, match="starts no build"):
        await builds.image(request("b"))
    joined = asyncio.create_task(builds.image(request("a")))
    await asyncio.sleep(0)
    made.contents.go.set()
    await asyncio.gather(pull, joined, drain)

    assert "latest" in registry.tags("a")


async def test_drain_breaks_off_what_does_not_end(made: Workshop) -> None:
    builds = machine(made)
    made.contents.go.clear()
    pull = asyncio.create_task(builds.image(request("a")))
    await until(lambda: made.contents.opened)

    await builds.drain(0)

    with pytest.raises(Stopping, match="try again"):
        await pull
    assert await made.state.take(KEY, "two", 60), "the lease was given back"
