"""One name for every platform: the index, what each client gets of it, and all that has to know an index."""

import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from proxy import settings
from proxy.core.errors import TagUnknown
from proxy.core.events import BuildEnded, BuildStarted, LayersReady, PlatformEnded
from proxy.core.model import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EVERY_MANIFEST_TYPE,
    OCI_INDEX,
    OCI_MANIFEST,
    canonical_json,
)
from proxy.registry.client import Registry
from proxy.registry.endpoint import Endpoint
from proxy.settings import Settings
from proxy.state.memory import MemoryState
from proxy.upkeep import census
from proxy.upkeep.explain import explain
from proxy.web.page.image_list import ImageList
from proxy.wiring import commands
from proxy.wiring.verification import verifier
from tests.support import handmade
from tests.support.clients import skopeo_copy
from tests.support.front import PACKAGES, Front
from tests.support.front import front as start_front
from tests.support.layout import named_in
from tests.support.processes import run
from tests.support.servers import Server, stock_registry
from tests.support.shim import shim
from tests.support.stored import digest_of_tag, stored_tags

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
SET = {"kind": "path", "path": str(PACKAGES / "platforms")}
BOTH = {"index": True, "platforms": ("linux/amd64", "linux/arm64")}
AMD, ARM = {"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux", "variant": "v8"}
EVERY = {"Accept": EVERY_MANIFEST_TYPE}
SOON = 1e5  # seconds after which every image of a test is old


async def index(front: Front, repository: str, reference: str = "latest") -> tuple[str, dict[str, Any]]:
    """The digest and the document that a modern client gets."""
    path = f"/v2/{repository}/manifests/{reference}"
    status, headers, body = await front.get(path, headers=EVERY)
    assert status == 200, body
    document: dict[str, Any] = json.loads(body)
    assert headers["Content-Type"] == document["mediaType"]
    return headers["Docker-Content-Digest"], document


async def refusal(front: Front, repository: str, agent: str = "") -> str:
    headers = {**EVERY, "User-Agent": agent}
    status, _, body = await front.get(f"/v2/{repository}/manifests/latest", headers=headers)
    assert status >= 400
    message: str = json.loads(body)["errors"][0]["message"]
    return message


@pytest.fixture
def chosen(tmp_path: Path, registry: Server) -> Settings:
    """The settings of the commands that the operator runs beside the service of `start`."""
    return settings.load(
        None,
        {},
        data={"dir": str(tmp_path / "data")},
        registry={"url": registry.url},
        nix={"store": str(tmp_path / "store")},
        packages=SET,
        image=BOTH,
    )


@pytest.mark.without_documents("it counts tags")
async def test_one_name_has_the_image_of_each_platform(
    start: Start, registry: Server, tmp_path: Path, nix_count: Path
) -> None:
    async with start(registry.url, packages=SET, image=BOTH) as front:
        digest, document = await index(front, "hello")
        assert document["mediaType"] == DOCKER_LIST
        assert [each["platform"] for each in document["manifests"]] == [AMD, ARM]
        assert {each["mediaType"] for each in document["manifests"]} == {DOCKER_MANIFEST}
        assert "annotations" not in document
        tags = {each.tag: each.digest for each in await stored_tags(registry.url)}
        assert len(tags) == 4, "latest, the version, the revision, and the hash of all outputs"
        assert set(tags.values()) == {digest}

        amd, arm = [await front.pull("hello", each["digest"]) for each in document["manifests"]]
        assert [amd.config["architecture"], arm.config["architecture"]] == ["amd64", "arm64"]
        shared = {layer.digest for layer in amd.layers} & {layer.digest for layer in arm.layers}
        assert len(shared) == 1, "the data that both need"
        ready = [(event.ready, event.total) for event in front.told(LayersReady)]
        assert ready[-1] == (6, 6), "a build counts the layers of both"
        assert [event.digest for event in front.told(BuildEnded)] == [digest]
        assert {event.platform for event in front.told(PlatformEnded)} == {"linux/amd64", "linux/arm64"}

        # A prefix gives that platform alone, and the very manifest of the index.
        for prefix, image in (("amd64", amd), ("arm64", arm)):
            alone = await front.pull(f"{prefix}/hello")
            assert (alone.digest, alone.media_type) == (image.digest, DOCKER_MANIFEST)

        # Clients: the registry's choice for one that takes no index, the index for one that takes everything.
        for accepted, expected in (
            (DOCKER_MANIFEST, amd.digest),
            (f"{OCI_MANIFEST}, {DOCKER_MANIFEST}", amd.digest),
            (OCI_MANIFEST, digest),
            ("*/*", digest),
            (DOCKER_LIST, digest),
        ):
            for method in ("HEAD", "GET"):
                status, headers, _ = await front.get(
                    "/v2/hello/manifests/latest", method, headers={"Accept": accepted}
                )
                assert (status, headers["Docker-Content-Digest"]) == (200, expected), accepted
                assert "Accept" in headers["Vary"]
        host = front.url.removeprefix("http://")
        for architecture in ("amd64", "arm64"):
            command = (
                "skopeo",
                f"--override-arch={architecture}",
                "inspect",
                "--tls-verify=false",
                "--config",
            )
            inspected = await run((*command, f"docker://{host}/hello"))
            assert json.loads(inspected.stdout)["architecture"] == architecture
        refused = await run(
            ("skopeo", "--override-arch=s390x", "inspect", "--tls-verify=false", f"docker://{host}/hello")
        )
        assert "no image found in manifest list for architecture s390x" in refused.stderr

        # A pull of what is there costs no build; the digest of a child serves those who pin it.
        assert (await index(front, "hello", digest))[0] == digest
        assert len(front.told(BuildStarted)) == 3

    # Another store, another registry, another order of the pulls: the same digests.
    other = tmp_path / "other"
    (other / "registry").mkdir(parents=True)
    async with (
        stock_registry(other / "registry") as second,
        start_front(other, nix_count, second.url, packages=SET, image=BOTH) as front,
    ):
        assert (await front.pull("arm64/hello")).digest == arm.digest
        assert (await index(front, "other"))[0] != digest
        assert (await index(front, "hello"))[0] == digest


