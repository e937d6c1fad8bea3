"""The documents of images on a real stock registry: attached, found by every client's ways, printed, and deleted with the image."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import cli, settings
from proxy.core.model import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json, digest_of
from proxy.trust import kinds, readers
from proxy.trust.kinds import KINDS
from proxy.wiring import commands
from tests.support import handmade
from tests.support.attached import attached, check_ended
from tests.support.attested import check_documents
from tests.support.commands import Command, set_back
from tests.support.front import PACKAGES, Front, front
from tests.support.layout import read_layout
from tests.support.servers import Server, stock_registry
from tests.support.stored import digest_of_tag
from tests.support.validate import EVERY_TYPE, check_image
from tests.support.wait import until

Start = Callable[..., AbstractAsyncContextManager[Front]]
ON = {"attach": True, "builder": "https://images.example.org"}
OFF = {"attach": False}
NOTE = b"a person's note"


@pytest.fixture(autouse=True)
def _documents_are_made_here() -> None:
    """Here they are made by the child process of a service."""


async def documents_of(url: str, repository: str, digest: str) -> dict[str, bytes]:
    async with aiohttp.ClientSession(url) as session:
        return await attached(session, repository, digest)


async def kept(folder: Path) -> None:
    """Wait until nixfront has kept its promises."""
    await until(lambda: not [*(folder / "data/attachments").glob("*.json")])


async def person_attaches(registry: str, repository: str, digest: str) -> dict[str, Any]:
    """What `oras attach` does at a registry without the API: put an artifact, read the list, add a line, write the list."""
    async with aiohttp.ClientSession(registry) as session:
        for data in (NOTE, b"{}"):
            await handmade.push_blob(session, repository, data)
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": digest_of(b"{}")}
        layer = {"mediaType": "text/plain", "size": len(NOTE), "digest": digest_of(NOTE)}
        artifact = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": "example/note",
                "config": config,
                "layers": [layer],
            }
        )
        entry = {
            "mediaType": OCI_MANIFEST,
            "size": len(artifact),
            "digest": digest_of(artifact),
            "artifactType": "example/note",
        }
        path, tag = f"/v2/{repository}/manifests", digest.replace(":", "-")
        async with session.get(f"{path}/{tag}", headers={"Accept": OCI_INDEX}) as answer:
            there = json.loads(await answer.read())["manifests"] if answer.status == 200 else []
        index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*there, entry]})
    await handmade.put_manifest(registry, repository, digest_of(artifact), OCI_MANIFEST, artifact)
    await handmade.put_manifest(registry, repository, tag, OCI_INDEX, index)
    return entry


async def test_every_image_has_its_documents(
    start: Start,
    registry: Server,
    tmp_path: Path,
    nix_count: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    nixfront = Command(tmp_path, registry.url, monkeypatch, capsys)
    insecure = {"allow_insecure": ("insecure-1.0",)}
    async with start(registry.url, trust=ON, policy=insecure, answers={"seconds": 0}) as running:
        image = await running.pull("shell/hello/insecure")
    # It ended at once, so documents are still due. A person attaches something, and nixfront starts again.
    entry = await person_attaches(registry.url, "shell/hello/insecure", image.digest)
    async with start(registry.url, trust=ON, policy=insecure, answers={"seconds": 0}) as running:
        await kept(tmp_path)
        again = await running.pull("shell/hello/insecure")
        other = await running.pull("hello")
        await kept(tmp_path)
        documents = await documents_of(running.url, "shell/hello/insecure", image.digest)
        parsed = check_documents(documents, image.digest)
        assert again.digest == image.digest, "not one byte of the image is another"
        await check_what_they_say(parsed)

        # Clients find them by the tag, as the registry has no API; no list of images shows that tag.
        tag = image.digest.replace(":", "-")
        accepted = {"Accept": OCI_INDEX}
        status, _, body = await running.get(f"/v2/shell/hello/insecure/manifests/{tag}", headers=accepted)
        assert status == 200
        assert entry in json.loads(body)["manifests"], "what a person attached stays"
        status, _, body = await running.get(f"/v2/hello/referrers/{other.digest}")
        assert status == 404
        assert b"NAME_UNKNOWN" not in body, "oras reads the tag only then"
        assert (await running.get(f"/v2/hello/manifests/sha256-{'0' * 64}"))[0] == 404
        assert not [event for event in running.events if tag in str(event)]
        _, _, body = await running.get("/v2/shell/hello/insecure/tags/list")
        assert "latest" in json.loads(body)["tags"]
        assert tag not in json.loads(body)["tags"]
        listed = {one["repository"]: one for one in await nixfront("images")}
        assert tag not in listed["shell/hello/insecure"]["tags"]
        attached = sum(map(len, documents.values())) + len(NOTE)
        assert listed["shell/hello/insecure"]["attached"] == attached
        assert listed["shell/hello/insecure"]["own"] > attached, (
            "they are in no other image, and neither is its root"
        )
        assert (await nixfront("reindex"))["strangers"] == []
        _, _, page = await running.get("/images", headers={"Accept": "text/html"})
        assert b"shell/hello/insecure" in page
        assert tag.encode() not in page

        for kind, document in documents.items():
            code = await asyncio.to_thread(cli.main, ["attest", "shell/hello/insecure", "--format", kind])
            assert (code, capsys.readouterr().out) == (0, document.decode() + "\n")
        await check_page(running, image.digest, documents)
        await check_hostile_documents(running, registry.url)

    # Another store, another registry, another order: the same documents.
    await check_elsewhere(tmp_path / "elsewhere", nix_count, insecure, image.digest, documents)
    await check_prune(nixfront, tmp_path, registry, image.digest, entry)


async def check_what_they_say(parsed: dict[str, Any]) -> None:
    packages = {package["name"]: package for package in parsed["spdx"]["packages"]}
    assert packages["hello"]["licenseDeclared"] == "MIT"
    assert packages["hello"]["homepage"] == "https://example.org/hello"
    assert packages["hello"]["description"] == "Says hello"
    assert {"common", "insecure", "bash-interactive"} <= set(packages)
    external = [reference["referenceLocator"] for reference in packages["insecure"]["externalRefs"]]
    assert "https://nvd.nist.gov/vuln/detail/CVE-2026-0001" in external
    paths = {component["name"]: component["bom-ref"] for component in parsed["cyclonedx"]["components"]}
    needs = {one["ref"]: one.get("dependsOn", []) for one in parsed["cyclonedx"]["dependencies"]}
    assert needs[paths["hello"]] == [paths["common"]]
    assert [one["id"] for one in parsed["cyclonedx"]["vulnerabilities"]] == ["CVE-2026-0001"]
    predicate = parsed["provenance"]["predicate"]
    assert predicate["runDetails"]["builder"]["id"] == ON["builder"]
    assert predicate["buildDefinition"]["externalParameters"]["metaPackages"] == ["shell"]
    derivations = [
        one["uri"]
        for one in predicate["buildDefinition"]["resolvedDependencies"]
        if "outputs" in one["annotations"]
    ]
    assert any(uri.endswith("-hello-1.0.drv") for uri in derivations)


async def check_page(running: Front, digest: str, documents: dict[str, bytes]) -> None:
    """The page of the image says what the documents say, and hands them out as they are."""
    status, _, body = await running.get(f"/images/{digest}/shell/hello/insecure")
    page = body.decode()
    assert status == 200
    assert f"{len(json.loads(documents['cyclonedx'])['components'])} components" in page
    for text in ("MIT", "bash-interactive", ON["builder"], "-hello-1.0.drv", "<dt>Signed</dt><dd>no</dd>"):
        assert str(text) in page, text
    assert "Somebody else" not in page
    for kind in KINDS.values():
        path = f"/images/{kind.name}/{digest}/shell/hello/insecure"
        assert f'href="{path}"' in page
        status, headers, body = await running.get(path)
        assert (status, body) == (200, documents[kind.name])
        assert headers["Content-Type"] == kind.media_type
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        name = f"shell-hello-insecure-{digest[7:19]}.{kind.file}"
        assert headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert (await running.get(f"/images/spdx/sha256:{'0' * 64}/shell/hello/insecure"))[0] == 404


async def attach(registry: str, repository: str, digest: str, documents: dict[str, bytes]) -> None:
    """What a pusher may do: documents with our annotation, about an image of the pusher's."""
    subject = Descriptor(DOCKER_MANIFEST, 1, digest)
    entries = []
    for name, data in documents.items():
        made = kinds.artifact(KINDS[name], data, subject)
        async with aiohttp.ClientSession(registry) as session:
            for blob in (data, made.config):
                await handmade.push_blob(session, repository, blob)
        await handmade.put_manifest(
            registry, repository, digest_of(made.manifest), OCI_MANIFEST, made.manifest
        )
        entries.append(kinds.entry(KINDS[name], made.document.descriptor))
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    await handmade.put_manifest(registry, repository, digest.replace(":", "-"), OCI_INDEX, index)


