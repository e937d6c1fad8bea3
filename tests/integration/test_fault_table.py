"""What breaks, what the client gets, what the log says, and that it recovers by itself: one row each, all of it real.

Faults of the wire alone (a status, a cut, a wrong digest) are in test_faults; full disks in e2e/test_full_disks, as
they need root; connections in test_door; kills of nixfront itself in test_killed.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from proxy.core.events import BuildEnded, BuildStarted
from tests.support.front import PACKAGES, Front
from tests.support.processes import free_port
from tests.support.servers import Server, stock_registry
from tests.support.stored import stored_tags
from tests.support.wait import Gate, until

Start = Callable[..., AbstractAsyncContextManager[Front]]
Settings = Mapping[str, Mapping[str, object]]


@dataclass
class World:
    """What a fault can break: a registry that is started and killed by hand, a package set, a store."""

    folder: Path
    port: int = field(default_factory=free_port)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    server: Server | None = None

    @property
    def registry(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def packages(self) -> Path:
        return self.folder / "set"

    async def start_registry(self) -> None:
        self.server = await self.stack.enter_async_context(
            stock_registry(self.folder / "registry", port=self.port)
        )

    async def kill_registry(self) -> None:
        assert self.server is not None
        process = Path(f"/proc/{self.server.process.pid}")
        os.kill(self.server.process.pid, signal.SIGKILL)
        await until(lambda: not process.exists())


Breaks = Callable[[World, Front], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Row:
    """While `breaks` lasts, a pull of `package` is answered `status`, and its reason holds `told`.

    The log holds that too, or `logged`: what a build met is its line there.
    """

    breaks: Breaks
    package: str
    status: int
    told: str = ""
    settings: Settings = field(default_factory=dict)
    logged: str = ""


@contextlib.asynccontextmanager
async def registry_is_down(world: World, _: Front) -> AsyncIterator[None]:
    await world.kill_registry()
    yield
    await world.start_registry()


@contextlib.asynccontextmanager
async def registry_restarts_in_mid_build(world: World, front: Front) -> AsyncIterator[None]:
    async def restart() -> None:
        await until(lambda: front.told(BuildStarted))
        await world.kill_registry()
        await world.start_registry()
        Gate(world.folder / "gate").open()

    restarting = asyncio.create_task(restart())
    yield
    await restarting


@contextlib.asynccontextmanager
async def daemon_is_down(world: World, _: Front) -> AsyncIterator[None]:
    # The programs that nixfront finds speak to a daemon's socket on which nobody listens.
    for program in ("nix", "nix-instantiate", "nix-store"):
        wrapper = world.folder / "programs" / program
        text = wrapper.read_text(encoding="ascii")
        wrapper.rename(wrapper.with_suffix(".whole"))
        broken = text.replace("exec ", f"NIX_REMOTE=unix://{world.folder}/no-socket exec ")
        wrapper.write_text(broken, encoding="ascii")
        wrapper.chmod(0o755)
    yield
    for program in ("nix", "nix-instantiate", "nix-store"):
        wrapper = world.folder / "programs" / program
        wrapper.with_suffix(".whole").rename(wrapper)


@contextlib.asynccontextmanager
async def nix_is_missing(world: World, _: Front) -> AsyncIterator[None]:
    path = os.environ["PATH"]
    empty = world.folder / "no-nix"
    empty.mkdir()
    for program in ("setpriv", "prlimit"):
        if found := shutil.which(program):
            (empty / program).symlink_to(found)
    os.environ["PATH"] = str(empty)
    yield
    os.environ["PATH"] = path


@contextlib.asynccontextmanager
async def package_is(world: World, script: str) -> AsyncIterator[None]:
    """The set's one package is built like that, until it is mended."""
    whole = (world.packages / "default.nix").read_text(encoding="utf-8")
    (world.packages / "default.nix").write_text(script, encoding="utf-8")
    yield
    (world.packages / "default.nix").write_text(whole, encoding="utf-8")


def built_by(shell: str) -> Breaks:
    """`hello` is built so."""
    return lambda world, _: package_is(
        world,
        f"""{{ system }}: {{ hello = derivation {{
            inherit system; name = "hello-2.0"; builder = "/bin/sh"; args = [ "-euc" ''{shell}'' ]; PATH = "/usr/bin:/bin";
        }}; }}""",
    )


def evaluated_by(expression: str) -> Breaks:
    """`hello` is what comes of this."""
    return lambda world, _: package_is(world, f"{{ system }}: {{ hello = {expression}; }}")


ROWS = {
    "the registry is down": Row(
        registry_is_down,
        "hello",
        503,
        "the registry behind nixfront does not answer",
        logged="the registry does not answer path=/v2/hello/manifests/latest",
    ),
    "the registry restarts in the middle of a build": Row(registry_restarts_in_mid_build, "gated", 200),
    "Nix is missing": Row(
        nix_is_missing, "hello", 503, "could not be started .* is Nix installed on this host"
    ),
    "Nix's daemon is down": Row(daemon_is_down, "hello", 503, "Nix's daemon does not answer: error: cannot"),
    "a builder logs without end": Row(
        built_by("yes this is what it says | head -c 1000000000 >&2; mkdir $out"),
        "hello",
        404,
        "building hello failed: .*killed after writing more than 3000000 bytes of log output",
        {"nix": {"log_bytes": 3_000_000}},
    ),
    "a builder never ends": Row(
        built_by("echo still at it >&2; sleep 600"),
        "hello",
        404,
        "building hello took longer than 2 s; its log ends: .*still at it",
        {"nix": {"build_deadline": 2.0}},
    ),
    "an evaluation never ends": Row(
        evaluated_by("let count = n: if n < 0 then n else count (n + 1); in count 0"),
        "hello",
        404,
        "(evaluating hello took longer than 1 s|stack overflow|possible infinite recursion)",
        {"nix": {"evaluation_deadline": 1.0}},
    ),
    "an evaluation eats memory": Row(
        evaluated_by("builtins.foldl' (all: n: all ++ [ n all ]) [ ] (builtins.genList (n: n) 100000)"),
        "hello",
        404,
        "Nix cannot evaluate hello",
        {"nix": {"evaluation_memory": 600_000_000}},
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_a_fault(start: Start, tmp_path: Path, row: Row, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    await asyncio.to_thread(shutil.copytree, PACKAGES, world.packages)
    async with world.stack:
        await world.start_registry()
        settings = {
            **row.settings,
            "packages": {"path": str(world.packages), "time_to_live": 0},
            "builds": {"failure_seconds": 0},
        }
        async with start(world.registry, **settings) as front:
            async with row.breaks(world, front):
                status, reason, body = await pull(front, row.package)
                left = await stored_tags(world.registry) if status != 503 else []

            assert status == row.status, reason
            assert re.search(row.told, reason), reason
            if status != 200:
                assert left == [], "nothing half-made is there"
                said = caplog.text + "".join(event.error for event in front.told(BuildEnded))
                assert re.search(row.logged or row.told, said.replace("\n", " "))
                assert re.search(row.told, body.replace("\\n", " ")), "docker shows the message of a 404"

            image = await front.pull(row.package)
            assert image.digest, "it recovers by itself"
            assert not front.told(BuildEnded)[-1].error
        await stored_tags(world.registry)


async def pull(front: Front, name: str) -> tuple[int, str, str]:
    """Status, reason and body of a manifest's GET."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{front.url}/v2/{name}/manifests/latest") as answer,
    ):
        return answer.status, answer.reason or "", await answer.text()
