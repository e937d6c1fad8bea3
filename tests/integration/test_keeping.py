"""prune, reindex and warm, on a real registry: what is ours may go or be found again, what is a person's never."""

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import cli
from proxy.core.events import BuildStarted
from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST, canonical_json, digest_of
from proxy.image.manifest import sealed, unsealed
from proxy.upkeep import warm
from tests.support import handmade
from tests.support.commands import Command, set_back
from tests.support.front import Front
from tests.support.guarded import PASSWORDS, Right, TokenService, basic, htpasswd_registry, token_registry
from tests.support.servers import Server, stock_registry
from tests.support.stored import digest_of_tag, stored_tags
from tests.support.validate import validate
from tests.support.wait import Gate, until

Start = Callable[..., AbstractAsyncContextManager[Front]]
MADE = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])


@pytest.fixture
def nixfront(tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    return Command(tmp_path, registry.url, monkeypatch, capsys)


async def copy(registry: str, source: str, digest: str, target: str, tag: str) -> None:
    """What `docker tag` and `docker push` do: the same image under another name."""
    async with aiohttp.ClientSession(registry) as session:
        async with session.get(
            f"/v2/{source}/manifests/{digest}", headers={"Accept": DOCKER_MANIFEST}
        ) as answer:
            manifest = await answer.read()
        for blob in (json.loads(manifest)["config"], *json.loads(manifest)["layers"]):
            async with session.post(
                f"/v2/{target}/blobs/uploads/?mount={blob['digest']}&from={source}"
            ) as mounted:
                assert mounted.status == 201
    await handmade.put_manifest(registry, target, tag, DOCKER_MANIFEST, manifest)


async def push_index(registry: str, repository: str, tag: str, digest: str) -> None:
    async with (
        aiohttp.ClientSession(registry) as session,
        session.get(f"/v2/{repository}/manifests/{digest}", headers={"Accept": DOCKER_MANIFEST}) as answer,
    ):
        size = len(await answer.read())
    entry = {
        "mediaType": DOCKER_MANIFEST,
        "size": size,
        "digest": digest,
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    index = canonical_json({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]})
    await handmade.put_manifest(registry, repository, tag, DOCKER_LIST, index)


async def test_prune_deletes_what_nobody_pulls_and_nothing_that_is_needed(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    async with start(registry.url, answers={"seconds": 0}) as front:
        pulled = {name: await front.pull(name) for name in ("hello", "alpha", "beta", "git", "nano", "ci")}
        for name in ("hello", "alpha", "beta", "git", "nano"):
            await asyncio.to_thread(set_back, tmp_path, name, 40)
        # alpha: a person has pushed over `latest`; beta: an index needs it; git: a person has tagged the very image.
        await handmade.push(registry.url, "alpha", "latest", MADE)
        await push_index(registry.url, "beta", "both", pulled["beta"].digest)
        await copy(registry.url, "git", pulled["git"].digest, "git", "stable")
        await handmade.push(registry.url, "stranger", "latest", MADE)
        before = await stored_tags(registry.url)

        told = await nixfront("prune", "--days", "30", "--dry-run")
        assert await stored_tags(registry.url) == before, "it only says so"
        assert not any(image["gone"] for image in told)

        told = {image["repository"]: image for image in await nixfront("prune", "--days", "30", "--yes")}
        after = await stored_tags(registry.url)
        left = {tag.repository for tag in after}

        assert {name for name, image in told.items() if image["gone"]} == {"hello", "alpha", "nano"}
        assert told["beta"]["kept"] == "index both needs it"
        assert told["git"]["kept"] == "tag stable is not ours"
        assert left == {"alpha", "beta", "git", "ci", "stranger"}
        assert await digest_of_tag(registry.url, "alpha", "latest") == digest_of(MADE.manifest)
        assert [tag.tag for tag in after if tag.repository == "alpha"] == ["latest"], (
            "its pinned tags were ours"
        )
        await validate(registry.url, "git", "stable")

        again = await front.pull("hello")
        assert again == pulled["hello"], "what went is made again when it is asked for"
    assert await nixfront("prune", "--days", "30", "--yes") == [], (
        "all were pulled today, which is told in the end at the latest"
    )


async def test_a_pull_keeps_an_image(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    async with start(registry.url) as front:
        await front.pull("hello")
        await asyncio.to_thread(set_back, tmp_path, "hello", 40)
        await asyncio.sleep(0.1)
    async with start(registry.url) as front:
        await front.get("/v2/hello/manifests/latest", "HEAD")
    assert await nixfront("prune", "--days", "30", "--yes") == []


async def test_reindex_finds_again_what_is_ours_and_believes_no_copy(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    async with start(registry.url) as front:
        hello, ordered = await front.pull("hello"), await front.pull("shell/alpha/7zz")
        before = await stored_tags(registry.url)
    await copy(registry.url, "hello", hello.digest, "copied", "latest")
    await copy(registry.url, "hello", hello.digest, "hello", "stable")
    await push_derived(registry.url, "hello", hello.digest, "alpha", "latest")
    await push_derived(registry.url, "hello", hello.digest, "hello", "derived")
    await handmade.push(registry.url, "stranger", "latest", MADE)
    await asyncio.to_thread(shutil.rmtree, tmp_path / "data")

    found = await nixfront("reindex")

    images = [tag for tag in before if not tag.tag.startswith("sha256-")]  # the others list documents
    assert found["ours"] == len(images), "latest, the version and two pinned tags of each"
    assert sorted(found["strangers"]) == ["copied:latest", "hello:stable"]
    assert (found["layers"], found["unproved"]) == (len({*hello.layers[:-1], *ordered.layers[:-1]}), 0)
    async with start(
        registry.url, packages={"time_to_live": 0, "refresh": "wait"}, answers={"seconds": 0}
    ) as front:
        # It is ours, so it is looked at; and nothing has changed, so its tag stays.
        await front.get("/v2/hello/manifests/latest")
        assert len(front.told(BuildStarted)) == 1
        assert await digest_of_tag(registry.url, "hello", "latest") == hello.digest
        assert await digest_of_tag(registry.url, "hello", "stable") == hello.digest
        for repository, tag in (
            ("copied", "latest"),
            ("hello", "stable"),
            ("alpha", "latest"),
            ("hello", "derived"),
        ):
            await front.get(f"/v2/{repository}/manifests/{tag}", headers={"Accept": DOCKER_MANIFEST})
        assert len(front.told(BuildStarted)) == 1
    assert await nixfront("prune", "--days", "30", "--yes") == [], "what was just found is not old"
    assert {tag["repository"] for tag in await nixfront("prune", "--days", "0", "--dry-run")} == {
        "hello",
        "shell/alpha/7zz",
    }


async def test_reindex_takes_no_layer_on_trust(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    """Somebody who may push makes a whole, sealed image of ours, with a program of their own under a true store path."""
    async with start(registry.url) as front:
        hello = await front.pull("hello")
    forged = await forge(registry.url, "hello", hello.digest)
    await asyncio.to_thread(shutil.rmtree, tmp_path / "data")

    found = await nixfront("reindex")
    assert found["unproved"] == 1
    async with start(registry.url) as front:
        alpha = await front.pull("beta")

    assert forged not in {layer.digest for layer in alpha.layers}
    assert {layer.digest for layer in hello.layers[:-1]} <= {layer.digest for layer in alpha.layers}


async def test_reindex_where_nothing_is_in_the_store(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path
) -> None:
    async with start(registry.url) as front:
        hello = await front.pull("hello")
    for folder in ("data", "store"):
        await asyncio.to_thread(shutil.rmtree, tmp_path / folder)

    found = await nixfront("reindex")

    assert (found["layers"], found["unproved"]) == (0, len(hello.layers) - 1)
    async with start(registry.url) as front:
        assert await front.pull("hello") == hello


async def test_the_embedded_registry_is_kept_too(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    nixfront = Command(tmp_path, "", monkeypatch, capsys)
    async with start("", answers={"seconds": 0}) as front:
        await front.pull("hello")
        assert (await nixfront("reindex"))["ours"] == 4, "while it serves"
        await asyncio.to_thread(set_back, tmp_path, "hello", 40)
        assert [image["gone"] for image in await nixfront("prune", "--days", "30", "--yes")] == [True]
        await front.pull("hello")
    assert (await nixfront("reindex"))["ours"] == 4, "and while it does not"


async def test_a_registry_that_deletes_nothing_says_so(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    sections = {"storage": {"filesystem": {"rootdirectory": str(tmp_path / "fixed" / "data")}}}
    (tmp_path / "fixed").mkdir()
    async with stock_registry(tmp_path / "fixed", sections=sections) as registry:
        Command(tmp_path, registry.url, monkeypatch, capsys)
        async with start(registry.url) as front:
            await front.pull("hello")
        await asyncio.to_thread(set_back, tmp_path, "hello", 40)
        code = await asyncio.to_thread(cli.main, ["prune", "--yes"])

    assert code == 1
    assert "storage.delete.enabled" in capsys.readouterr().err


async def test_warm_makes_what_is_on_the_list(
    start: Start, registry: Server, nixfront: Command, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "list").write_text(
        "# what everybody wants\nhello\n\nshell/alpha:latest # and this\nhello:latest\n"
    )
    (tmp_path / "bad").write_text("alpha\nhelo\n")
    async with start(registry.url) as front:
        warmed = await nixfront("warm", str(tmp_path / "list"), "--url", front.url)
        assert [one["name"] for one in warmed] == ["hello:latest", "shell/alpha:latest"]
        assert all(one["digest"] for one in warmed)
        assert sorted(event.repository for event in front.told(BuildStarted)) == ["hello", "shell/alpha"]

        code = await asyncio.to_thread(cli.main, ["warm", str(tmp_path / "bad"), "--url", front.url])
        out, err = capsys.readouterr()
    assert code == 1
    assert out.startswith("alpha:latest  sha256:")
    assert "helo:latest: 404 no package helo, did you mean hello?" in err
    assert {"hello", "shell/alpha", "alpha"} <= {tag.repository for tag in await stored_tags(registry.url)}


async def test_warm_comes_again_where_it_is_told_to(
    start: Start,
    registry: Server,
    nixfront: Command,
    tmp_path: Path,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "list").write_text("gated\nhello\nalpha\nbeta\n")
    pauses: list[str] = []

    def short(retry_after: str) -> float:
        pauses.append(retry_after)
        if len(pauses) == 3:
            gate.open()
        return 0.5

    # A pause of 30 s for whoever comes while one is built: the list bears it, and it is shortened here.
    monkeypatch.setattr(warm, "_seconds", short)
    monkeypatch.setattr(warm, "_TRIES", 1000)
    async with start(registry.url, builds={"at_once": 1, "share": 1, "queue": 0}) as front:
        building = asyncio.create_task(front.get("/v2/gated/manifests/latest"))
        await until(lambda: front.told(BuildStarted))
        warmed = await nixfront("warm", str(tmp_path / "list"), "--url", front.url)
        await building

    assert all(one["digest"] for one in warmed)
    assert set(pauses) == {"30"}


async def push_derived(registry: str, source: str, digest: str, target: str, tag: str) -> None:
    """What `docker build` makes of `FROM` an image of ours and one `ENV`: all labels and layers are inherited."""

    def change(config: dict[str, Any]) -> None:
        config["config"]["Env"].append("MINE=yes")
        config["history"].append({"created_by": "ENV MINE=yes", "empty_layer": True})

    await push_changed(registry, source, digest, target, tag, change)


async def push_changed(
    registry: str, source: str, digest: str, target: str, tag: str, change: Callable[[dict[str, Any]], None]
) -> None:
    headers = {"Accept": DOCKER_MANIFEST}
    async with aiohttp.ClientSession(registry) as session:
        async with session.get(f"/v2/{source}/manifests/{digest}", headers=headers) as answer:
            manifest = json.loads(await answer.read())
        async with session.get(f"/v2/{source}/blobs/{manifest['config']['digest']}") as answer:
            config = json.loads(await answer.read())
        if target != source:
            await copy(registry, source, digest, target, tag)
        change(config)
        data = json.dumps(config).encode()
        await handmade.push_blob(session, target, data)
    manifest["config"] |= {"size": len(data), "digest": digest_of(data)}
    await handmade.put_manifest(registry, target, tag, DOCKER_MANIFEST, json.dumps(manifest).encode())


async def forge(registry: str, repository: str, digest: str) -> str:
    """The digest of a layer with other content, in an image that is sealed as ours are and stands under `latest`."""

    headers = {"Accept": DOCKER_MANIFEST}
    layer = handmade.gzip_members(handmade.tar(handmade.store_layers(b"#!/bin/sh\necho gotcha\n")[0]))
    async with aiohttp.ClientSession(registry) as session:
        async with session.get(f"/v2/{repository}/manifests/{digest}", headers=headers) as answer:
            manifest = json.loads(await answer.read())
        async with session.get(f"/v2/{repository}/blobs/{manifest['config']['digest']}") as answer:
            config = unsealed(await answer.read())
        assert config is not None
        (number,) = [
            n for n, entry in enumerate(config["history"]) if entry["comment"].endswith("-hello-1.0")
        ]
        config["rootfs"]["diff_ids"][number] = "sha256:" + "0" * 64
        data = sealed(config)
        for blob in (layer, data):
            await handmade.push_blob(session, repository, blob)
    manifest["layers"][number] |= {"size": len(layer), "digest": digest_of(layer)}
    manifest["config"] |= {"size": len(data), "digest": digest_of(data)}
    await handmade.put_manifest(
        registry, repository, "latest", DOCKER_MANIFEST, json.dumps(manifest).encode()
    )
    return digest_of(layer)


@pytest.mark.parametrize("kind", ["password", "token"])
async def test_registries_that_want_credentials_are_kept_too(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, kind: str
) -> None:
    tokens = TokenService(
        {"nixfront": PASSWORDS["nixfront"]},
        [Right("nixfront", "*", ("pull", "push", "delete")), Right("nixfront", "catalog", ("*",))],
    )
    (tmp_path / "guarded").mkdir()
    opened = (
        htpasswd_registry(tmp_path / "guarded")
        if kind == "password"
        else token_registry(tmp_path / "guarded", tokens)
    )
    login = {"username": "nixfront", "password": PASSWORDS["nixfront"]}
    async with opened as registry:
        nixfront = Command(tmp_path, registry.url, monkeypatch, capsys)
        for name, value in login.items():
            monkeypatch.setenv(f"NIXFRONT_REGISTRY_{name.upper()}", value)
        headers = {"Authorization": f"Bearer {tokens.token('nixfront', ['repository:hello:pull'])}"}
        async with start(registry.url, registry=login) as front:
            await front.pull("hello", headers=basic("nixfront") if kind == "password" else headers)
        assert (await nixfront("reindex"))["ours"] == 4
        await asyncio.to_thread(set_back, tmp_path, "hello", 40)
        assert [image["gone"] for image in await nixfront("prune", "--days", "30", "--yes")] == [True]
        assert (await nixfront("reindex"))["ours"] == 0

        monkeypatch.setenv("NIXFRONT_REGISTRY_PASSWORD", "another")
        code = await asyncio.to_thread(cli.main, ["prune", "--yes"])
    out, err = capsys.readouterr()
    assert code == 1
    assert "another" not in out + err
