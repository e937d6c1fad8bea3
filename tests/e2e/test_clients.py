"""Real clients through the installed proxy, with the package set that comes with it, built here from nothing.

One nixfront serves most tests. The registry behind it existed before, and held images that somebody had pushed under
names that are packages too.
"""

import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from proxy.core.model import DOCKER_MANIFEST, EVERY_MANIFEST_TYPE, OCI_LAYER_ZSTD, OCI_MANIFEST, digest_of
from proxy.nix.commands import child_environment
from proxy.wiring import files
from tests.support.clients import Docker, containerd, podman, skopeo_copy
from tests.support.handmade import image, push, store_layers, tar
from tests.support.paths import CountedNix, counted_nix, without_nix
from tests.support.processes import program, run, search_path, succeed, write
from tests.support.servers import Server, nixfront, stock_registry
from tests.support.validate import validate

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

_IMAGES = [
    ("hello", (), "Hello, world!"),
    ("hello", ("hello",), "Hello, world!"),
    ("shell/git", ("git", "--version"), "git version 2."),
    ("shell/git", ("bash", "-c", "id -un; ls -d /tmp"), "root\n/tmp"),
    ("python3/python3packages.numpy", ("python3", "-c", "import numpy; print(numpy.arange(3).sum())"), "3"),
    ("shell/perl/perlpackages.json", ("perl", "-MJSON", "-e", "print encode_json([1])"), "[1]"),
    # NixOS/nixpkgs#8398: a C library without its locales; perl warns seven times, bash counts bytes
    ("shell/perl/perlpackages.json", ("bash", "-c", "perl -e 'print 1' 2>&1; x=é; echo ${#x}"), "11"),
    # nixery#134: data by fixed paths
    (
        "tz/python3",
        ("python3", "-c", "import zoneinfo; print(zoneinfo.ZoneInfo('Asia/Tokyo'))"),
        "Asia/Tokyo",
    ),
    # NixOS/nixpkgs#176081: fontconfig finds no font
    ("fonts/hello", ("fc-match", "-f", "%{file}", "DejaVu Sans"), "/share/fonts/"),
    ("fonts/hello", (), "Hello, world!"),
]
# Packages of the demo set, taken by others before nixfront came.
_PUSHED = {"jq": DOCKER_MANIFEST, "perl": OCI_MANIFEST}


@dataclass(frozen=True, slots=True)
class Demo:
    """nixfront with the demo set, the registry behind it, what was pushed there before, and the starts of Nix."""

    proxy: Server
    registry: Server
    pushed: dict[str, str]
    nix: CountedNix


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo(tmp_path_factory: pytest.TempPathFactory, store: Path) -> AsyncIterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    nix = counted_nix(folder / "bin")
    async with stock_registry(folder / "registry") as registry:
        tars = [tar(entries) for entries in store_layers()]
        pushed = {
            name: await push(registry.url, name, "latest", image(tars, media_type=media_type))
            for name, media_type in _PUSHED.items()
        }
        settings = {
            "registry": {"url": registry.url},
            "nix": {"store": str(store)},
            "images": {"file": str(_images(folder / "operator"))},
        }
        async with nixfront(folder, settings=settings, args=("--demo",), env={"PATH": nix.path}) as proxy:
            yield Demo(proxy, registry, pushed, nix)


@pytest.mark.parametrize(("repository", "command", "says"), _IMAGES)
async def test_docker_pulls_and_runs(
    demo: Demo, docker: Docker, repository: str, command: tuple[str, ...], says: str
) -> None:
    name = f"{demo.proxy.host}/{repository}"

    await docker.succeed("pull", name)

    assert (await docker.run(name, *command)).startswith(says)
    checked = await validate(demo.proxy.url, repository, "latest")
    assert await _digest_in(docker, name) == checked.digest


