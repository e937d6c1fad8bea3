"""Images of the demo set as people build on them and start them, in real engines. Each row has the public report that it comes from."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.clients import Docker, containerd
from tests.support.processes import run, search_path, write
from tests.support.servers import nixfront

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1200)]

_WRITES_HOME = (
    "touch $HOME/file && git config --global user.name me && git config --global user.name && echo $HOME"
)
# Options of `docker run`, what a shell in the container runs, and what it prints.
_ROWS = [
    pytest.param((), "echo $HOME; id -un; umask", "/root\nroot\n0022\n", id="root"),
    # cypress-io/cypress-docker-images#914: CI starts containers with the numbers of its own user.
    pytest.param(("-u", "1000:1000"), _WRITES_HOME, "me\n/root\n", id="a number that no file has"),
    # eclipse-che/che#13454, containerbase/base#1: OpenShift chooses the number, and the group is 0.
    pytest.param(("-u", "1000650000:0"), _WRITES_HOME, "me\n/root\n", id="a random number with group 0"),
    # NixOS/nixpkgs#105685
    pytest.param(("-u", "nobody"), "id -un; id -gn; stat -c '%a %u' /var/empty", "nobody\nnobody\n555 0\n", id="nobody"),
    # docker/cli#4714: names of groups are those of the image.
    pytest.param(("--group-add", "video"), "id -G", "0 44\n", id="the group of a device"),
    pytest.param(("-u", "0:daemon"), "id -g", "1\n", id="a group by its name"),
    # actions/checkout#334, NixOS/nixpkgs#288587
    pytest.param((), ". /etc/os-release; echo $ID $NIXFRONT_SET", "nixfront demo\n", id="os-release"),
    # docker's default PATH, which programs of derived images and of dev containers are put on.
    pytest.param((), "echo $PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", id="PATH"),
    # golang/go#31042, golang/go#14311: each system has its own place of the CA bundle.
    pytest.param(
        (),
        "cd /etc; test -s ssl/cert.pem; echo $?; readlink -f ssl/cert.pem pki/tls/certs/ca-bundle.crt | uniq | wc -l",
        "0\n1\n",
        id="CA bundles",
    ),
    pytest.param(
        (),
        "stat -c '%a %n' /opt /srv /home /run /var/cache /var/lib /var/log /usr/local/share /var/tmp; readlink -f /var/run",
        "755 /opt\n755 /srv\n755 /home\n755 /run\n755 /var/cache\n755 /var/lib\n755 /var/log\n755 /usr/local/share\n"
        "1777 /var/tmp\n/run\n",
        id="directories",
    ),
]  # fmt: skip


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
async def base(docker: Docker, store: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Base]:
    folder = tmp_path_factory.mktemp("bases")
    settings = {"nix": {"store": str(store)}}
    async with nixfront(folder, settings=settings, args=("--demo",)) as proxy:
        name = f"{proxy.host}/shell/git"
        await docker.succeed("pull", name)
        yield Base(name, docker)


@pytest.mark.parametrize(("options", "script", "prints"), _ROWS)
async def test_it_starts_as_people_start_it(
    base: Base, options: tuple[str, ...], script: str, prints: str
) -> None:
    assert await base.shell(script, *options) == prints


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
        start = ("run", "--rm", f"{base.name}:latest", "container", "bash", "-c")

        assert "127.0.0.1 localhost\n" in await ctr.succeed(*start, "cat /etc/hosts")
        assert await ctr.succeed(*start, _WRITES_HOME) == "me\n/root\n"
