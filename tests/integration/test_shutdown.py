"""SIGTERM to a real process: no new build, what runs may end, what cannot is gone on with later."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp

from tests.support.front import PACKAGES
from tests.support.servers import FROM_CHECKOUT, Server, nixfront
from tests.support.validate import validate
from tests.support.wait import PATIENCE, Gate, until


def settings(folder: Path, registry: Server, grace: float) -> dict[str, object]:
    return {
        "registry": {"url": registry.url},
        "nix": {"store": str(folder / "store")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "builds": {"grace_seconds": grace},
        "log": {"level": "debug"},
    }


async def ask(server: Server, name: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/v2/{name}/manifests/latest") as answer,
    ):
        await answer.read()
        return answer.status, answer.reason or ""


async def until_log(server: Server, text: str) -> None:
    await until(lambda: text in server.process.log_text())


async def gone(pid: int) -> None:
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_what_runs_may_end_and_nothing_new_starts(tmp_path: Path, registry: Server, gate: Gate) -> None:
    async with nixfront(
        tmp_path, settings=settings(tmp_path, registry, PATIENCE), command=FROM_CHECKOUT
    ) as server:
        running = asyncio.create_task(ask(server, "gated"))
        await until_log(server, "build started")
        os.kill(server.process.pid, signal.SIGTERM)
        await until_log(server, "stopping, waiting for builds=1")

        joined = asyncio.create_task(ask(server, "gated"))
        status, reason = await ask(server, "hello")
        gate.open()
        assert (status, reason) == (
            503,
            "nixfront is being stopped and starts no build; try again in a moment",
        )
        assert (await running)[0] == 200
        assert (await joined)[0] == 200
        await gone(server.process.pid)
        log = server.process.log_text()

    assert "Traceback" not in log
    await validate(registry.url, "gated", "latest")


async def test_what_does_not_end_in_time_is_gone_on_with_by_the_next_one(
    tmp_path: Path, registry: Server, gate: Gate
) -> None:
    async with nixfront(
        tmp_path, settings=settings(tmp_path, registry, 0.3), command=FROM_CHECKOUT
    ) as server:
        await ask(server, "hello")  # a Nix that is killed while it makes its store leaves a corrupt one
        running = asyncio.create_task(ask(server, "gated"))
        await until_log(server, "build started image=gated")
        os.kill(server.process.pid, signal.SIGTERM)

        status, reason = await running
        assert (status, reason) == (
            503,
            "nixfront is being stopped; what was built so far is kept, try again",
        )
        await gone(server.process.pid)
        log = server.process.log_text()
    gate.open()
    async with nixfront(
        tmp_path, settings=settings(tmp_path, registry, 0.3), command=FROM_CHECKOUT
    ) as server:
        await validate(server.url, "gated", "latest")

    assert "build broken off, the next pull goes on with it image=gated:latest" in log
    assert "Traceback" not in log