async def test_docker_pulls_a_digest_that_the_registry_lost(demo: Demo, docker: Docker) -> None:
    """Kubernetes pins digests, and a registry may lose its storage."""
    image = await validate(demo.proxy.url, "less", "latest")
    stored = demo.registry.process.log.parent / "data/docker/registry/v2/repositories/less"
    await asyncio.to_thread(shutil.rmtree, stored)
    name = f"{demo.proxy.host}/less@{image.digest}"

    await docker.succeed("pull", name)

    assert (await docker.run(name, "less", "--version")).startswith("less ")


async def test_images_of_the_demo_set_are_made_again_with_the_same_digests(demo: Demo, store: Path) -> None:
    names, digests = ("hello", "shell/git", "tz/python3"), []
    async with aiohttp.ClientSession(demo.proxy.url) as session:
        for name in names:
            headers = {"Accept": EVERY_MANIFEST_TYPE}
            async with session.get(f"/v2/{name}/manifests/latest", headers=headers) as answer:
                assert answer.status == 200
                digests.append(answer.headers["Docker-Content-Digest"])
    environment = {
        **os.environ,
        "NIXFRONT_DATA_DIR": str(demo.proxy.process.log.parent / "data"),
        "NIXFRONT_REGISTRY_URL": demo.registry.url,
        "NIXFRONT_NIX_STORE": str(store),
    }

    outcome = await run(("nixfront", "verify", *names, "--demo", "--json"), env=environment, deadline=600)
    assert outcome.returncode == 0, outcome.output

    verdicts = json.loads(outcome.stdout)
    assert [(each["same"], each["now"]) for each in verdicts] == [(True, digest) for digest in digests]


async def test_docker_runs_as_it_pulls(demo: Demo, docker: Docker) -> None:
    name = f"{demo.proxy.host}/shell/jq"

    said = await docker.succeed("run", "--rm", "--network=none", name, "jq", "--version")

    assert said.startswith("jq-")


async def test_our_command_runs_a_program_and_tries_the_host(demo: Demo, docker: Docker) -> None:
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{docker.socket}",
        "NIXFRONT_HTTP_ADDR": demo.proxy.host,
    }
    words = ("--engine", "docker", "jq/git", "--", "jq", "--version")

    ran = await run(("nixfront", "run", *words), env=environment, deadline=600)
    tried = await run(("nixfront", "try", demo.proxy.host), env=environment, deadline=600)

    assert ran.stdout.startswith("jq-"), ran.output
    assert tried.returncode == 0, tried.output


async def test_the_recipe_of_one_program_in_another_image(demo: Demo, docker: Docker, tmp_path: Path) -> None:
    """Its base here is an image of ours, because no test pulls from the Docker Hub."""
    recipe = (Path(__file__).parents[2] / "deploy/recipes/Containerfile").read_text()
    base, program_image = f"{demo.proxy.host}/shell/git", f"{demo.proxy.host}/shell/jq"
    replaced = recipe.replace("docker.io/library/debian:12-slim", base)
    write(tmp_path / "Dockerfile", replaced.replace("pull.example.net/jq", program_image))
    argv = ("/usr/bin/docker", "-H", f"unix://{docker.socket}", "build", "--network=none", "-t", "with-jq")
    environment = {**os.environ, "PATH": search_path(), "DOCKER_BUILDKIT": "1"}

    built = await run((*argv, str(tmp_path)), env=environment, deadline=600)

    assert built.returncode == 0, built.output
    said = await docker.succeed(
        "run", "--rm", "--network=none", "with-jq", "/usr/local/bin/jq", "-n", "1 + 1"
    )
    assert said == "2\n"


async def test_skopeo_copies_without_a_change(demo: Demo, tmp_path: Path) -> None:
    await skopeo_copy(f"docker://{demo.proxy.host}/shell/git", f"dir:{tmp_path / 'copy'}")

    manifest = (tmp_path / "copy" / "manifest.json").read_bytes()
    checked = await validate(demo.proxy.url, "shell/git", "latest")
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == checked.digest