async def check_hostile_documents(running: Front, registry: str) -> None:
    """They are text on the page, or a sentence; the page of the image stays."""
    image = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    digest = await handmade.push(registry, "evil", "latest", image)
    markup = "<script>alert(1)</script>"
    component = {"name": markup, "version": markup, "licenses": [{"license": {"name": markup}}]}
    cyclonedx = json.dumps({"components": [component] * 3000}).encode()
    broken = {"cyclonedx": cyclonedx, "spdx": b"[" * 100_000, "provenance": b'{"subject": [{"digest": 1}]}'}
    await attach(registry, "evil", digest, broken)

    async def shown() -> str:
        """The page of the image, once the list of images is read again."""
        status, _, body = await running.get(f"/images/{digest}/evil")
        return body.decode() if status == 200 else ""

    await until(shown)
    page = await shown()
    assert markup not in page
    assert "&lt;script&gt;" in page
    assert "3000 components" in page
    assert page.count('data-label="Its layer"') == readers.MOST_PARTS
    assert "The page cannot show provenance.intoto.json" in page
    status, headers, body = await running.get(f"/images/cyclonedx/{digest}/evil")
    assert (status, body) == (200, cyclonedx)
    assert headers["Content-Disposition"].startswith("attachment;")


async def check_elsewhere(
    folder: Path, nix_count: Path, policy: dict[str, Any], digest: str, documents: dict[str, bytes]
) -> None:
    (folder / "registry").mkdir(parents=True)
    async with (
        stock_registry(folder / "registry") as registry,
        front(folder, nix_count, registry.url, trust=ON, policy=policy) as running,
    ):
        assert (await running.pull("shell/hello/insecure")).digest == digest
        await kept(folder)
        assert await documents_of(running.url, "shell/hello/insecure", digest) == documents


