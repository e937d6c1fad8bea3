"""dockerd, containerd and podman with nixfront before docker.io, set up by the very files in deploy/mirror.

What is ours comes from nixfront as docker.io/library/NAME, and by way of 405 and 307, as it builds for longer than
the scaled settings are patient. For everything else the engine goes on: to a second registry that stands for docker.io,
and dockerd, which can be told of no other, to docker.io itself, behind a proxy that is not there.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.clients import containerd, dockerd, podman
from tests.support.front import PACKAGES
from tests.support.handmade import image, push, store_layers, tar
from tests.support.paths import CountedNix, counted_nix
from tests.support.processes import free_port, run, write
from tests.support.servers import Server, nixfront, stock_registry

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

_SAMPLES = Path(__file__).parents[2] / "deploy" / "mirror"
_NOBODY = "http://127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Mirror:
    """nixfront with its address for mirror clients, and the registry that stands for docker.io."""

    proxy: Server
    addr: str
    docker_io: Server
    nix: CountedNix

    def sample(self, name: str, **replaced: str) -> str:
        """A file of deploy/mirror, with these addresses instead of its own."""
        text = (_SAMPLES / name).read_text(encoding="ascii")
        for old, new in {
            "nixfront.example.org:8080": self.proxy.host,
            "nixfront.example.org:8081": self.addr,
            **replaced,
        }.items():
            text = text.replace(old, new)
        return text

    def answers(self, path: str) -> list[dict[str, Any]]:
        """What nixfront's log says of the requests whose path begins so."""
        lines = map(json.loads, self.proxy.process.log_text().splitlines())
        return [line for line in lines if str(line.get("path", "")).startswith(path)]

    def statuses(self, name: str) -> set[int]:
        """What was answered for manifests of docker.io/library/NAME."""
        return {line["status"] for line in self.answers(f"/v2/library/{name}/manifests/")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mirror(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mirror]:
    folder = tmp_path_factory.mktemp("mirror")
    nix = counted_nix(folder / "bin")
    addr = f"127.0.0.1:{free_port()}"
    settings = {
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "nix": {"store": str(folder / "store")},
        "builds": {"patience": 0.3, "hop_seconds": 0.5},
        "mirror": {"addr": addr, "allow": ["slow*"]},
        "http": {"names": ["nix.local"]},
        "log": {"format": "json"},
    }
    env = {"PATH": nix.path, "NIX_CONFIG": "substituters =\nextra-sandbox-paths = /bin /usr /lib /lib64\n"}
    async with (
        stock_registry(folder / "registry") as registry,
        stock_registry(folder / "docker.io") as docker_io,
        nixfront(folder, settings={**settings, "registry": {"url": registry.url}}, env=env) as proxy,
    ):
        tars = [tar(entries) for entries in store_layers()]
        await push(docker_io.url, "library/hello", "latest", image(tars))
        yield Mirror(proxy, addr, docker_io, nix)


async def test_docker(mirror: Mirror, tmp_path: Path) -> None:
    config = await asyncio.to_thread(write, tmp_path / "daemon.json", mirror.sample("daemon.json"))
    env = {**os.environ, "HTTPS_PROXY": _NOBODY}
    async with dockerd(tmp_path / "docker", f"--config-file={config}", env=env) as docker:
        await docker.succeed("pull", "slow")
        starts = mirror.nix.starts()
        other = await docker("pull", "hello")

    assert mirror.statuses("slow") == {405, 307, 200}
    assert mirror.statuses("hello") == {404}
    assert mirror.nix.starts() == starts
    assert other.returncode != 0
    assert "https://registry-1.docker.io/" in other.output, "it went on, and shows that error alone"


async def test_containerd(mirror: Mirror, tmp_path: Path) -> None:
    hosts = mirror.sample("hosts.toml", **{"https://registry-1.docker.io": mirror.docker_io.url})
    await asyncio.to_thread(write, tmp_path / "certs.d" / "docker.io" / "hosts.toml", hosts)
    pull = ("images", "pull", "--hosts-dir", str(tmp_path / "certs.d"))
    async with containerd(tmp_path / "containerd") as ctr:
        await ctr.succeed(*pull, "docker.io/library/slowctr:latest")
        starts = mirror.nix.starts()
        await ctr.succeed(*pull, "docker.io/library/hello:latest")

    assert mirror.statuses("slowctr") == {405, 307, 200}
    assert mirror.statuses("hello") == {404}
    assert mirror.nix.starts() == starts


async def test_an_alias_in_containerd_is_nixfront_itself(mirror: Mirror, tmp_path: Path) -> None:
    """What the mirror does not serve can be built, and pushed."""
    hosts = f'server = "{mirror.proxy.url}"\n[host."{mirror.proxy.url}"]\ncapabilities = ["pull", "resolve", "push"]\n'
    await asyncio.to_thread(write, tmp_path / "certs.d" / "nix.local" / "hosts.toml", hosts)
    at_alias = ("--hosts-dir", str(tmp_path / "certs.d"))
    async with containerd(tmp_path / "containerd") as ctr:
        await ctr.succeed("images", "pull", *at_alias, "nix.local/alpha:latest")
        await ctr.succeed("images", "push", *at_alias, "nix.local/team/copy:v1", "nix.local/alpha:latest")
        await ctr.succeed("images", "pull", *at_alias, "nix.local/team/copy:v1")

    asked = [line["path"] for line in mirror.answers("/v2/team/copy/")]
    assert any("/blobs/uploads/" in path for path in asked)
    assert {line["status"] // 100 for line in mirror.answers("/v2/alpha/manifests/")} <= {2, 3, 4}
    assert mirror.answers("/v2/alpha/manifests/")[-1]["status"] == 200


async def test_podman(mirror: Mirror, tmp_path: Path) -> None:
    location = f'prefix = "docker.io"\nlocation = "{mirror.docker_io.host}"\ninsecure = true'
    conf = mirror.sample("registries.conf", **{'location = "docker.io"': location})
    file = await asyncio.to_thread(write, tmp_path / "registries.conf", conf)
    env = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(file)}
    async with podman(tmp_path / "podman") as pod:
        ours = await run((*pod.argv, "pull", "docker.io/library/slowpodman"), env=env)
        starts = mirror.nix.starts()
        other = await run((*pod.argv, "pull", "docker.io/library/hello"), env=env)

    assert mirror.statuses("slowpodman") == {307, 200}
    assert mirror.statuses("hello") == {404}
    assert mirror.nix.starts() == starts
    assert (ours.returncode, other.returncode) == (0, 0), ours.output + other.output
