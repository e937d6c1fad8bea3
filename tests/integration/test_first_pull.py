"""The main job: an image that nobody built comes out of a stock registry."""

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from proxy.core.events import BuildEnded, BuildStarted, Collided, LayerStored, LogLine
from proxy.core.model import EVERY_MANIFEST_TYPE
from proxy.tools.process import run
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import shim
from tests.support.wait import Gate, until

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


async def test_an_image_that_nobody_built_is_pulled(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        image = await front.pull("hello")

    assert image.media_type == DOCKER
    assert image.config["config"]["Cmd"] == ["/bin/hello"]  # type: ignore[index]
    assert image.config["created"] == "1980-01-01T00:00:00Z"
    assert image.files["bin/hello"].target.endswith("-hello-1.0/bin/hello")
    assert image.files["tmp"].mode == 0o1777
    assert "etc/ssl/certs/ca-bundle.crt" in image.files, "cacert is in every image where the set has it"


async def test_it_is_in_the_stock_registry_afterwards(start: Start, registry: Server) -> None:
    async with start(registry.url) as front, aiohttp.ClientSession() as session:
        image = await front.pull("shell/alpha")
        async with session.get(f"{registry.url}/v2/_catalog") as answer:
            catalog = await answer.json()
        async with session.get(
            f"{registry.url}/v2/shell/alpha/manifests/latest", headers={"Accept": DOCKER}
        ) as direct:
            digest = direct.headers["Docker-Content-Digest"]

    assert catalog == {"repositories": ["shell/alpha"]}
    assert digest == image.digest
    assert image.config["config"]["Cmd"] == ["/bin/bash"]  # type: ignore[index]
    assert image.files["usr/bin/env"].target == image.files["bin/env"].target
    assert "bin/sh" in image.files


async def test_a_second_pull_starts_no_nix(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        first = await front.pull("hello")
        starts = front.nix_starts()
        second = await front.pull("hello")

        assert starts > 0
        assert front.nix_starts() == starts
        assert first == second


async def test_the_reply_is_the_registrys_own(start: Start, registry: Server) -> None:
    path = "/v2/hello/manifests/latest"
    async with start(registry.url) as front, aiohttp.ClientSession() as session:
        status, headers, body = await front.get(path, headers={"Accept": DOCKER})
        async with session.get(registry.url + path, headers={"Accept": DOCKER}) as direct:
            for name in (set(direct.headers) | set(headers)) - {"Date", "X-Request-ID", "Vary"}:
                assert headers.get(name) == direct.headers.get(name), name
            assert (status, body) == (direct.status, await direct.read())
        head = await front.get(path, "HEAD", headers={"Accept": DOCKER})

    assert headers["Vary"] == "Accept", "an image of ours comes as it is stored"
    assert head[0] == 200
    assert head[1]["Content-Length"] == str(len(body))
    assert head[2] == b""


async def test_twenty_first_pulls_are_one_build(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        path = "/v2/hello/manifests/latest"
        answers = await asyncio.gather(*(front.get(path, headers={"Accept": DOCKER}) for _ in range(20)))

        assert {answer[0] for answer in answers} == {200}
        assert len({answer[2] for answer in answers}) == 1
        assert front.nix_starts("nix-store --realise") == 2, (
            "one for the package set's source, one for the build"
        )
        assert len(front.told(BuildStarted)) == 1


@pytest.mark.parametrize("builds_per_minute", [0, 9])
@pytest.mark.parametrize(
    ("accept", "before"),
    [(EVERY_MANIFEST_TYPE, ["GET"]), (DOCKER, ["GET", "HEAD"])],
    ids=["engine", "script"],
)
@pytest.mark.without_documents("it counts manifests that are looked at and put")
async def test_a_first_pull_asks_thrice_for_its_tag_before_the_put_and_once_after_it(
    start: Start, registry: Server, accept: str, before: list[str], builds_per_minute: int
) -> None:
    """Counted before the registry: every request for the manifest under the tag that is pulled, whoever sends it.

    Before the build: the client's request, passed through. An engine accepts every type, so its 404 is an answer to
    nixfront too; after the 404 of a script that accepts one type, nixfront looks for itself. Between build and put: two
    looks, because a tag that a person pushed meanwhile must stay; the second one is beside the puts of the other tags. After the
    put: the client's request. Each of the image's other three tags (revision, outputs, version) is looked at once before it is
    put. A limit of builds for each client adds nothing.
    """
    access = {"builds_per_minute": builds_per_minute}
    async with shim(registry.url) as relay, start(relay.url, access=access) as front:
        status, _, _ = await front.get("/v2/hello/manifests/latest", headers={"Accept": accept})

    assert status == 200
    layers = next(at for at, (_, path) in enumerate(relay.requests) if "/blobs/" in path)
    put = relay.requests.index(("PUT", "/v2/hello/manifests/latest"))
    for_tag = [
        (at, method)
        for at, (method, path) in enumerate(relay.requests)
        if path == "/v2/hello/manifests/latest"
    ]
    assert [method for at, method in for_tag if at < layers] == before
    assert [method for at, method in for_tag if layers < at < put] == ["HEAD", "HEAD"]
    assert [method for at, method in for_tag if at > put] == ["GET"]
    assert (relay.counts["HEAD", "manifest"], relay.counts["PUT", "manifest"]) == (4 + len(before), 4)


async def test_an_image_that_only_nixfront_may_see_stops_a_build(start: Start, registry: Server) -> None:
    """With a login of its own nixfront looks for itself, because a registry may hide from a client what is there."""
    login = {"username": "nixfront", "password": "nobody asks for it"}
    every = {"Accept": EVERY_MANIFEST_TYPE}
    async with shim(registry.url) as relay, start(relay.url, registry=login) as front:
        status, _, _ = await front.get("/v2/hello/manifests/latest", headers=every)

    assert status == 200
    put = relay.requests.index(("PUT", "/v2/hello/manifests/latest"))
    looks = [method for method, path in relay.requests[:put] if path == "/v2/hello/manifests/latest"]
    assert looks == ["GET", "HEAD", "HEAD", "HEAD"]


async def test_names_in_another_order_share_the_work_and_get_both_tags(
    start: Start, registry: Server
) -> None:
    async with start(registry.url) as front:
        one, other = await asyncio.gather(front.pull("shell/alpha/beta"), front.pull("shell/beta/alpha"))

        assert front.nix_starts("nix-store --realise") == 2
    assert one.layers == other.layers
    assert one.digest == other.digest


async def test_what_was_evaluated_is_remembered(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        await front.pull("alpha")
        await front.pull("beta")
        starts = front.nix_starts("nix-instantiate")
        together = await front.pull("beta/alpha")

        assert front.nix_starts("nix-instantiate") == starts > 0
        status, _, body = await front.get("/v2/alpha/alpah/manifests/latest")
    assert together.config["config"]["Cmd"] == ["/bin/beta"]  # type: ignore[index]
    assert status == 404
    assert b"did you mean alpha" in body


async def test_and_asked_anew_where_a_garbage_collection_took_it(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    async with start(registry.url) as front:
        first = await front.pull("alpha/beta")
        starts = front.nix_starts("nix-instantiate")
        on_it = {**os.environ, "NIX_REMOTE": str(tmp_path / "store")}
        await run(("nix-store", "--gc"), env=on_it, deadline=60)
        second = await front.pull("beta/alpha")

        assert front.nix_starts("nix-instantiate") == starts + 1
    assert second.layers[:-1] == first.layers[:-1]


async def test_without_the_shell_the_order_decides_the_command_alone(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        one, other = await front.pull("alpha/beta"), await front.pull("beta/alpha")

    assert one.layers == other.layers
    assert one.config["config"]["Cmd"] == ["/bin/alpha"]  # type: ignore[index]
    assert other.config["config"]["Cmd"] == ["/bin/beta"]  # type: ignore[index]


async def test_a_client_that_goes_away_does_not_stop_the_build(
    start: Start, registry: Server, gate: Gate
) -> None:
    async with start(registry.url) as front:
        asking = asyncio.create_task(front.get("/v2/gated/manifests/latest"))
        await until(lambda: front.told(BuildStarted))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        gate.open()
        await until(lambda: front.told(BuildEnded))
        starts = front.nix_starts()
        await front.pull("gated")

        assert front.nix_starts() == starts
        assert len(front.told(BuildStarted)) == 1


async def test_shared_paths_are_mounted_and_not_sent_again(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        first, second = await front.pull("hello"), await front.pull("beta")

    shared = {layer.digest for layer in first.layers} & {layer.digest for layer in second.layers}
    log = registry.process.log_text()
    assert len(shared) >= 3, "common, hello and cacert"
    for digest in shared:
        assert f"mount={digest.replace(':', '%3A')}" in log or f"mount={digest}" in log


@pytest.mark.without_documents("it counts uploads")
async def test_a_build_of_known_layers_sends_nothing_but_what_is_its_own(
    start: Start, registry: Server
) -> None:
    async with shim(registry.url) as relay, start(relay.url) as front:
        first = await front.pull("noise/hello")
        shared = len(first.layers) - 1
        assert relay.counts["PATCH", "upload"] == 1, "one layer is too large for a single request"

        relay.counts.clear()
        second = await front.pull("hello/noise")
        assert relay.counts["POST", "upload"] == shared + 2, "a mount each; the root and the config are sent"
        assert (relay.counts["PUT", "upload"], relay.counts["PATCH", "upload"]) == (2, 0)

        await front.get(f"/v2/hello/noise/manifests/{second.digest}", "DELETE")
        relay.counts.clear()
        again = await front.pull("hello/noise")
        assert relay.counts["POST", "upload"] == relay.counts["PUT", "upload"] == 0

    assert first.layers[:-1] == second.layers[:-1]
    assert again == second


async def test_known_layers_that_are_nowhere_any_more_are_packed_anew(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        first = await front.pull("alpha/beta")
        for layer in first.layers:
            status, _, _ = await front.get(f"/v2/alpha/beta/blobs/{layer.digest}", "DELETE")
            assert status == 202
        second = await front.pull("beta/alpha")

        assert {stored.how for stored in front.told(LayerStored)} == {"packed"}
    assert second.layers[:-1] == first.layers[:-1]


async def test_what_cannot_be_an_image_sends_nothing(start: Start, registry: Server) -> None:
    async with shim(registry.url) as relay, start(relay.url) as front:
        status, _, body = await front.get("/v2/hello/singlefile/manifests/latest")

        assert relay.counts["POST", "upload"] == 0
    assert status == 404
    assert b"is a single file" in body


async def test_every_package_of_a_name_lands_in_the_image(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        image = await front.pull("camelcase.innerpackage/7zz/several/singleprogram/propagating")

    for path in ("bin/inner", "bin/7zz", "bin/several", "share/doc", "bin/single-program", "bin/alpha"):
        assert path in image.files, path
    assert "include" not in image.files, "dev is not among the outputs to install"


async def test_odd_files_survive(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        image = await front.pull("odd")

    found = {
        path.split("-odd-1.0/", 1)[1]: member for path, member in image.files.items() if "-odd-1.0/" in path
    }
    long = "n" * 200
    assert found["empty"].kind == "directory"
    assert found["share/dangling"].target == "missing"
    assert found["share/sp ace"].size == 1
    assert found[f"share/{long}/{long}"].size == 5


async def test_a_collision_is_the_first_named_ones_and_is_told(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        one, other = await front.pull("alpha/conflicting"), await front.pull("conflicting/alpha")

        collisions = {(event.repository, event.path) for event in front.told(Collided)}
    assert one.files["bin/alpha"].target.endswith("-alpha-1.0/bin/alpha")
    assert other.files["bin/alpha"].target.endswith("-conflicting-1.0/bin/alpha")
    assert collisions == {("alpha/conflicting", "bin/alpha"), ("conflicting/alpha", "bin/alpha")}
    assert one.layers[:-1] == other.layers[:-1], "only the root differs"


async def test_more_paths_than_layers(start: Start, registry: Server) -> None:
    async with start(registry.url, layers={"most": 20}) as front:
        image = await front.pull("manyparts")

    assert len(image.layers) <= 20
    assert sum("/lib/lib" in path for path in image.files) == 130


@pytest.mark.parametrize(
    ("form", "compression"),
    [("docker", "gzip"), ("docker", "none"), ("oci", "gzip"), ("oci", "zstd"), ("oci", "none")],
)
async def test_formats(start: Start, registry: Server, form: str, compression: str) -> None:
    async with start(registry.url, image={"format": form}, layers={"compression": compression}) as front:
        image = await front.pull("hello/noise")

    family = "docker" if form == "docker" else "oci"
    assert family in image.media_type
    for layer in image.layers:
        assert layer.media_type.endswith("tar" if compression == "none" else compression)


async def test_the_log_of_a_build_streams_as_it_comes(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        status, _, _ = await front.get("/v2/talkative/manifests/latest", headers={"Accept": DOCKER})

        lines = [event.line for event in front.told(LogLine)]
    assert status == 200
    assert "1" in lines
    assert "60000" in lines, "343 KB of log hang a peer"


async def test_labels_say_what_it_was_made_of(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        image = await front.pull("hello")

    labels = json.loads(json.dumps(image.config))["config"]["Labels"]
    assert labels["nixfront.package-set"] == "path"
    assert labels["nixfront.packages"] == "hello-1.0 nss-cacert-3.0"
    assert len(labels["nixfront.revision"]) == 64