async def test_skopeo_copies_what_was_built_into_a_folder(
    demo: Demo, store: Path, lock_demo_set: Callable[[Path], None], tmp_path: Path
) -> None:
    await asyncio.to_thread(lock_demo_set, tmp_path / "data")
    own = {
        "data": {"dir": str(tmp_path / "data")},
        "nix": {"store": str(store)},
        "image": {"index": False},
    }
    config = str(write(tmp_path / "nixfront.yml", json.dumps(own)))
    argv = (program("nixfront"), "build", "shell/git", "--demo", "--config", config)
    said = await succeed((*argv, "--to", f"oci:{tmp_path / 'layout'}"), deadline=600)

    await skopeo_copy(f"oci:{tmp_path / 'layout'}:latest", f"dir:{tmp_path / 'copy'}")

    manifest = (tmp_path / "copy" / "manifest.json").read_bytes()
    assert said.split() == [
        f"oci:{tmp_path / 'layout'}:latest",
        f"sha256:{hashlib.sha256(manifest).hexdigest()}",
    ]
    pulled = await validate(demo.proxy.url, "shell/git", "latest")
    built = json.loads(manifest)
    assert [layer["digest"] for layer in built["layers"]] == [layer.digest for layer in pulled.layers]


async def test_skopeo_copies_what_nix_alone_made(
    store: Path, lock_demo_set: Callable[[Path], None], tmp_path: Path
) -> None:
    """By the installed expression, with the set's own python3, digest by digest what a proxy pushes that compresses nothing."""
    await asyncio.to_thread(lock_demo_set, tmp_path / "data")
    settings = {"nix": {"store": str(store)}, "layers": {"compression": "none", "most": "24"}}
    async with nixfront(tmp_path, settings=settings, args=("--demo",)) as proxy:
        pulled = await validate(proxy.url, "jq/git", "latest")
    labels: dict[str, str] = pulled.config["config"]["Labels"]  # type: ignore[index]
    origin = {
        "name": labels["nixfront.package-set"],
        "revision": labels["nixfront.revision"],
        "source": labels["nixfront.source"],
        "created": pulled.config["created"],
    }
    locked = tmp_path / "data" / "sets" / "demo"
    environment = child_environment(os.environ, store=str(store), substitutes=False)
    installed = (sys.executable, "-I", "-c", "from proxy.wiring import files; print(files.EXPRESSIONS)")
    expressions = Path((await succeed(installed)).strip())
    packages, lock = (
        json.dumps(["jq", "git"]),
        {"lock": f"{locked}/lock.json", "builder": f"{locked}/builder"},
    )
    said = (
        "--argstr",
        "name",
        "jq-git",
        "--argstr",
        "packages",
        packages,
        "--argstr",
        "origin",
        json.dumps(origin),
    )
    chosen = ("--arg", "set", str(expressions / "debian"), "--argstr", "setArguments", json.dumps(lock))
    table = ("--argstr", "table", str(expressions / "debian" / "packages.table.json"))
    built = await succeed(
        (
            "env",
            *(f"{name}={environment[name]}" for name in ("NIX_REMOTE", "NIX_CONFIG")),
            *(
                "nix-build",
                str(expressions / "build-registry-image.nix"),
                "--no-out-link",
                *said,
                *chosen,
                *table,
            ),
        ),
        deadline=600,
    )

    document = json.loads(await asyncio.to_thread(Path(f"{store}{built.strip()}").read_bytes))
    image = Path(f"{store}{document['manifestLocation']['path']}").parent
    await skopeo_copy(f"dir:{image}", f"dir:{tmp_path / 'copy'}")

    manifest = (tmp_path / "copy" / "manifest.json").read_bytes()
    assert pulled.digest == document["manifestLocation"]["digest"] == digest_of(manifest)
    layers = [layer.digest for layer in pulled.layers]
    assert {*layers, document["manifest"]["config"]["digest"]} == document["layerLocations"].keys()
    assert "site-packages" in str(expressions), "the installed one is tested"


