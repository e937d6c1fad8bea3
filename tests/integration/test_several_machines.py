"""Three processes, each with a store of its own, before one registry and one Redis: they behave as one."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from proxy.state import BuildRecord
from proxy.state import redis as state_redis
from tests.support.front import PACKAGES
from tests.support.processes import free_port, succeed, write
from tests.support.servers import FROM_CHECKOUT, Server, nixfront, redis
from tests.support.stored import stored_tags
from tests.support.validate import validate
from tests.support.wait import Gate, until

_LEASE = 2


@dataclass(frozen=True, slots=True)
class Farm:
    """The machines, and where they remember."""

    machines: list[Server]
    state: str

    async def pull(self, machine: int, name: str, tag: str = "latest") -> tuple[int, str]:
        """Status and reason of a manifest's GET; 0 where the connection broke."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
                session.get(f"{self.machines[machine].url}/v2/{name}/manifests/{tag}") as answer,
            ):
                await answer.read()
                return answer.status, answer.reason or ""
        except aiohttp.ClientError:
            return 0, ""

    async def board(self, machine: int, name: str) -> list[dict[str, Any]]:
        """What this machine shows of the builds of a repository."""
        document = json.loads(await self.read(machine, "/status.json"))
        return [build for build in document["builds"] if build["repository"] == name]

    async def states(self, machine: int, name: str, *states: str) -> bool:
        """Whether it shows builds in these states, and in no others."""
        return {build["state"] for build in await self.board(machine, name)} == {*states}

    async def read(self, machine: int, path: str) -> str:
        """A page of this machine."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.machines[machine].url + path) as answer,
        ):
            return await answer.text()

    async def builds(self, name: str) -> list[BuildRecord]:
        """What they remember of builds of this repository, oldest first."""
        async with state_redis.open_state(self.state) as state:
            return [build for build in reversed(await state.builds(100)) if build.repository == name]


@pytest_asyncio.fixture
async def farm(tmp_path: Path, registry: Server) -> AsyncIterator[Farm]:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    async with redis(tmp_path / "redis", port), contextlib.AsyncExitStack() as stack:
        yield Farm(await start(stack, tmp_path, registry, url, {"kind": "path", "path": str(PACKAGES)}), url)


async def start(
    stack: contextlib.AsyncExitStack,
    folder: Path,
    registry: Server,
    state: str,
    packages: dict[str, object],
    count: int = 3,
) -> list[Server]:
    """Machines that are started at the same time."""
    settings = [
        {
            "registry": {"url": registry.url},
            "state": {"url": state, "lease_seconds": _LEASE},
            "nix": {"store": str(folder / f"machine-{number}" / "store")},
            "packages": packages,
            "builds": {"grace_seconds": 0},
        }
        for number in range(count)
    ]
    servers = [
        nixfront(folder / f"machine-{number}", settings=settings[number], command=FROM_CHECKOUT)
        for number in range(count)
    ]
    return list(await asyncio.gather(*(stack.enter_async_context(server) for server in servers)))


async def test_sixty_pulls_are_one_build_and_a_failure_is_met_once(farm: Farm, registry: Server) -> None:
    answers = await asyncio.gather(*(farm.pull(number % 3, "slow") for number in range(60)))

    assert answers == [(200, "OK")] * 60
    assert len(await farm.builds("slow")) == 1
    await validate(registry.url, "slow", "latest")

    answers = [await farm.pull(machine, "broken") for machine in range(3)]
    # Each names its own page, where the log is.
    same = {(status, reason.partition(" its log: ")[0]) for status, reason in answers}
    assert len(same) == 1
    status, reason = same.pop()
    assert status == 404
    assert "building broken failed" in reason
    assert len(await farm.builds("broken")) == 1, "and one of them has met it"

    # What one has packed another one finds: a name in another order is a tag of its own, of the same layers.
    first, second = await farm.pull(0, "alpha/beta"), await farm.pull(1, "beta/alpha")
    assert (first[0], second[0]) == (200, 200)
    assert (
        len({build.machine for build in await farm.builds("alpha/beta") + await farm.builds("beta/alpha")})
        == 2
    )


async def test_each_machine_shows_the_builds_of_all(farm: Farm, gate: Gate) -> None:
    pull = asyncio.create_task(farm.pull(0, "gated"))
    builder = await asyncio.to_thread(name_of, farm.machines[0])
    await until(lambda: farm.board(1, "gated"))
    (build,) = await farm.board(1, "gated")
    assert (build["state"], build["machine"]) == ("running", builder)
    page = await farm.read(2, f"/builds/{build['id']}")
    assert "keeps its log" in page
    watching = asyncio.create_task(farm.read(2, f"/builds/{build['id']}/events"))
    gate.open()
    events = await watching
    assert (await pull)[0] == 200

    assert events.rstrip().endswith("data: made"), "who watches it elsewhere sees its end"
    assert "event: lines" not in events
    for machine in range(3):
        await until(lambda machine=machine: farm.states(machine, "gated", "made"))  # type: ignore[misc]
        (build,) = await farm.board(machine, "gated")
        assert build["machine"] == builder
        assert "gated" in await farm.read(machine, "/")
    assert "the log is on" in await farm.read(1, f"/builds/{build['id']}/log")
    assert "gated-1.0.drv" in await farm.read(0, f"/builds/{build['id']}/log")


async def test_without_redis_each_machine_shows_its_own_builds(tmp_path: Path, registry: Server) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    source: dict[str, object] = {"kind": "path", "path": str(PACKAGES)}
    async with redis(tmp_path / "redis", port) as memory, contextlib.AsyncExitStack() as stack:
        farm = Farm(await start(stack, tmp_path, registry, url, source, 2), url)
        assert (await farm.pull(0, "alpha"))[0] == 200
        async with asyncio.timeout(60):
            while [build["state"] for build in await farm.board(1, "alpha")] != ["made"]:
                await asyncio.sleep(0.1)

        os.kill(memory.process.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while await farm.board(1, "alpha"):
                await asyncio.sleep(0.1)
        assert [build["state"] for build in await farm.board(0, "alpha")] == ["made"]


async def test_when_the_builder_is_killed_another_one_goes_on(
    farm: Farm, registry: Server, gate: Gate
) -> None:
    pulls = [asyncio.create_task(farm.pull(number % 3, "gated")) for number in range(12)]
    await until(lambda: farm.builds("gated"))
    builds = await farm.builds("gated")
    ((killed, dead),) = [
        (number, machine)
        for number, machine in enumerate(farm.machines)
        if builds[0].machine == await asyncio.to_thread(name_of, machine)
    ]
    os.kill(dead.process.pid, signal.SIGKILL)
    gate.open()
    answers = await asyncio.gather(*pulls)

    for number, (status, _) in enumerate(answers):
        assert status == (0 if number % 3 == killed else 200), (
            "only those who asked the dead one are told nothing"
        )
    assert [build.machine == builds[0].machine for build in await farm.builds("gated")] == [True, False]
    # The dead one reports no more.
    await until(lambda: farm.states((killed + 1) % 3, "gated", "made", "failed"))
    await validate(registry.url, "gated", "latest")
    await stored_tags(registry.url)


async def test_they_agree_on_what_a_branch_is(tmp_path: Path, registry: Server) -> None:
    packages = tmp_path / "git"

    async def commit(text: str) -> None:
        write(
            packages / "default.nix",
            f"""{{ system }}: {{ tool = derivation {{
                inherit system; name = "tool-{text}"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
                args = [ "-euc" "mkdir -p $out/bin; echo {text} > $out/bin/tool; chmod +x $out/bin/tool" ];
            }}; }}""",
        )
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        await succeed(("git", "-C", str(packages), "add", "."))
        await succeed(("git", *who, "-C", str(packages), "commit", "-qm", text))

    await succeed(("git", "init", "-q", "-b", "main", str(packages)))
    await commit("one")
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    source: dict[str, object] = {"kind": "git", "url": f"file://{packages}", "ref": "main"}
    async with redis(tmp_path / "redis", port), contextlib.AsyncExitStack() as stack:
        farm = Farm(await start(stack, tmp_path, registry, url, source, 2), url)
        assert (await farm.pull(0, "tool"))[0] == 200
        await commit("two")
        assert (await farm.pull(1, "tool", "main"))[0] == 200
        found = {stored.tag: stored.digest for stored in await stored_tags(registry.url)}

    assert found["main"] == found["latest"], "until the time to live is over"


def name_of(machine: Server) -> str:
    """The name by which a machine holds leases."""
    return (machine.process.log.parent / "data" / "machine").read_text().strip()