async def check_prune(
    nixfront: Command, folder: Path, registry: Server, digest: str, entry: dict[str, Any]
) -> None:
    """An image takes its documents along, and nothing of anybody else."""
    tag = digest.replace(":", "-")
    other = await digest_of_tag(registry.url, "hello", "latest")
    assert other is not None
    for repository in ("shell/hello/insecure", "hello"):
        await asyncio.to_thread(set_back, folder, repository, 40)
    artifacts = [
        item["digest"]
        for item in (await index_of(registry, "shell/hello/insecure", tag))
        if item["digest"] != entry["digest"]
    ]
    assert len(artifacts) == len(KINDS)

    pruned = await nixfront("prune", "--days", "30", "--yes")

    assert sorted((one["repository"], one["gone"]) for one in pruned) == [
        ("hello", True),
        ("shell/hello/insecure", True),
    ]
    assert await index_of(registry, "shell/hello/insecure", tag) == [entry]
    assert await index_of(registry, "hello", other.replace(":", "-")) == []
    for artifact in artifacts:
        assert await digest_of_tag(registry.url, "shell/hello/insecure", artifact) is None
    assert await digest_of_tag(registry.url, "shell/hello/insecure", entry["digest"]) == entry["digest"]


async def index_of(registry: Server, repository: str, tag: str) -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession(registry.url) as session,
        session.get(f"/v2/{repository}/manifests/{tag}", headers={"Accept": OCI_INDEX}) as answer,
    ):
        if answer.status == 404:
            return []
        manifests: list[dict[str, Any]] = json.loads(await answer.read())["manifests"]
        return manifests