async def test_podman_pulls_and_runs(demo: Demo, tmp_path: Path) -> None:
    name = f"{demo.proxy.host}/hello"
    async with podman(tmp_path) as engine:
        await engine.succeed("pull", "--tls-verify=false", name)

        assert "Hello, world!" in await engine.run(name)


async def test_containerd_pulls_and_runs(demo: Demo, tmp_path: Path) -> None:
    name = f"{demo.proxy.host}/hello:latest"
    async with containerd(tmp_path) as ctr:
        await ctr.succeed("images", "pull", "--plain-http", name)

        assert "Hello, world!" in await ctr.succeed("run", "--rm", name, "container")


async def test_zstd_layers_are_read_by_podman_containerd_and_skopeo(
    store: Path, lock_demo_set: Callable[[Path], None], tmp_path: Path
) -> None:
    """Layers of several frames, too. docker 20.10 is the one that cannot."""
    await asyncio.to_thread(lock_demo_set, tmp_path / "nixfront" / "data")
    settings = {
        "image": {"format": "oci"},
        "layers": {"compression": "zstd"},
        "nix": {"store": str(store)},
    }
    async with nixfront(tmp_path / "nixfront", settings=settings, args=("--demo",)) as proxy:
        checked = await validate(proxy.url, "hello", "latest")
        async with podman(tmp_path / "podman") as engine:
            await engine.succeed("pull", "--tls-verify=false", f"{proxy.host}/hello")
            said = await engine.run(f"{proxy.host}/hello")
        async with containerd(tmp_path / "containerd") as ctr:
            await ctr.succeed("images", "pull", "--plain-http", f"{proxy.host}/hello:latest")
            also_said = await ctr.succeed("run", "--rm", f"{proxy.host}/hello:latest", "container")
        unpacked = tmp_path / "unpacked"
        await skopeo_copy(f"docker://{proxy.host}/hello", f"dir:{unpacked}", "--dest-decompress")

    assert {layer.media_type for layer in checked.layers} == {OCI_LAYER_ZSTD}
    archives = {layer.diff_id.partition(":")[2] for layer in checked.layers}
    assert archives <= {file.name for file in unpacked.iterdir()}
    assert "Hello, world!" in said
    assert "Hello, world!" in also_said


async def test_named_image_runs_as_its_file_says(demo: Demo, docker: Docker) -> None:
    name = f"{demo.proxy.host}/images/greeter"
    asks = "id -u; id -un; id -g; pwd; echo $HOME $GREETER_FILE; stat -c '%u:%g %a' motto /etc/passwd /tmp; cat motto"
    start = ("run", "--rm", "--pull=never", "--network=none", "--entrypoint=/bin/bash")
    shell = (*start, name, "-c", asks)
    # openshift/openshift-docs#1141: OpenShift starts it with a number of its own, and with the group of root.
    other = (*start, "-u=1000650000:0", name, "-c", "echo yes >$HOME/file; cat $HOME/file")

    await docker.succeed("pull", name)
    assert await docker.succeed(*other) == "yes\n"

    assert (await docker.run(name)).strip() == "Hello from a named image"
    assert (await docker.run(name, "--greeting=Hi")).strip() == "Hi"
    assert (await docker.succeed(*shell)).splitlines() == [
        "1000",
        "user",
        "1000",
        "/srv/greeter",
        "/home/user /srv/greeter/motto",
        "1000:1000 640",
        "1000:1000 644",
        "1000:1000 1777",
        "Good morning",
    ]
    checked = await validate(demo.proxy.url, "images/greeter", "latest", commanded=(1000, 1000))
    assert await _digest_in(docker, name) == checked.digest
    config = json.loads(await docker.succeed("image", "inspect", "--format", "{{json .Config}}", name))
    assert config["ExposedPorts"] == {"8080/tcp": {}, "5353/udp": {}}
    assert config["Labels"]["org.opencontainers.image.title"] == "greeter"
    assert len(checked.layers) <= 12


