"""Signatures of images: a client whose policy asks for a key takes what is signed with it, and refuses all else."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy import cli
from proxy.core.model import DOCKER_MANIFEST, OCI_MANIFEST, canonical_json, digest_of
from proxy.trust.signatures import signature_tag
from tests.support import handmade
from tests.support.commands import Command, set_back
from tests.support.front import Front
from tests.support.processes import run
from tests.support.servers import Server
from tests.support.stored import digest_of_tag, stored_tags

Start = Callable[..., AbstractAsyncContextManager[Front]]
IDENTITY = "images.example.org/nix"
MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_KEY = "dev.cosignproject.cosign/signature"
PERSON = {"Accept": "text/html"}
TYPES = {"Accept": f"{OCI_MANIFEST}, {DOCKER_MANIFEST}"}


@pytest.fixture
def nixfront(tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    return Command(tmp_path, registry.url, monkeypatch, capsys)


def new_key(file: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


class Verifying:
    """skopeo, as a person sets it up who wants signatures: from the public key alone.

    Debian builds it without this kind of signatures: it finds one, says "sigstore disabled", and refuses. Then what skopeo does
    elsewhere is done here, with openssl (containers/image, `signature/policy_eval_sigstore.go`).
    """

    def __init__(self, folder: Path, front: Front, public: bytes) -> None:
        self._folder = folder
        self._front = front
        self._host = front.url.removeprefix("http://")
        folder.mkdir()
        self._key = folder / "key.pub"
        self._key.write_bytes(public)
        wanted = {
            f"{self._host}/{name}": [
                {
                    "type": "sigstoreSigned",
                    "keyPath": str(self._key),
                    "signedIdentity": {"type": "exactRepository", "dockerRepository": f"{IDENTITY}/{name}"},
                }
            ]
            for name in ("hello", "nano")
        }
        policy = {"default": [{"type": "reject"}], "transports": {"docker": wanted}}
        (folder / "policy.json").write_text(json.dumps(policy))
        (folder / "registries.d").mkdir()
        attachments = {"docker": {self._host: {"use-sigstore-attachments": True}}}
        (folder / "registries.d" / "default.yaml").write_text(json.dumps(attachments))

    async def __call__(self, repository: str, reference: str = "latest") -> str:
        """Why skopeo refuses this image; empty if it does not."""
        separator = "@" if ":" in reference else ":"
        target = self._folder / reference.replace(":", "-")
        options = ("--policy", str(self._folder / "policy.json"))
        where = ("--registries.d", str(self._folder / "registries.d"))
        source = f"docker://{self._host}/{repository}{separator}{reference}"
        outcome = await run(
            ("skopeo", *options, *where, "copy", "--src-tls-verify=false", source, f"dir:{target}"),
            deadline=600,
        )
        if outcome.returncode == 0:
            return ""
        if "sigstore disabled" not in outcome.output:
            return outcome.output
        status, headers, _ = await self._front.get(f"/v2/{repository}/manifests/{reference}", headers=TYPES)
        assert status == 200
        reasons = [
            await self._judge(repository, headers["Docker-Content-Digest"], layer)
            for layer in await self._signatures(repository, headers["Docker-Content-Digest"])
        ]
        return "" if "" in reasons else "; ".join(reasons)

    async def _signatures(self, repository: str, digest: str) -> list[dict[str, Any]]:
        path = f"/v2/{repository}/manifests/{digest.replace(':', '-')}.sig"
        status, _, body = await self._front.get(path, headers={"Accept": OCI_MANIFEST})
        assert status == 200, "skopeo has found one"
        return [layer for layer in json.loads(body)["layers"] if layer["mediaType"] == MEDIA_TYPE]

    async def _judge(self, repository: str, digest: str, layer: dict[str, Any]) -> str:
        _, _, payload = await self._front.get(f"/v2/{repository}/blobs/{layer['digest']}")
        assert digest_of(payload) == layer["digest"]
        (self._folder / "payload").write_bytes(payload)
        (self._folder / "signature").write_bytes(base64.b64decode(layer["annotations"][SIGNATURE_KEY]))
        files = ("-signature", str(self._folder / "signature"), str(self._folder / "payload"))
        outcome = await run(("openssl", "dgst", "-sha256", "-verify", str(self._key), *files), deadline=60)
        if outcome.returncode != 0:
            return f"the signature is wrong: {outcome.output}"
        critical = json.loads(payload)["critical"]
        wanted = {
            "type": "cosign container image signature",
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": f"{IDENTITY}/{repository}"},
        }
        return "" if critical == wanted else f"the signature is of {critical}"


async def manifest_of(registry: str, repository: str, reference: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(registry) as session,
        session.get(f"/v2/{repository}/manifests/{reference}", headers=TYPES) as answer,
    ):
        assert answer.status == 200
        manifest: dict[str, Any] = await answer.json(content_type=None)
        return manifest


async def put(registry: str, repository: str, tag: str, manifest: dict[str, Any]) -> None:
    await handmade.put_manifest(registry, repository, tag, manifest["mediaType"], canonical_json(manifest))


async def test_a_signed_image_passes_and_no_other(
    start: Start,
    registry: Server,
    tmp_path: Path,
    nixfront: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    key = await asyncio.to_thread(new_key, tmp_path / "key.pem")
    trust = {"key": str(key), "identity": IDENTITY}

    # Before there is a key.
    async with start(registry.url) as front:
        await front.pull("nano")
        assert (await front.get("/.well-known/nixfront.pub"))[0] == 404
        assert b"nixfront.pub" not in (await front.get("/", headers=PERSON))[2]

    async with start(registry.url, trust=trust, answers={"seconds": 0}) as front:
        status, headers, public = await front.get("/.well-known/nixfront.pub")
        assert (status, headers["Content-Type"]) == (200, "application/x-pem-file")
        for page in ("/", "/images"):
            assert b'href="/.well-known/nixfront.pub"' in (await front.get(page, headers=PERSON))[2]
        verified = Verifying(tmp_path / "client", front, public)

        # The first pull is verified: the signature is there before the tag.
        assert await verified("hello") == ""
        hello = await front.pull("hello")
        tag = signature_tag(hello.digest)
        assert await verified("hello", hello.digest) == ""
        signatures = await manifest_of(registry.url, "hello", tag)

        # One without a signature, and one that a person pushed, are refused.
        assert "signature was required, but no signature exists" in await verified("nano")
        await handmade.push(registry.url, "hello", "mine", handmade.image([b""]))
        assert "no signature exists" in await verified("hello", "mine")
        # So is the signature of another image, another key, and a signature that somebody changed.
        await put(
            registry.url,
            "hello",
            signature_tag(await digest_of_tag(registry.url, "hello", "mine") or ""),
            signatures,
        )
        assert await verified("hello", "mine") != ""
        annotations = signatures["layers"][0]["annotations"]
        damaged = bytearray(base64.b64decode(annotations[SIGNATURE_KEY]))
        damaged[-1] ^= 1
        changed = {**annotations, SIGNATURE_KEY: base64.b64encode(damaged).decode()}
        await put(
            registry.url,
            "hello",
            tag,
            {**signatures, "layers": [{**signatures["layers"][0], "annotations": changed}]},
        )
        assert await verified("hello") != ""

        # `nixfront sign` signs what is there, and leaves a signature of somebody else in its place.
        for name, value in trust.items():
            monkeypatch.setenv(f"NIXFRONT_TRUST_{name.upper()}", value)
        done = {each["name"]: each for each in await nixfront("sign", "--all")}
        assert [each["new"] for name, each in done.items() if name.startswith("nano@")] == [True]
        assert [each["new"] for name, each in done.items() if name.startswith("hello@")] == [True]
        both = await manifest_of(registry.url, "hello", tag)
        assert both["layers"][1:] == signatures["layers"]
        for name in ("hello", "nano"):
            assert await verified(name) == ""
        assert not any(each["new"] for each in await nixfront("sign", "--all")), "they have one now"
        assert await asyncio.to_thread(cli.main, ["sign", "hello:mine", "--json"]) == 1
        assert "no record of it" in json.loads(capsys.readouterr().out)[0]["refused"]

        # A tampered layer is another digest, which the engine sees.
        blob = (await manifest_of(registry.url, "hello", "latest"))["layers"][0]["digest"].split(":")[1]
        data = tmp_path / "registry/data/docker/registry/v2/blobs/sha256" / blob[:2] / blob / "data"
        whole = await asyncio.to_thread(data.read_bytes)
        await asyncio.to_thread(data.write_bytes, bytes(len(whole)))
        engine = ("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false")
        outcome = await run(
            (*engine, f"docker://{front.url[7:]}/hello@{hello.digest}", f"dir:{tmp_path}/x"), deadline=600
        )
        assert outcome.returncode == 1
        await asyncio.to_thread(data.write_bytes, whole)

        # A tag of signatures starts no build, and goes with its image.
        assert (await front.get(f"/v2/git/manifests/{tag}", headers=TYPES))[0] == 404
        await asyncio.to_thread(set_back, tmp_path, "nano", 40)
        assert [each["gone"] for each in await nixfront("prune", "--yes")] == [True]
        assert {each.repository for each in await stored_tags(registry.url)} == {"hello"}

        # A record that rests on labels alone is no proof: the image is made again first.
        connection = sqlite3.connect(tmp_path / "data/state.sqlite", timeout=60, isolation_level=None)
        connection.execute("UPDATE images SET settings = ''")
        connection.close()
        (again,) = await nixfront("sign", "hello")
        assert again["refused"] == ""

    # The same key signs with the same bytes on another machine, and another key does not pass.
    other = await asyncio.to_thread(new_key, tmp_path / "other.pem")
    async with start(registry.url, trust={**trust, "key": str(other)}) as front:
        stranger = Verifying(tmp_path / "stranger", front, (await front.get("/.well-known/nixfront.pub"))[2])
        assert await stranger("hello") != ""