async def test_images_of_before_get_theirs_and_so_do_those_of_an_index(
    start: Start, registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The documents belong to the image of each platform. They can be made again without a promise of the data folder."""
    packages = {"kind": "path", "path": str(PACKAGES / "platforms")}
    both = {"index": True, "platforms": ("linux/amd64", "linux/arm64")}
    nixfront = Command(tmp_path, registry.url, monkeypatch, capsys)
    monkeypatch.setenv("NIXFRONT_PACKAGES_PATH", packages["path"])
    monkeypatch.setenv("NIXFRONT_IMAGE_INDEX", "true")
    monkeypatch.setenv("NIXFRONT_IMAGE_PLATFORMS", json.dumps(both["platforms"]))
    async with start(registry.url, packages=packages, image=both, trust=OFF) as running:
        digest, children = await index_and_children(running, "hello")
        assert [await documents_of(running.url, "hello", child) for child in children] == [{}, {}]
        with pytest.raises(AssertionError, match="it has no documents but"):
            await check_ended(registry.url, promises=())
        await handmade.push(registry.url, "hello", "mine", handmade.image([b""]))

        found = await nixfront("reindex", "--attach")
        assert found["attached"] == [{"name": "hello:1.0", "digest": digest, "error": ""}]
        for child in children:
            documents = await documents_of(running.url, "hello", child)
            assert set(check_documents(documents, child)) == set(KINDS)
        await check_ended(registry.url, promises=())
        assert (await nixfront("reindex", "--attach"))["attached"] == [], "they have them now"
        assert [await index_of(registry, "hello", each.replace(":", "-")) for each in (digest,)] == [[]]

    async with start(registry.url, packages=packages, image=both, trust=ON) as running:
        _, others = await index_and_children(running, "other")
        await kept(tmp_path)
        for child in others:
            assert set(check_documents(await documents_of(running.url, "other", child), child)) == set(KINDS)


async def index_and_children(running: Front, repository: str) -> tuple[str, list[str]]:
    headers = {"Accept": ", ".join(EVERY_TYPE)}
    _, headers, body = await running.get(f"/v2/{repository}/manifests/latest", headers=headers)
    return headers["Docker-Content-Digest"], [each["digest"] for each in json.loads(body)["manifests"]]


async def test_a_layout_has_them_too(tmp_path: Path, nix_count: Path) -> None:
    chosen = settings.load(
        None,
        {},
        data={"dir": str(tmp_path / "data")},
        nix={"store": str(tmp_path / "store")},
        packages={"kind": "path", "path": str(PACKAGES)},
        image={"index": False},
    )
    digest = await commands.build(chosen, "hello", "latest", tmp_path / "layout")

    assert check_image(read_layout(tmp_path / "layout", "latest")).digest == digest
    index = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    names = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"] for item in index}
    blobs = tmp_path / "layout/blobs/sha256"

    def read(digest: str) -> bytes:
        return (blobs / digest.removeprefix("sha256:")).read_bytes()

    documents = {}
    for item in json.loads(read(names[digest.replace(":", "-")]))["manifests"]:
        artifact = json.loads(read(item["digest"]))
        assert artifact["subject"]["digest"] == digest
        documents[item["annotations"]["nixfront.document"]] = read(artifact["layers"][0]["digest"])
    assert set(check_documents(documents, digest)) == set(KINDS)