async def test_log_of_failed_commands_reaches_the_terminal(demo: Demo, docker: Docker) -> None:
    refused = await docker("pull", f"{demo.proxy.host}/images/failing")

    assert refused.returncode != 0
    assert "building the extraCommands of image failing failed" in refused.output
    assert "rm: cannot remove 'bin/hullo': No such file or directory" in refused.output


async def test_second_pull_starts_no_nix(demo: Demo, docker: Docker) -> None:
    name = f"{demo.proxy.host}/hello"
    await docker.succeed("pull", name)
    await docker.succeed("rmi", "--force", name)
    before = demo.nix.starts()

    await docker.succeed("pull", name)

    assert before.total() > 0
    assert demo.nix.starts() == before


async def test_misspelt_name_gets_a_suggestion(demo: Demo, docker: Docker) -> None:
    refused = await docker("pull", f"{demo.proxy.host}/helo")

    assert refused.returncode != 0
    assert "no package helo" in refused.output
    assert "did you mean hello" in refused.output


async def test_unknown_tag_starts_no_nix(demo: Demo, docker: Docker) -> None:
    before = demo.nix.starts()

    refused = await docker("pull", f"{demo.proxy.host}/nano:1.2.3")

    assert refused.returncode != 0
    assert "1.2.3" in refused.output
    assert demo.nix.starts() == before


@pytest.mark.parametrize("name", _PUSHED)
async def test_pushed_image_is_served_as_it_is(demo: Demo, docker: Docker, name: str) -> None:
    before = demo.nix.starts()

    await docker.succeed("pull", f"{demo.proxy.host}/{name}")

    through = await validate(demo.proxy.url, name, "latest", ours=False)
    assert through.digest == demo.pushed[name]
    assert through == await validate(demo.registry.url, name, "latest", ours=False)
    assert demo.nix.starts() == before


@pytest.mark.parametrize("name", _PUSHED)
@pytest.mark.parametrize("accept", [DOCKER_MANIFEST, OCI_MANIFEST])
async def test_pushed_image_is_never_overwritten(demo: Demo, name: str, accept: str) -> None:
    """A tag in another type than was accepted is there all the same.

    A stock registry answers 404 for an OCI image, and makes a schema 1 manifest of a Docker one, signed anew each time.
    """
    before = demo.nix.starts()
    async with aiohttp.ClientSession() as session:
        path, headers = f"/v2/{name}/manifests/latest", {"Accept": accept}
        async with session.get(f"{demo.registry.url}{path}", headers=headers) as direct:
            expected = direct.status, direct.content_type
        async with session.get(f"{demo.proxy.url}{path}", headers=headers) as through:
            assert (through.status, through.content_type) == expected

    assert (await validate(demo.registry.url, name, "latest", ours=False)).digest == demo.pushed[name]
    assert demo.nix.starts() == before


async def test_docker_pushes_through_the_proxy(demo: Demo, docker: Docker) -> None:
    source, target = f"{demo.proxy.host}/hello", f"{demo.proxy.host}/team/greeting:1"
    await docker.succeed("pull", source)
    await docker.succeed("tag", source, target)

    await docker.succeed("push", target)

    stored = await validate(demo.registry.url, "team/greeting", "1")
    assert stored == await validate(demo.proxy.url, "team/greeting", "1")
    assert stored.files == (await validate(demo.proxy.url, "hello", "latest")).files


