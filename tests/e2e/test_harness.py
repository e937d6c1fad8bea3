"""The harness itself, for real: every client and the relay against a stock registry that holds a hand-made image.

Where this fails, the machine is at fault and not nixfront. The image's program is ldconfig, which Debian links
statically, so that it runs from an image that holds nothing else.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from proxy.core.model import DOCKER_MANIFEST, OCI_MANIFEST
from tests.support.clients import Docker, containerd, podman, skopeo_copy
from tests.support.handmade import digest_of, image, push, store_layers, tar
from tests.support.processes import program
from tests.support.servers import Server, stock_registry
from tests.support.shim import Cut, Delay, Rule, Status, WrongDigest, shim
from tests.support.validate import validate

pytestmark = pytest.mark.asyncio(loop_scope="session")

_MADE = image(
    [tar(entries) for entries in store_layers(Path(program("ldconfig")).read_bytes())],
    command=("/bin/tool", "--version"),
)
_SAYS = "ldconfig (Debian GLIBC"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with stock_registry(tmp_path_factory.mktemp("registry")) as server:
        await push(server.url, "hand/made", "docker", _MADE)
        oci = image([tar(entries) for entries in store_layers()], media_type=OCI_MANIFEST)
        await push(server.url, "hand/made", "oci", oci)
        yield server


@pytest.mark.parametrize("tag", ["docker", "oci"])
async def test_validator_accepts_a_good_image(registry: Server, tag: str) -> None:
    checked = await validate(registry.url, "hand/made", tag)

    by_digest = await validate(registry.url, "hand/made", checked.digest)
    assert by_digest == checked


async def test_validator_sees_a_lying_header(registry: Server) -> None:
    lies = [Rule(method, "/manifests/", WrongDigest()) for method in ("GET", "HEAD")]
    async with shim(registry.url, *lies) as relay:
        with pytest.raises(AssertionError, match="the bytes are sha256"):
            await validate(relay.url, "hand/made", "docker")

    async with shim(registry.url, lies[1]) as relay:
        with pytest.raises(AssertionError, match=r"^HEAD .* says .* GET"):
            await validate(relay.url, "hand/made", "docker")


async def test_docker_pulls_and_runs(registry: Server, docker: Docker) -> None:
    name = f"{registry.host}/hand/made:docker"
    await docker.succeed("pull", name)

    assert (await docker.run(name)).startswith(_SAYS)


async def test_containerd_pulls_and_runs(registry: Server, tmp_path: Path) -> None:
    name = f"{registry.host}/hand/made:docker"
    async with containerd(tmp_path) as ctr:
        await ctr.succeed("images", "pull", "--plain-http", name)

        assert (await ctr.succeed("run", "--rm", name, "container")).startswith(_SAYS)


async def test_podman_pulls_and_runs(registry: Server, tmp_path: Path) -> None:
    name = f"{registry.host}/hand/made:docker"
    async with podman(tmp_path) as engine:
        await engine.succeed("pull", "--tls-verify=false", name)

        assert (await engine.run(name)).startswith(_SAYS)


async def test_skopeo_copies(registry: Server, tmp_path: Path) -> None:
    await skopeo_copy(f"docker://{registry.host}/hand/made:oci", f"oci:{tmp_path / 'copy'}:copied")

    assert (tmp_path / "copy" / "index.json").exists()


async def test_relay_is_transparent_and_counts(registry: Server) -> None:
    async with shim(registry.url) as relay:
        digest = await push(relay.url, "through/relay", "1", _MADE)
        checked = await validate(relay.url, "through/relay", "1")

    assert checked.digest == digest
    assert relay.counts["PUT", "manifest"] == 1
    assert relay.counts["POST", "upload"] == relay.counts["PUT", "upload"] == 1 + len(_MADE.layers)
    assert relay.counts["GET", "blob"] == 1 + len(_MADE.layers)
    assert relay.counts["HEAD", "manifest"] == 2


async def test_relay_fails_the_request_it_was_told_to(registry: Server) -> None:
    rule = Rule("GET", r"/manifests/docker$", Status(503), nth=2)
    async with shim(registry.url, rule) as relay, aiohttp.ClientSession(relay.url) as session:
        statuses = []
        for _ in range(3):
            headers = {"Accept": DOCKER_MANIFEST}
            async with session.get("/v2/hand/made/manifests/docker", headers=headers) as answer:
                statuses.append(answer.status)

    assert statuses == [200, 503, 200]


async def test_relay_cuts_an_answer_in_mid_body(registry: Server) -> None:
    digest = digest_of(_MADE.layers[0])
    async with (
        shim(registry.url, Rule("GET", "/blobs/", Cut(1000))) as relay,
        aiohttp.ClientSession(relay.url) as session,
        session.get(f"/v2/hand/made/blobs/{digest}") as answer,
    ):
        assert answer.status == 200
        assert await answer.content.readexactly(1000) == _MADE.layers[0][:1000]
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_relay_cuts_an_upload_in_mid_body(registry: Server) -> None:
    # Twice: aiohttp itself repeats a PUT whose connection was used before.
    async with shim(registry.url, Rule("PUT", "/uploads/", Cut(100), times=2)) as relay:
        with pytest.raises(aiohttp.ClientConnectionError):
            await push(relay.url, "cut/upload", "1", _MADE)

        await push(relay.url, "cut/upload", "1", _MADE)


async def test_relay_delays(registry: Server) -> None:
    timeout = aiohttp.ClientTimeout(total=0.2)
    async with (
        shim(registry.url, Rule("GET", "/v2/", Delay(30))) as relay,
        aiohttp.ClientSession(relay.url, timeout=timeout) as session,
    ):
        with pytest.raises(TimeoutError):
            await session.get("/v2/")

        async with session.get("/v2/") as second:
            assert second.status == 200
