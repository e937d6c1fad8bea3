"""Digests that the registry lost: nixfront makes the image again, and serves it only if its digest is the same."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from proxy.core.events import BuildEnded, BuildStarted
from proxy.core.model import digest_of
from proxy.web import healing
from tests.support import handmade
from tests.support.clients import SKOPEO_COPY
from tests.support.commands import Command, set_back
from tests.support.front import PACKAGES, Front
from tests.support.processes import run, succeed
from tests.support.servers import Server
from tests.support.shim import shim
from tests.support.stored import stored_tags
from tests.support.validate import EVERY_TYPE, validate

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
TEN = (
    "hello",
    "alpha",
    "beta",
    "git",
    "nano",
    "hello/alpha",
    "shell/git",
    "foreign/hello",
    "several",
    "large",
)
EVERY = {"Accept": ", ".join(EVERY_TYPE)}
HANDMADE = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])


@pytest.fixture
def nixfront(tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    return Command(tmp_path, registry.url, monkeypatch, capsys)


async def empty(folder: Path) -> None:
    """All that the registry stores goes, under the registry that runs."""
    await asyncio.to_thread(shutil.rmtree, folder / "registry" / "data" / "docker")


async def write(state: Path, *statements: str) -> None:
    """Let the state say something else, beside the nixfront that runs."""

    def execute() -> None:
        connection = sqlite3.connect(state, timeout=60, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    await asyncio.to_thread(execute)


def host(front: Front) -> str:
    return front.url.removeprefix("http://")


@pytest.mark.without_documents("it empties the registry behind builds, and counts tags")
async def test_ten_images_come_back_by_digest_after_the_registry_lost_all(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    async with start(registry.url, answers={"seconds": 0}) as front:
        digests = {}
        for name in TEN:
            status, headers, _ = await front.get(f"/v2/{name}/manifests/latest", headers=EVERY)
            assert status == 200
            digests[name] = headers["Docker-Content-Digest"]
        await handmade.push(registry.url, "hello", "mine", HANDMADE)
        await empty(tmp_path)
        begun = len(front.told(BuildStarted))

        for name, digest in digests.items():
            target = tmp_path / f"copy-{name.replace('/', '-')}"
            source = f"docker://{host(front)}/{name}@{digest}"
            await succeed((*SKOPEO_COPY, "--preserve-digests", source, f"dir:{target}"))
            manifest = await asyncio.to_thread((target / "manifest.json").read_bytes)
            assert digest_of(manifest) == digest, "and skopeo has compared the digests of all blobs"
        assert (await validate(front.url, "hello", digests["hello"])).digest == digests["hello"]

        assert len(front.told(BuildStarted)) == begun + len(TEN)
        assert {event.error for event in front.told(BuildEnded)} == {""}
        assert await stored_tags(registry.url) == [], "no tag comes back by itself"

        # What people pushed is nobody's to make again, and a guess builds nothing.
        for digest in (digest_of(HANDMADE.manifest), f"sha256:{'0' * 64}"):
            for kind in ("manifests", "blobs"):
                assert (await front.get(f"/v2/hello/{kind}/{digest}", headers=EVERY))[0] == 404
        # Nor does a digest of ours in a repository that never had it.
        assert (await front.get(f"/v2/nano/manifests/{digests['hello']}", headers=EVERY))[0] == 404
        assert len(front.told(BuildStarted)) == begun + len(TEN)


async def test_a_blob_comes_back_where_the_manifest_is_still_there(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    async with start(registry.url, answers={"seconds": 0}) as front:
        image = await front.pull("hello")
        manifest = json.loads((await front.get(f"/v2/hello/manifests/{image.digest}", headers=EVERY))[2])
        for blob in (manifest["config"], manifest["layers"][0], manifest["layers"][-1]):
            digest = blob["digest"]
            algorithm, _, encoded = digest.partition(":")
            link = (
                tmp_path / "registry/data/docker/registry/v2/repositories/hello/_layers" / algorithm / encoded
            )
            await asyncio.to_thread(shutil.rmtree, link)
            assert (await front.get(f"/v2/hello/blobs/{digest}", "HEAD"))[0] == 404, "it may be before a push"
            status, _, body = await front.get(f"/v2/hello/blobs/{digest}")
            assert (status, digest_of(body)) == (200, digest)

        assert await validate(front.url, "hello", image.digest) == image


@pytest.mark.without_documents("it counts manifests that the registry is asked for")
async def test_guesses_of_blobs_cost_one_look_at_each_manifest(
    start: Start, registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "_REFUSED", 3600.0)  # a slow machine takes longer than it holds
    guesses = [f"/v2/hello/blobs/sha256:{digit * 64}" for digit in "0123"]
    async with shim(registry.url) as relay, start(relay.url, answers={"seconds": 0}) as front:
        await front.pull("hello")
        await empty(tmp_path)
        before = relay.counts["GET", "manifest"]
        for guess in guesses:
            assert (await front.get(guess))[0] == 404
        assert relay.counts["GET", "manifest"] == before + 1, (
            "what the registry refused is not asked for at once"
        )


async def test_what_cannot_be_made_again_says_why(start: Start, registry: Server, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    await asyncio.to_thread(shutil.copytree, PACKAGES, packages)
    sets = {"team": {"kind": "path", "path": str(packages)}}
    async with start(registry.url, sets=sets) as front:
        first = await front.pull("team/hello")
        other = await front.pull("hello")
    await empty(tmp_path)

    async with start(registry.url, sets=sets, image={"format": "oci"}) as front:
        path = f"/v2/hello/manifests/{other.digest}"
        status, _, body = await front.get(path, headers=EVERY)
        assert status == 404
        assert b"image.format was docker and is oci" in body
        begun = len(front.told(BuildStarted))
        assert (await front.get(path, headers=EVERY))[2] == body, "the answer is kept"
        assert len(front.told(BuildStarted)) == begun

    for record in (tmp_path / "data" / "sets").glob("team-*.json"):
        await asyncio.to_thread(record.unlink)
    await asyncio.to_thread((packages / "more.nix").write_text, "{ }")
    async with start(registry.url, sets=sets) as front:
        source = f"docker://{host(front)}/team/hello@{first.digest}"
        outcome = await run((*SKOPEO_COPY, source, f"dir:{tmp_path / 'copy'}"))
        assert outcome.returncode != 0
        assert (
            f"the registry lost team/hello@{first.digest}, and this host cannot make it again"
            in outcome.output
        )
        assert "names no revision of package set team" in outcome.output

        status, _, _ = await front.get(f"/v2/hello/manifests/{other.digest}", headers=EVERY)
        assert status == 200, "the settings of then are back"

    async with start(registry.url) as front:  # and `team` is no package set any more
        status, _, body = await front.get(f"/v2/team/hello/manifests/{first.digest}", headers=EVERY)
        assert (status, b"no package team" in body) == (404, True)


@pytest.mark.without_documents("it empties the registry behind builds")
async def test_an_index_and_each_image_of_it_come_back(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    packages = {"kind": "path", "path": str(PACKAGES / "platforms")}
    both = {"index": True, "platforms": ("linux/amd64", "linux/arm64")}
    async with start(registry.url, packages=packages, image=both, answers={"seconds": 0}) as front:
        _, headers, body = await front.get("/v2/hello/manifests/latest", headers=EVERY)
        index, children = (
            headers["Docker-Content-Digest"],
            [each["digest"] for each in json.loads(body)["manifests"]],
        )
        assert len(children) == 2

        for wanted in (children[1], index):
            await empty(tmp_path)
            path = f"/v2/hello/manifests/{wanted}"
            status, headers, body = await front.get(path, headers=EVERY)
            assert (status, headers["Docker-Content-Digest"], digest_of(body)) == (200, wanted, wanted)
        for child in children:
            assert (await validate(front.url, "hello", child)).digest == child


@pytest.mark.without_documents("it empties the registry behind builds")
async def test_who_may_have_what_is_lost_and_what_records_say(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    """One store for all of it, as each new one has to build the packages anew."""
    state = tmp_path / "data" / "state.sqlite"
    async with start(registry.url, answers={"seconds": 0}) as front:
        images = {name: await front.pull(name) for name in ("hello", "alpha", "beta")}
        for name in images:
            await asyncio.to_thread(set_back, tmp_path, name, 40)

        pruned = {each["repository"]: each for each in await nixfront("prune", "--keep-records", "--yes")}
        assert {name: each["gone"] for name, each in pruned.items()} == dict.fromkeys(images, True)
        assert await nixfront("prune", "--yes") == [], "what is gone is not old"
        assert await front.pull("hello", images["hello"].digest) == images["hello"]

    assert await nixfront("prune", "--yes") == [], "it counts as new"

    rules = {"repositories": ("alpha", "beta"), "builds_per_minute": 1}
    await empty(tmp_path)
    async with start(registry.url, access=rules) as front:
        paths = {name: f"/v2/{name}/manifests/{image.digest}" for name, image in images.items()}
        answers = {name: await front.get(path, headers=EVERY) for name, path in paths.items()}
        assert {name: answer[0] for name, answer in answers.items()} == {
            "hello": 404,
            "alpha": 200,
            "beta": 429,
        }
        assert b"access.repositories" in answers["hello"][2]

    # Without a state, the labels of images say how they are made.
    async with start(registry.url) as front:
        assert await front.pull("alpha") == images["alpha"]
    for suffix in ("", "-wal", "-shm"):
        await asyncio.to_thread(Path(f"{state}{suffix}").unlink, missing_ok=True)
    await nixfront("reindex")
    await empty(tmp_path)
    async with start(registry.url, answers={"seconds": 0}) as front:
        assert await front.pull("alpha", images["alpha"].digest) == images["alpha"]

        # A record that is older than these facts has the revision of its tag, which older versions wrote in full.
        path = f"/v2/alpha/manifests/{images['alpha'].digest}"
        labels: dict[str, str] = images["alpha"].config["config"]["Labels"]  # type: ignore[index]
        await write(
            state,
            "UPDATE images SET revision = '', settings = ''",
            "UPDATE tags SET tag = 'FULL' WHERE repository = 'alpha' AND tag LIKE 'revision-%'".replace(
                "FULL", labels["nixfront.revision"]
            ),
        )
        await empty(tmp_path)
        assert (await front.get(path, headers=EVERY))[0] == 200
        await write(state, "UPDATE images SET revision = ''", "DELETE FROM tags")
        await empty(tmp_path)
        status, _, body = await front.get(path, headers=EVERY)
        assert (status, b"does not say its revision" in body) == (404, True)
