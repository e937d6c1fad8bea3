"""Real container clients, each with a storage of its own, so that no test sees what another one pulled.

Sockets get a short folder: a Unix address holds 107 bytes, and pytest's folders are long.
"""

import asyncio
import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.processes import Outcome, program, run, serving, succeed, write

_PULL_SECONDS = 600.0  # a first pull waits for a build
#: Over plain HTTP, for what follows it.
SKOPEO_COPY = ("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false")


@dataclass(frozen=True, slots=True)
class Docker:
    """The docker command, talking to a daemon that a test started; `pid` is the daemon's."""

    socket: Path
    pid: int = 0

    async def __call__(self, *args: str) -> Outcome:
        """The outcome of `docker ARGS`."""
        return await run(("docker", "-H", f"unix://{self.socket}", *args), deadline=_PULL_SECONDS)

    async def succeed(self, *args: str) -> str:
        """Standard output of `docker ARGS`. Raises `AssertionError` if it fails."""
        return await succeed(("docker", "-H", f"unix://{self.socket}", *args), deadline=_PULL_SECONDS)

    async def run(self, image: str, *command: str) -> str:
        """What the command writes in a new container of the image, which has to be there already."""
        return await self.succeed("run", "--rm", "--pull=never", "--network=none", image, *command)


@dataclass(frozen=True, slots=True)
class Ctr:
    """The `ctr` command, talking to a containerd that a test started."""

    socket: Path

    async def __call__(self, *args: str) -> Outcome:
        """The outcome of `ctr ARGS`."""
        return await run(("ctr", "--address", str(self.socket), *args), deadline=_PULL_SECONDS)

    async def succeed(self, *args: str) -> str:
        """Standard output of `ctr ARGS`. Raises `AssertionError` if it fails."""
        return await succeed(("ctr", "--address", str(self.socket), *args), deadline=_PULL_SECONDS)


@dataclass(frozen=True, slots=True)
class Podman:
    """The podman command with a storage of its own."""

    storage: Path
    state: Path

    async def __call__(self, *args: str) -> Outcome:
        """The outcome of `podman ARGS`."""
        return await run((*self.argv, *args), deadline=_PULL_SECONDS)

    async def succeed(self, *args: str) -> str:
        """Standard output of `podman ARGS`. Raises `AssertionError` if it fails."""
        return await succeed((*self.argv, *args), deadline=_PULL_SECONDS)

    async def run(self, image: str, *command: str) -> str:
        """What the command writes in a new container of the image, which has to be there already."""
        # Limits are given because podman otherwise asks for more than a confined root may have.
        limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
        return await self.succeed("run", "--rm", "--pull=never", "--network=none", *limits, image, *command)

    @property
    def argv(self) -> tuple[str, ...]:
        """The command, for what follows it."""
        return (
            "podman",
            f"--root={self.storage}",
            f"--runroot={self.state / 'run'}",
            f"--tmpdir={self.state / 'tmp'}",
            "--cgroup-manager=cgroupfs",
            # Without it the overlay driver leaves a mount behind.
            "--storage-opt=overlay.skip_mount_home=true",
        )


@contextlib.asynccontextmanager
async def dockerd(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Docker]:
    """Debian's docker engine with its own containerd; containers get no network. Needs root.

    `env` replaces the environment.
    """
    async with _short_folder() as sockets:
        socket = sockets / "docker.sock"
        # dockerd picks the storage driver itself: overlay2, or vfs where the file system cannot do it.
        argv = (
            program("dockerd"),
            f"--data-root={folder / 'root'}",
            f"--exec-root={sockets / 'exec'}",
            f"--pidfile={sockets / 'docker.pid'}",
            f"--host=unix://{socket}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            *options,
        )
        docker = Docker(socket)

        async def ready() -> bool:
            return (await docker("version")).returncode == 0

        try:
            async with serving(argv, log=folder / "dockerd.log", ready=ready, env=env) as process:
                await _tell_driver(docker)
                yield replace(docker, pid=process.pid)
        finally:
            await asyncio.to_thread(_unmount_below, folder)  # its data root is a mount of itself


@contextlib.asynccontextmanager
async def containerd(folder: Path) -> AsyncIterator[Ctr]:
    """A containerd of its own, for `ctr`. Needs root."""
    async with _short_folder() as sockets:
        ctr = Ctr(sockets / "containerd.sock")
        settings = (
            "version = 2\n"
            f"root = {json.dumps(str(folder / 'root'))}\n"
            f"state = {json.dumps(str(sockets / 'state'))}\n"
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f"[grpc]\naddress = {json.dumps(str(ctr.socket))}\n"
        )

        async def ready() -> bool:
            return (await run(("ctr", "--address", str(ctr.socket), "version"))).returncode == 0

        config = await asyncio.to_thread(write, folder / "containerd.toml", settings)
        argv = (program("containerd"), "--config", str(config))
        async with serving(argv, log=folder / "containerd.log", ready=ready):
            yield ctr


@contextlib.asynccontextmanager
async def podman(folder: Path) -> AsyncIterator[Podman]:
    """Podman with an empty storage; it needs no server."""
    async with _short_folder() as state:
        yield Podman(folder / "storage", state)


async def skopeo_copy(source: str, target: str, *options: str) -> str:
    """Standard output of `skopeo copy`, over plain HTTP. Raises `AssertionError` if it fails."""
    return await succeed((*SKOPEO_COPY, *options, source, target), deadline=_PULL_SECONDS)


async def _tell_driver(docker: Docker) -> None:
    driver = (await docker.succeed("info", "--format", "{{.Driver}}")).strip()
    if driver != "overlay2":
        print(f"dockerd stores images with {driver}: slower, every layer is a full copy")


@contextlib.asynccontextmanager
async def _short_folder() -> AsyncIterator[Path]:
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="nf-", dir="/tmp"))  # noqa: S108
    try:
        yield folder
    finally:
        await asyncio.to_thread(_unmount_below, folder)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _unmount_below(folder: Path) -> None:
    """What an engine may leave mounted (its data root, the network name space of a container), so that the folder can go."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        subprocess.run(("umount", "--lazy", mount), check=False)
