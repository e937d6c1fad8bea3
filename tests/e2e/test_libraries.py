"""Images whose libraries and data work: packages in the layout of nixpkgs, run by a docker engine, podman and containerd.

The comment of each row is the public report that it comes from.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.core.events import LibraryUnusable
from proxy.registry.endpoint import Endpoint
from proxy.upkeep.explain import explain
from tests.support.clients import Docker, containerd, podman
from tests.support.front import Front, front
from tests.support.servers import stock_registry

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not Path("/usr/bin/python3.11").exists(), reason="the interpreters are those of Debian 12"
    ),
]

LANGUAGES = Path(__file__).parents[1] / "integration" / "languages"
# The host's own programs come into sight with these folders: the image's programs are in /bin alone.
VOLUMES = (
    *("-v=/usr:/usr:ro", "-v=/lib64:/lib64:ro", "-v=/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu:ro"),
    "--env=PATH=/bin:/usr/bin",
)
#: The same for `ctr`.
MOUNTS = (
    *(
        f"--mount=type=bind,src={path},dst={path},options=rbind:ro"
        for path in ("/usr", "/lib64", "/lib/x86_64-linux-gnu")
    ),
    "--env=PATH=/bin:/usr/bin",
)
FILE = """
{
  own = { packages = [ "python3" "python3Packages.idna" ]; env.NIX_PYTHONPATH = ""; };
  ours = { packages = [ "python3" "python3Packages.requests" ]; };
}
"""
IDNA = "import idna; print(idna.text)"
REQUESTS = "import requests; print(requests.text)"
CHILD = "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'import idna; print(idna.text)'], text=True))"

RUNS = [
    # NixOS/nix#16177, NixOS/nixpkgs#10597: ModuleNotFoundError, also for what a library propagates
    ("python3/python3packages.requests", ("python3", "-c", REQUESTS), "idna 3"),
    ("python3packages.requests/python3", ("python3", "-c", REQUESTS), "idna 3"),
    ("images/ours", ("python3", "-c", REQUESTS), "idna 3"),
    # NixOS/nixpkgs#23676: child processes of a Python lose its libraries
    ("python3/python3packages.idna", ("python3", "-c", CHILD), "idna 3"),
    # NixOS/nixpkgs#132761, NixOS/nixpkgs#16591: a variable with libraries reaches programs that have others
    ("python3/python3packages.requests/tool", ("tool",), "idna 1"),
    ("python3/python3packages.requests/tool", ("python3", "-c", REQUESTS), "idna 3"),
    ("python3/python3packages.requests/tool", ("env", "python3", "-c", CHILD), "idna 3"),
    ("withidna/python3packages.old", ("python3", "-c", IDNA), "idna 3"),
    # the setup hooks of nixpkgs' perl and nodejs
    ("perl/perlpackages.greet", ("perl", "-MGreet", "-e", "print Greet::text"), "from perl"),
    ("nodejs/nodepackages.greet", ("node", "-p", "require('greet')"), "from node"),
    # NixOS/nixpkgs#29474: the module is not found
    ("lua/luapackages.greet", ("lua", "-e", "print((require 'greet'))"), "from lua"),
    # NixOS/nixpkgs#78900: a gem cannot be loaded
    ("ruby/rubypackages.greet", ("ruby", "-e", "require 'greet'; puts GREETING"), "from ruby"),
    # NixOS/nixpkgs#213007: "there is no package called"
    ("r/rpackages.greet", ("R", "-s", "-e", "cat(greet::text)"), "from R"),
]

# What the host's own programs find in an image of these, started by a user of a package.
DATA = "python3/man/ncurses/tzdata/font/greet"
ZONE = (
    "import datetime, zoneinfo; print(zoneinfo.ZoneInfo('Nowhere').utcoffset(datetime.datetime(2020, 1, 1)))"
)
APPLICATION = "import ctypes; gio = ctypes.CDLL('libgio-2.0.so.0'); print(bool(gio.g_desktop_app_info_new(b'greet.desktop')))"
FINDS = [
    # NixOS/nixpkgs#23601: "No manual entry"
    ("man -w greet | grep -o '/share/.*'", "/share/man/man1/greet.1"),
    # NixOS/nixpkgs#8473: a terminal that no program knows
    ("tput -T greet-terminal cols", "42"),
    # nextlevelbuilder/goclaw#1372: ZoneInfoNotFoundError. /usr/share is the host's here, so this is /etc/zoneinfo.
    (f'python3 -c "{ZONE}"', "5:45:00"),
    # NixOS/nixpkgs#176081: fontconfig has no configuration
    ("fc-list | grep -o '^/share/[^:]*'", "/share/fonts/greet.ttf"),
    # NixOS/nixpkgs#78822: XDG_DATA_DIRS is not set, and GLib finds no application
    (f'python3 -c "{APPLICATION}"', "True"),
    # NixOS/nixpkgs#105685: programs need root and nobody, whatever users a package adds
    ("getent passwd root | cut -d: -f6", "/root"),
    ("getent group video | cut -d: -f3", "44"),
]
LOOKS = "\n".join(script for script, _ in FINDS)


@pytest.fixture(scope="module", autouse=True)
def _nix_sees_the_host() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "NIX_CONFIG", "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
        )
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, _nix_sees_the_host: None) -> AsyncIterator[Front]:
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "images.nix").write_text(FILE)
    (folder / "registry").mkdir()
    async with (
        stock_registry(folder / "registry") as registry,
        front(
            folder,
            folder / "nix-starts",
            registry.url,
            packages={"path": str(LANGUAGES), "always": ("coreutils",)},
            images={"file": str(folder / "images.nix")},
        ) as running,
    ):
        yield running


@pytest.mark.parametrize(("repository", "command", "says"), RUNS)
async def test_docker_runs_a_program_that_finds_its_library(
    served: Front, docker: Docker, repository: str, command: tuple[str, ...], says: str
) -> None:
    name = f"{served.url.removeprefix('http://')}/{repository}"
    await served.pull(repository)
    await docker.succeed("pull", name)

    said = await docker.succeed("run", "--rm", "--network=none", *VOLUMES, name, *command)

    assert said.strip() == says


async def test_podman_runs_it_too(served: Front, tmp_path: Path) -> None:
    name = f"{served.url.removeprefix('http://')}/python3/python3packages.requests"
    async with podman(tmp_path) as engine:
        await engine.succeed("pull", "--tls-verify=false", name)

        said = await engine.run(*VOLUMES, name, "python3", "-c", REQUESTS)

    assert said.strip() == "idna 3"


async def test_containerd_runs_them_too(served: Front, tmp_path: Path) -> None:
    """Its `ctr` adds nothing to the environment of an image: no HOME, no TERM."""
    await served.pull(DATA)
    rows = [row for row in RUNS if row[0] in ("python3/python3packages.requests", "lua/luapackages.greet")]
    async with containerd(tmp_path) as ctr:
        said = []
        for number, (repository, command, _) in enumerate(rows):
            name = f"{served.url.removeprefix('http://')}/{repository}:latest"
            await ctr.succeed("images", "pull", "--plain-http", name)
            said.append((await ctr.succeed("run", "--rm", *MOUNTS, name, f"row{number}", *command)).strip())
        name = f"{served.url.removeprefix('http://')}/{DATA}:latest"
        await ctr.succeed("images", "pull", "--plain-http", name)
        found = await ctr.succeed("run", "--rm", *MOUNTS, name, "data", "sh", "-c", LOOKS)

    assert said == [says for _, _, says in rows]
    assert found.splitlines() == [finds for _, finds in FINDS]


async def test_programs_find_data_and_users(served: Front, docker: Docker) -> None:
    name = f"{served.url.removeprefix('http://')}/{DATA}"
    await served.pull(DATA)
    await docker.succeed("pull", name)

    start = ("run", "--rm", "--network=none", "-u=greet", *VOLUMES, name, "sh", "-c")
    user, *found = (await docker.succeed(*start, f"id -un\n{LOOKS}")).splitlines()

    # containerd/containerd#12683: engines read the users of an image
    assert user == "greet"
    assert found == [finds for _, finds in FINDS]


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        # opencontainers/image-spec#130, anchore/stereoscope#647: in every engine `.wh.nix` makes /nix vanish
        ("python3/deletes", ".wh.nix"),
        # NixOS/nixpkgs#28535, NixOS/nixpkgs#289813: Nix in a container knows no store path, and its database is not reproducible
        ("nix", "nix cannot be a package of an image: it has no database of the image's store paths"),
        ("python3/shell", "shell is a meta-package and comes first: shell/python3"),
    ],
)
async def test_docker_says_why_there_is_no_image(
    served: Front, docker: Docker, repository: str, message: str
) -> None:
    refused = await docker("pull", f"{served.url.removeprefix('http://')}/{repository}")

    assert (refused.returncode != 0, message in refused.output) == (True, True), refused.output


async def test_a_module_for_another_version_is_in_the_log_and_in_explain(served: Front) -> None:
    await served.pull("python3/python3packages.old")

    note = "old-1 is for Python 3.12, and the image has 3.11 (python3-3.11.9)"
    told = [
        event.note for event in served.told(LibraryUnusable) if "/python3packages.old" in event.repository
    ]
    assert note in told
    async with Endpoint(served.url).opened() as registry:
        explanation = await explain(registry, "python3/python3packages.old", "latest")
    assert explanation.notes == (note,)
    assert "NIX_PYTHONPATH" not in {variable.name for variable in explanation.environment}


async def test_explain_says_why_a_variable_is_set(served: Front) -> None:
    await served.pull("python3/python3packages.requests")
    await served.pull("images/own")

    async with Endpoint(served.url).opened() as registry:
        ours = await explain(registry, "python3/python3packages.requests", "latest")
        own = await explain(registry, "images/own", "latest")

    reasons = {variable.name: variable.reason for variable in ours.environment}
    assert reasons["NIX_PYTHONPATH"] == "python3-3.11.9 finds requests-2, idna-3"
    assert reasons["LANG"] == "every image has it"
    assert "nixfront.environment" not in ours.labels
    (mine,) = [variable for variable in own.environment if variable.name == "NIX_PYTHONPATH"]
    assert (mine.value, mine.reason) == ("", "a meta-package or the definition of the image sets it")