async def test_a_platform_that_cannot_be_made_is_left_out_and_named(start: Start, registry: Server) -> None:
    oci = {**BOTH, "format": "oci"}
    async with start(registry.url, packages=SET, image=oci) as front:
        _, document = await index(front, "onlyamd")
        assert document["mediaType"] == OCI_INDEX
        assert [each["platform"] for each in document["manifests"]] == [AMD]
        reasons = json.loads(document["annotations"]["nixfront.missing"])
        assert list(reasons) == ["linux/arm64"]
        assert reasons["linux/arm64"].startswith(
            "only-amd-1.0 is not made for this system, but for x86_64-linux"
        )

        _, document = await index(front, "failing")
        reasons = json.loads(document["annotations"]["nixfront.missing"])
        assert reasons == {"linux/arm64": "Nix can neither build nor fetch the packages"}
        failed = [event for event in front.told(PlatformEnded) if event.outcome == "BuildFailed"]
        assert [event.platform for event in failed] == ["linux/arm64"]
        assert "failing-1.0" in failed[0].error, "the log says what the index leaves out"

        # None at all: one message where all platforms say the same, else the one of the client's platform first.
        assert (await refusal(front, "helo")).count("no package helo") == 1
        assert (await refusal(front, "nowhere")).count("not made for this system") == 1
        message = await refusal(front, "mixed")
        assert message.index("for linux/amd64: mixed-1.0 is not made") < message.index("for linux/arm64:")
        message = await refusal(front, "mixed", "docker/20.10.24 go/go1.19.8 kernel/6.1 os/linux arch/arm64")
        assert message.index("for linux/arm64: mixed-1.0 is marked as broken") < message.index("linux/amd64:")
        assert not [event for event in front.told(BuildEnded) if event.outcome == "Unforeseen"]


