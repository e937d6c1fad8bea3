"""Real clients wait for a build that takes longer than their chain of redirects, and are killed while they wait.

The settings are scaled: a chain is over after 10 seconds instead of 200. What a client did is read from the
registry's log, which has a line for each of its hops: nixfront asks the registry first, in the client's own name.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.clients import SKOPEO_COPY, Ctr, Docker, Podman, containerd, dockerd, podman, skopeo_copy
from tests.support.processes import program, write
from tests.support.servers import Server, nixfront, stock_registry
from tests.support.wait import Gate, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

_CLIENTS = ("docker", "ctr", "podman", "skopeo")
_KINDS = ("long", "short")
_SCALED = {"patience": 1, "hop_seconds": 1, "hops": 9, "restart_seconds": 1, "hold_seconds": 120}


@dataclass(frozen=True, slots=True)
class Slow:
    """nixfront on packages whose builds wait at a gate, and the registry behind it."""

    proxy: Server
    registry: Server
    gates: Mapping[str, Gate]

    def asked(self, method: str, repository: str) -> int:
        """How often its client asked for `latest`; nixfront's own questions are left out."""
        line = f'"{method} /v2/{repository}/manifests/latest HTTP/1.1"'
        log = self.registry.process.log_text().splitlines()
        return sum(line in entry and "nixfront/" not in entry for entry in log)

    def builds(self, repository: str) -> int:
        """How many builds of it were begun."""
        return self._told("build started", repository)

    async def until(self, event: str, repository: str) -> None:
        """Wait until nixfront's log has this event of this image's build."""
        await until(lambda: self._told(event, repository))

    def _told(self, event: str, repository: str) -> int:
        whole, _, _ = self.proxy.process.log_text().rpartition("\n")  # it is being written
        lines = map(json.loads, whole.splitlines())
        return sum(line["event"] == event and line.get("image") == f"{repository}:latest" for line in lines)


@dataclass(frozen=True, slots=True)
class Clients:
    """One of each that keeps something."""

    docker: Docker
    ctr: Ctr
    podman: Podman

    async def pull(self, client: str, name: str) -> None:
        """Raises `AssertionError` if the client does not get it."""
        match client:
            case "docker":
                await self.docker.succeed("pull", name)
            case "ctr":
                await self.ctr.succeed("images", "pull", "--plain-http", f"{name}:latest")
            case "podman":
                await self.podman.succeed("pull", "--tls-verify=false", name)
            case _:
                await skopeo_copy(f"docker://{name}", f"dir:{self.podman.state / 'copy'}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def slow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slow]:
    folder = tmp_path_factory.mktemp("slow")
    packages = [f'{kind}-{client} = waits "{client}" "{kind}";' for kind in _KINDS for client in _CLIENTS]
    gates = {kind: Gate(folder / "gates" / kind) for kind in _KINDS}
    for gate in gates.values():
        await asyncio.to_thread(gate.folder.mkdir, parents=True)
    source = f"""
        {{ system }}:
        let waits = name: gate: derivation {{
          inherit name system;
          builder = "/bin/sh";
          args = [ "-c" "until [ -e /gates/${{gate}}/open ]; do sleep 0.1; done; mkdir $out; echo ${{name}} > $out/name" ];
          PATH = "/usr/bin:/bin";
        }};
        in {{ {" ".join(packages)} }}
    """
    await asyncio.to_thread(write, folder / "packages" / "default.nix", source)
    visible = f"/bin /usr /lib /lib64 /gates={folder}/gates"
    async with (
        stock_registry(folder / "registry") as registry,
        nixfront(
            folder,
            settings={
                "registry": {"url": registry.url},
                "packages": {"kind": "path", "path": str(folder / "packages")},
                "nix": {"store": str(folder / "store")},
                "builds": _SCALED,
                "log": {"level": "debug", "format": "json"},
            },
            env={"NIX_CONFIG": f"substituters =\nextra-sandbox-paths = {visible}\n"},
        ) as proxy,
    ):
        yield Slow(proxy, registry, gates)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clients(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clients]:
    folder = tmp_path_factory.mktemp("waiting")
    async with podman(folder / "podman") as pod, containerd(folder / "containerd") as ctr:
        yield Clients(docker, ctr, pod)


async def test_a_build_longer_than_the_chain_arrives(slow: Slow, clients: Clients) -> None:
    pulls = asyncio.gather(*(clients.pull(client, f"{slow.proxy.host}/long-{client}") for client in _CLIENTS))
    # Ten are a chain, whose last one is held; ctr starts over.
    least = {client: 12 if client == "ctr" else 10 for client in _CLIENTS}
    await until(
        lambda: (
            pulls.done() or all(slow.asked("GET", f"long-{client}") >= least[client] for client in _CLIENTS)
        )
    )
    slow.gates["long"].open()
    await pulls

    heads = {client: slow.asked("HEAD", f"long-{client}") for client in _CLIENTS}
    gets = {client: slow.asked("GET", f"long-{client}") for client in _CLIENTS}
    assert [slow.builds(f"long-{client}") for client in _CLIENTS] == [1] * 4
    assert heads == {"docker": 1, "ctr": 1, "podman": 0, "skopeo": 0}
    # Ten in a chain, and the answer itself asks the registry once more; ctr has started over.
    assert {client: gets[client] for client in _CLIENTS if client != "ctr"} == dict.fromkeys(
        ("docker", "podman", "skopeo"), 11
    )
    assert gets["ctr"] > 11


async def test_a_killed_client_does_not_stop_the_build(slow: Slow, clients: Clients, tmp_path: Path) -> None:
    name = f"{slow.proxy.host}/short-"
    commands = {
        "ctr": ("ctr", "-a", str(clients.ctr.socket), "images", "pull", "--plain-http", f"{name}ctr:latest"),
        "podman": (*clients.podman.argv, "pull", "--tls-verify=false", f"{name}podman"),
        "skopeo": (*SKOPEO_COPY, f"docker://{name}skopeo", f"dir:{tmp_path / 'killed'}"),
    }
    async with dockerd(tmp_path / "docker") as engine, contextlib.AsyncExitStack() as stack:
        commands["docker"] = ("docker", "-H", f"unix://{engine.socket}", "pull", f"{name}docker")
        started = {
            client: await stack.enter_async_context(_started(argv)) for client, argv in commands.items()
        }
        for client in _CLIENTS:
            await slow.until("build started", f"short-{client}")
            await until(lambda client=client: slow.asked("GET", f"short-{client}") >= 2)  # type: ignore[misc]
        for child in started.values():
            os.killpg(child.pid, signal.SIGKILL)
        os.kill(engine.pid, signal.SIGKILL)

    slow.gates["short"].open()
    for client in _CLIENTS:
        await slow.until("build done", f"short-{client}")
        await clients.pull(client, f"{name}{client}")
    assert [slow.builds(f"short-{client}") for client in _CLIENTS] == [1] * 4


@contextlib.asynccontextmanager
async def _started(argv: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in a process group of its own, which a test ends."""
    child = await asyncio.create_subprocess_exec(
        program(argv[0]),
        *argv[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        assert await child.wait() == -signal.SIGKILL