async def test_registry_lists_what_was_made(demo: Demo, docker: Docker) -> None:
    await docker.succeed("pull", f"{demo.proxy.host}/hello")

    listed = json.loads(await succeed(("curl", "-fsS", f"{demo.registry.url}/v2/_catalog")))
    through = json.loads(await succeed(("curl", "-fsS", f"{demo.proxy.url}/v2/_catalog")))

    assert {"hello", *_PUSHED} <= set(listed["repositories"])
    assert through == listed


async def test_image_outlives_nix(
    docker: Docker, store: Path, lock_demo_set: Callable[[Path], None], tmp_path: Path
) -> None:
    """With the registry that nixfront brings: after a restart without Nix, what was made is still served."""
    await asyncio.to_thread(lock_demo_set, tmp_path / "data")
    settings = {"nix": {"store": str(store)}}
    async with nixfront(tmp_path, settings=settings, args=("--demo",)) as proxy:
        made = await validate(proxy.url, "hello", "latest")

    without = {"PATH": without_nix(tmp_path / "bin")}
    async with nixfront(tmp_path, settings=settings, args=("--demo",), env=without) as proxy:
        for name in (f"{proxy.host}/hello@{made.digest}", f"{proxy.host}/hello"):
            await docker.succeed("pull", name)
            assert "Hello, world!" in await docker.run(name)

        refused = await docker("pull", f"{proxy.host}/nano")
        assert refused.returncode != 0
        assert "Nix" in refused.output


async def test_log_of_a_failed_build_reaches_the_terminal(
    docker: Docker, store: Path, tmp_path: Path
) -> None:
    settings = {
        "packages": {"kind": "path", "path": str(_failing_packages(tmp_path / "packages"))},
        "nix": {"store": str(store)},
    }
    once = {"NIX_CONFIG": "download-attempts = 1"}
    async with nixfront(tmp_path / "nixfront", settings=settings, env=once) as proxy:
        failing = await docker("pull", f"{proxy.host}/failing")
        unfetchable = await docker("pull", f"{proxy.host}/unfetchable")

    assert failing.returncode != 0
    assert "building failing failed" in failing.output
    assert "unrecognized option '--no-such-option'" in failing.output
    assert unfetchable.returncode != 0
    assert "http://127.0.0.1:1/nothing" in unfetchable.output


def _images(folder: Path) -> Path:
    """The file of named images that comes with nixfront, and one that fails."""
    folder.mkdir()
    shutil.copy(files.SAMPLES / "images.nix", folder / "sample.nix")
    failing = 'failing = { packages = [ "hello" ]; extraCommands = "rm bin/hullo"; };'
    (folder / "images.nix").write_text(f"arguments: import ./sample.nix arguments // {{ {failing} }}")
    return folder / "images.nix"


def _failing_packages(folder: Path) -> Path:
    """A package set of two: a builder that complains and fails, and a download that nobody answers.

    The builder is Debian's ldconfig, which is linked statically and so runs in any sandbox.
    """
    folder.mkdir()
    shutil.copy(program("ldconfig"), folder / "tool")
    (folder / "default.nix").write_text(
        """
        { system }:
        {
          failing = derivation {
            name = "failing-1.0";
            inherit system;
            builder = ./tool;
            args = [ "--no-such-option" ];
          };
          unfetchable = derivation {
            name = "unfetchable-1.0";
            system = "builtin";
            builder = "builtin:fetchurl";
            url = "http://127.0.0.1:1/nothing";
            outputHash = "0000000000000000000000000000000000000000000000000000000000000000";
            outputHashAlgo = "sha256";
            outputHashMode = "flat";
          };
        }
        """
    )
    return folder


async def _digest_in(docker: Docker, name: str) -> str:
    """The digest under which the engine keeps this image."""
    listed = json.loads(await docker.succeed("image", "inspect", "--format", "{{json .RepoDigests}}", name))
    repository = name.partition("@")[0]
    digests = [entry.partition("@")[2] for entry in listed if entry.startswith(f"{repository}@")]
    assert len(digests) == 1, f"{name} is kept as {listed}"
    return str(digests[0])