@pytest.mark.without_documents("it counts tags")
async def test_single_manifests_stay_served_and_become_indexes_when_they_are_refreshed(
    start: Start, registry: Server, chosen: Settings
) -> None:
    full = ("hello", "other", "onlyamd", "arm64/hello")
    async with start(registry.url, packages=SET) as front:
        singles = {name: (await front.pull(name)).digest for name in full}
        before = await front.pull("hello")
        async with verifier(chosen) as compared:
            assert (await compared.one("hello", "latest")).is_same, "it is an image of the index of today"
    tags = await stored_tags(registry.url)
    async with start(registry.url, packages={**SET, "refresh": "never"}, image=BOTH) as front:
        assert {name: (await front.pull(name)).digest for name in full} == singles
        assert front.told(BuildStarted) == []
    due = {**SET, "time_to_live": 0, "refresh": "wait"}
    async with start(registry.url, packages=due, image=BOTH, answers={"seconds": 0}) as front:
        digest, document = await index(front, "hello")
        assert [each["platform"] for each in document["manifests"]] == [AMD, ARM]
        assert document["manifests"][0]["digest"] == before.digest, "its image is the one that was there"
        async with verifier(chosen) as compared:
            assert (await compared.one("hello", "latest")).is_same
        builds = len(front.told(BuildStarted))
        assert (await index(front, "hello"))[0] == digest
        assert len(front.told(BuildStarted)) == builds, "what the tag means has not changed"
        for name, platforms in (("other", [AMD, ARM]), ("onlyamd", [AMD])):
            entries = (await index(front, name))[1]["manifests"]
            assert [each["platform"] for each in entries] == platforms
            assert entries[0]["digest"] == singles[name]
        assert (await front.pull("arm64/hello")).digest == singles["arm64/hello"], "one platform by its name"

        # A platform whose build failed is tried again when the tag is due.
        first, _ = await index(front, "failing")
        builds = len(front.told(BuildStarted))
        assert (await index(front, "failing"))[0] == first
        assert len(front.told(BuildStarted)) == builds + 1
    pinned = [tag for tag in tags if tag.tag not in ("latest", "1.0")]
    assert len(pinned) == 2 * len(full), "of each, the revision and the hash of its outputs"
    for tag in pinned:
        assert await digest_of_tag(registry.url, tag.repository, tag.tag) == tag.digest, "it never moves"


async def requests_of_pull(url: str, repository: str, target: Path) -> Counter[tuple[str, str]]:
    """The requests of a client that copies an image of this host's platform."""
    async with shim(url) as relay:
        source = f"docker://{relay.url.removeprefix('http://')}/{repository}:latest"
        await skopeo_copy(source, f"dir:{target}", "--override-arch=amd64")
        return relay.counts


async def prune(chosen: Settings) -> AsyncIterator[tuple[str, str]]:
    """Delete all that nothing needs; yields the digest of each image, and why it stays."""
    async with commands.pruner(chosen) as pruner:
        for old in await pruner.old(time.time() + SOON):
            yield old.digest, old.kept or (await pruner.prune(old)).kept


@pytest.mark.without_documents("it counts tags")
async def test_prune_and_reindex_know_indexes(
    start: Start, registry: Server, chosen: Settings, tmp_path: Path
) -> None:
    async with start(registry.url, packages=SET, image=BOTH, answers={"seconds": 0}) as front:
        hello, document = await index(front, "hello")
        other, others = await index(front, "other")
        amd, arm = (each["digest"] for each in document["manifests"])

        # Pull an image alone by its digest, long after the index: the index stays, and so does the other image.
        async with commands.pruner(chosen) as pruner:
            state = pruner._state
            await state.record_pulls({("hello", arm): (time.time() + 2 * SOON, 1)})
        assert {digest for digest, _ in [each async for each in prune(chosen)]} == {
            other,
            *(each["digest"] for each in others["manifests"]),
        }
        # The index of somebody else keeps an image of ours, and no more.
        stored = await stored_tags(registry.url)
        assert {(each.repository, each.digest) for each in stored} == {("hello", hello)}
        assert len(stored) == 4, "latest, the version, the revision, and the hash of all outputs"
        again, others = await index(front, "other")
        assert again == other, "what went is made again when it is asked for"
        wanted = others["manifests"][0]
        theirs = canonical_json({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [wanted]})
        await handmade.put_manifest(registry.url, "other", "theirs", DOCKER_LIST, theirs)

    # The records are lost: what is in the registry tells all of them.
    shutil.rmtree(tmp_path / "data" / "sets", ignore_errors=True)
    (tmp_path / "data" / "state.sqlite").unlink()
    found = await commands.reindex(chosen)
    assert (found.ours, found.strangers) == (8, ["other:theirs"])
    assert found.unproved == 0
    async with start(
        registry.url, packages={**SET, "time_to_live": 0, "refresh": "wait"}, image=BOTH
    ) as front:
        assert (await index(front, "hello"))[0] == hello
    outcome = {digest: kept async for digest, kept in prune(chosen)}
    assert outcome == {
        hello: "",
        amd: "",
        arm: "",
        other: "",
        wanted["digest"]: "index theirs needs it",
        others["manifests"][1]["digest"]: "",
    }
    assert [tag.tag for tag in await stored_tags(registry.url)] == ["theirs"]


