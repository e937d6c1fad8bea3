"""Signatures of images: a client whose policy asks for a key takes what is signed with it, and refuses all else."""

import asyncio
import base64
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy import cli
from proxy.core.model import DOCKER_MANIFEST, OCI_MANIFEST, canonical_json
from proxy.trust.signatures import signature_tag
from tests.support import handmade
from tests.support.commands import Command, set_back
from tests.support.front import Front
from tests.support.processes import run
from tests.support.servers import Server
from tests.support.stored import digest_of_tag, stored_tags
from tests.support.wait import until

Start = Callable[..., AbstractAsyncContextManager[Front]]
IDENTITY = "images.example.org/nix"
SKOPEO = Path(sys.prefix) / "newer-skopeo/bin/skopeo"  # tests/run gets it, with tests/support/newer
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

    It is that of Debian 13: Debian 12 builds skopeo without this kind of signatures.
    """

    def __init__(self, folder: Path, front: Front, public: bytes) -> None:
        self._folder = folder
        self._host = front.url.removeprefix("http://")
        folder.mkdir()
        key = folder / "key.pub"
        key.write_bytes(public)
        wanted = {
            f"{self._host}/{name}": [
                {
                    "type": "sigstoreSigned",
                    "keyPath": str(key),
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
        options = ("--policy", str(self._folder / "policy.json"))
        where = ("--registries.d", str(self._folder / "registries.d"))
        source = f"docker://{self._host}/{repository}{separator}{reference}"
        with tempfile.TemporaryDirectory(dir=self._folder) as target:
            outcome = await run(
                (str(SKOPEO), *options, *where, "copy", "--src-tls-verify=false", source, f"dir:{target}"),
                deadline=600,
            )
        return outcome.output if outcome.returncode else ""


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


def stored_blob(folder: Path, digest: str) -> Path:
    """The file of this blob, of the registry whose test has this folder."""
    blob = digest.removeprefix("sha256:")
    return folder / "registry/data/docker/registry/v2/blobs/sha256" / blob[:2] / blob / "data"


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

        async def is_shown() -> bool:
            """On the page of the image, once the list of images is read again."""
            page = (await front.get(f"/images/{hello.digest}/hello", headers=PERSON))[2]
            return b"<dt>Signed</dt><dd>yes, with the key of this host" in page

        await until(is_shown)

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
        assert f"Signature for digest {hello.digest} does not match" in await verified("hello", "mine")
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
        assert "signature verification failed" in await verified("hello")

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

        # A layer or a manifest with other bytes has another digest, which nobody signed.
        layer = (await manifest_of(registry.url, "hello", "latest"))["layers"][0]["digest"]
        for digest, change, reason in (
            (layer, lambda whole: bytes(len(whole)), "Digest did not match"),
            (hello.digest, lambda whole: whole + b"\n", "no signature exists"),
        ):
            file = stored_blob(tmp_path, digest)
            whole = await asyncio.to_thread(file.read_bytes)
            await asyncio.to_thread(file.write_bytes, change(whole))
            assert reason in await verified("hello")
            await asyncio.to_thread(file.write_bytes, whole)
        assert await verified("hello") == ""

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
        assert "signature verification failed" in await stranger("hello")
