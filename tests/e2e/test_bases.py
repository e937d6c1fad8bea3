"""Images of the demo set as people build on them and start them, in real engines. Each row has the public report that it comes from."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.support.clients import Docker, containerd
from tests.support.processes import run, search_path, write
from tests.support.servers import nixfront

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1200)]

_WRITES_HOME = (
    "touch $HOME/file && git config --global user.name me && git config --global user.name && echo $HOME"
)


class Row(NamedTuple):
    """Options of `docker run`, what a shell in the container runs, and what it prints. Rows with the same options share one."""

    options: tuple[str, ...]
    script: str
    prints: str
    name: str


_ROWS = [
    Row((), "echo $HOME; id -un; umask", "/root\nroot\n0022\n", name="root"),
    # cypress-io/cypress-docker-images#914: CI starts containers with the numbers of its own user.
    Row(("-u", "1000:1000"), _WRITES_HOME, "me\n/root\n", name="a number that no file has"),
    # eclipse-che/che#13454, containerbase/base#1: OpenShift chooses the number, and the group is 0.
    Row(("-u", "1000650000:0"), _WRITES_HOME, "me\n/root\n", name="a random number with group 0"),
    # NixOS/nixpkgs#105685
    Row(("-u", "nobody"), "id -un; id -gn; stat -c '%a %u' /var/empty", "nobody\nnobody\n555 0\n", name="nobody"),
    # docker/cli#4714: names of groups are those of the image.
    Row(("--group-add", "video"), "id -G", "0 44\n", name="the group of a device"),
    Row(("-u", "0:daemon"), "id -g", "1\n", name="a group by its name"),
    # actions/checkout#334, NixOS/nixpkgs#288587
    Row(
        (),
        ". /etc/os-release; echo $ID $NIXFRONT_SET ${NIXFRONT_SOURCE:+source} ${#NIXFRONT_REVISION}; [ $BUILD_ID = $NIXFRONT_REVISION ]; echo $?",
        "nixfront demo source 64\n0\n",
        name="os-release",
    ),
    # docker's default PATH, which programs of derived images and of dev containers are put on.
    Row((), "echo $PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", name="PATH"),
    # golang/go#31042, golang/go#14311: each system has its own place of the CA bundle.
    Row(
        (),
        "cd /etc; test -s ssl/cert.pem; echo $?; readlink -f ssl/cert.pem pki/tls/certs/ca-bundle.crt | uniq | wc -l",
        "0\n1\n",
        name="CA bundles",
    ),
    Row(
        (),
        "stat -c '%a %n' /opt /srv /home /run /var/cache /var/lib /var/log /usr/local/share /var/tmp; readlink -f /var/run",
        "755 /opt\n755 /srv\n755 /home\n755 /run\n755 /var/cache\n755 /var/lib\n755 /var/log\n755 /usr/local/share\n"
        "1777 /var/tmp\n/run\n",
        name="directories",
    ),
    # NixOS/nix#4829: without a locale bash counts bytes.
    Row((), "x=\u00e9; echo ${#x} $LANG", "1 C.UTF-8\n", name="locale"),
    # containerd/containerd#12683: containerd 2.2 opens these files inside the root, and refuses a link that leads out of it.
    Row((), "cd /etc; stat -c %F passwd group hosts os-release | uniq; test -e shadow; echo $?", "regular file\n1\n", name="files"),
]  # fmt: skip


def _together(scripts: Sequence[str]) -> str:
    """One script for all of these; a zero ends what each prints."""
    return "".join(f"(\n{script}\n) 2>&1; printf '\\0'\n" for script in scripts)


@dataclass(frozen=True, slots=True)
class Base:
    """A pulled image with a shell and git."""

    name: str
    docker: Docker

    async def shell(self, script: str, *options: str, image: str = "") -> str:
        """What the script prints in a new container."""
        run_it = ("run", "--rm", "--pull=never", "--network=none", *options, image or self.name)
        return await self.docker.succeed(*run_it, "bash", "-c", script)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def base(
    docker: Docker,
    store: Path,
    lock_demo_set: Callable[[Path], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Base]:
    folder = tmp_path_factory.mktemp("bases")
    await asyncio.to_thread(lock_demo_set, folder / "data")
    settings = {"nix": {"store": str(store)}}
    async with nixfront(folder, settings=settings, args=("--demo",)) as proxy:
        name = f"{proxy.host}/shell/git"
        await docker.succeed("pull", name)
        yield Base(name, docker)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def answers(base: Base) -> Mapping[Row, str]:
    """What each row prints."""
    printed: dict[Row, str] = {}
    for options in dict.fromkeys(row.options for row in _ROWS):
        rows = [row for row in _ROWS if row.options == options]
        output = await base.shell(_together([row.script for row in rows]), *options)
        printed |= dict(zip(rows, output.split("\0")[:-1], strict=True))
    return printed


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.name)
async def test_it_starts_as_people_start_it(answers: Mapping[Row, str], row: Row) -> None:
    assert answers[row] == row.prints


def rootfs(folder: Path) -> Path:
    """A build context: a file for each kind of directory, one of them in a directory that only git has."""
    for path in (
        "etc/gitconfig.d/more",
        "home/app/.profile",
        "opt/app/data",
        "share/git-core/templates/mine",
        "srv/www/index.html",
        "var/lib/app/state",
        "var/log/app/log",
    ):
        write(folder / "rootfs" / path, "mine\n")
    write(folder / "rootfs/usr/local/bin/tool", "#!/bin/sh\necho it runs\n").chmod(0o755)
    write(folder / "Dockerfile", "ARG BASE\nFROM $BASE\nCOPY rootfs /\n")
    return folder


@pytest.mark.parametrize(
    "builder",
    [
        # moby/moby#47367, docker/buildx#150: "cannot copy to non-directory"
        pytest.param("1", id="BuildKit"),
        # moby/moby#41035: a directory takes the place of the symlink, and what the link led to is gone
        pytest.param("0", id="the classic builder"),
    ],
)
async def test_a_tree_is_copied_onto_it(base: Base, builder: str, tmp_path: Path) -> None:
    image = f"derived-{builder}"
    # Debian's command, which needs no plugin for BuildKit.
    argv = ("/usr/bin/docker", "-H", f"unix://{base.docker.socket}", "build", "--network=none", "-t", image)
    environment = {**os.environ, "PATH": search_path(), "DOCKER_BUILDKIT": builder}

    built = await run(
        (*argv, "--build-arg", f"BASE={base.name}", str(rootfs(tmp_path))), env=environment, deadline=600
    )

    assert built.returncode == 0, built.output
    script = "tool; cat /srv/www/index.html /share/git-core/templates/mine; test -r /share/git-core/templates/description"
    assert await base.shell(script, image=image) == "it runs\nmine\nmine\n"
    assert "git version" in await base.shell("git --version", image=image)


async def test_containerd_starts_it_with_what_the_image_has(base: Base, tmp_path: Path) -> None:
    """tinkerbell/tinkerbell#567: containerd mounts no /etc/hosts of its own, as docker does. Its `ctr` starts as root alone."""
    async with containerd(tmp_path) as ctr:
        await ctr.succeed("images", "pull", "--plain-http", f"{base.name}:latest")
        rows = [row for row in _ROWS if not row.options]
        script = _together(["cat /etc/hosts", _WRITES_HOME, *(row.script for row in rows)])
        output = await ctr.succeed("run", "--rm", f"{base.name}:latest", "container", "bash", "-c", script)

    hosts, home, *others = output.split("\0")[:-1]
    assert "127.0.0.1 localhost\n" in hosts
    assert home == "me\n/root\n"
    assert others == [row.prints for row in rows]