async def test_commands_and_the_page_show_the_images_of_an_index(
    start: Start, registry: Server, chosen: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "images.nix"
    file.write_text('{ system, ... }: { web = { packages = [ "hello" ]; cmd = [ "/bin/hello" system ]; }; }')
    oci = {**BOTH, "format": "oci"}
    async with start(registry.url, packages=SET, image=oci, images={"file": str(file)}) as front:
        digest, document = await index(front, "hello")
        amd, arm = (each["digest"] for each in document["manifests"])
        lacking, _ = await index(front, "onlyamd")
        async with Endpoint(front.url).opened() as reached:
            first = await explain(reached, "hello", "latest")
            second = await explain(reached, "hello", "latest", "linux/arm64")
            with pytest.raises(
                TagUnknown, match=r"for linux/arm64: only-amd-1\.0 is not made for this system"
            ):
                await explain(reached, "onlyamd", "latest", "linux/arm64")
            with pytest.raises(TagUnknown, match=r"for linux/s390x; it has linux/amd64, linux/arm64"):
                await explain(reached, "hello", "latest", "linux/s390x")
            assert list((await explain(reached, "onlyamd", "latest")).missing) == ["linux/arm64"]
            listed = ImageList(Registry(reached), MemoryState())
            images = {(image.repository, image.digest): image for image in await listed.all(1)}
        assert (first.digest, first.platform, first.index) == (amd, "linux/amd64", digest)
        assert (second.digest, second.platform, second.index) == (arm, "linux/arm64", digest)
        assert first.platforms == second.platforms == ("linux/amd64", "linux/arm64")
        shown = images["hello", digest]
        assert [child.digest for child in shown.children] == [amd, arm]
        assert [child.platforms for child in shown.children] == [("linux/amd64",), ("linux/arm64",)]
        assert shown.layers == shown.children[0].layers
        assert images["onlyamd", lacking].missing[0][0] == "linux/arm64"
        counted = await census.of_registry(Endpoint(registry.url))
        assert len(counted.images) == 3, "hello of two platforms, and onlyamd"

        # The page shows the layers of the platform that its address names, and links to the others.
        pages = []
        for wanted, other in (("amd64", "arm64"), ("arm64", "amd64")):
            address = f"/images/{digest}/hello?platform=linux%2F{wanted}"
            status, _, markup = await front.get(address, headers={"Accept": "text/html"})
            assert status == 200, markup
            text = markup.decode()
            assert f"layers of linux/{wanted}</h2>" in text
            assert f'href="?platform=linux%2F{other}"' in text
            assert f'href="?platform=linux%2F{wanted}"' not in text
            pages.append(text)
        own = [{layer.digest for layer in child.layers} for child in shown.children]
        for text, mine, others in ((pages[0], own[0], own[1]), (pages[1], own[1], own[0])):
            assert all(layer[7:19] in text for layer in mine)
            assert not any(layer[7:19] in text for layer in others - mine)

        # A pull of what is there costs one request more than a pull of a plain manifest.
        assert (await front.pull("amd64/hello")).digest == amd
        single = await requests_of_pull(front.url, "amd64/hello", tmp_path / "single")
        several = await requests_of_pull(front.url, "hello", tmp_path / "several")
        assert several - single == {("GET", "manifest"): 1}
        assert not single - several
        assert single["GET", "manifest"] == 1

        # A named image is one definition, for each system.
        _, document = await index(front, "images/web")
        pulled = [await front.pull("images/web", each["digest"]) for each in document["manifests"]]
        runs: list[Any] = [image.config["config"] for image in pulled]
        assert [each["Cmd"] for each in runs] == [
            ["/bin/hello", "x86_64-linux"],
            ["/bin/hello", "aarch64-linux"],
        ]
        assert [image.config["architecture"] for image in pulled] == ["amd64", "arm64"]

    layout = tmp_path / "layout"
    assert await commands.build(chosen, "hello", "latest", layout) == digest, "what a pull gets"
    assert await commands.build(chosen, "hello", "latest", tmp_path / "arm", "linux/arm64") == arm
    for folder, expected in ((layout, (OCI_INDEX, digest)), (tmp_path / "arm", (OCI_MANIFEST, arm))):
        entry = named_in(folder, "latest")
        assert (entry["mediaType"], entry["digest"]) == expected
    inspect = ("skopeo", "--override-arch=arm64", "inspect", "--config", f"oci:{layout}:latest")
    assert json.loads((await run(inspect)).stdout)["architecture"] == "arm64"
