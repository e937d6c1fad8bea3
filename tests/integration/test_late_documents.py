"""Documents of several machines: whose maker is killed, gets them from another; all attach at once; one deletes what another attaches."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.core.model import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, canonical_json, digest_of
from proxy.state import ImageRecord, State, sqlite
from proxy.state import redis as state_redis
from proxy.trust.kinds import KINDS
from tests.support import handmade
from tests.support.attached import attached
from tests.support.attested import check_documents
from tests.support.front import PACKAGES
from tests.support.processes import free_port, run
from tests.support.servers import FROM_CHECKOUT, Server, nixfront, redis
from tests.support.shim import Held, Rule, Shim, shim
from tests.support.stored import digest_of_tag
from tests.support.validate import EVERY_TYPE
from tests.support.wait import until

EVERY = {"Accept": ", ".join(EVERY_TYPE)}
#: An artifact, which has no tag: the next request of its maker would list it.
ARTIFACT = r"/manifests/sha256:"


def settings(folder: Path, registry: str, state: str = "") -> dict[str, Any]:
    """All machines of a test have one Nix store, as this is not about what they build."""
    return {
        "registry": {"url": registry},
        "state": {"url": state, "lease_seconds": 1},
        "nix": {"store": str(folder / "store")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "answers": {"seconds": 0},
        "trust": {"attach": True},
        "builds": {"grace_seconds": 0},
    }


def machine(folder: Path, name: str, registry: str, state: str = "") -> Any:
    return nixfront(folder / name, settings=settings(folder, registry, state), command=FROM_CHECKOUT)


async def share_sets(folder: Path, *names: str) -> None:
    """These machines know what the first one knows of the package set. Only who saw a folder knows its revision."""
    for name in names:
        await asyncio.to_thread(shutil.copytree, folder / "one/data/sets", folder / name / "data/sets")


async def pull(server: Server, repository: str, reference: str = "latest") -> str:
    """The digest of this manifest."""
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.get(f"/v2/{repository}/manifests/{reference}", headers=EVERY) as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert digest_of(await answer.read()) == answer.headers["Docker-Content-Digest"]
        return answer.headers["Docker-Content-Digest"]


async def documents_of(registry: Server, repository: str, digest: str) -> dict[str, bytes]:
    async with aiohttp.ClientSession(registry.url) as session:
        return await attached(session, repository, digest)


async def are_there(registry: Server, repository: str, digest: str) -> bool:
    return set(await documents_of(registry, repository, digest)) == set(KINDS)


async def referrers_of(registry: Server, repository: str, digest: str) -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession(registry.url) as session,
        session.get(
            f"/v2/{repository}/manifests/{digest.replace(':', '-')}", headers={"Accept": OCI_INDEX}
        ) as answer,
    ):
        entries: list[dict[str, Any]] = (
            json.loads(await answer.read())["manifests"] if answer.status == 200 else []
        )
        return entries


async def person_attaches(registry: Server, repository: str, digest: str) -> dict[str, Any]:
    """The descriptor of what `oras attach` put there: an artifact, and the list with it alone."""
    for data in (b"a note", b"{}"):
        async with aiohttp.ClientSession(registry.url) as session:
            await handmade.push_blob(session, repository, data)
    config, layer = (
        {"mediaType": kind, "size": len(data), "digest": digest_of(data)}
        for kind, data in (("application/vnd.oci.empty.v1+json", b"{}"), ("text/plain", b"a note"))
    )
    note = canonical_json(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    )
    entry = {"mediaType": OCI_MANIFEST, "size": len(note), "digest": digest_of(note), "artifactType": "a/b"}
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    await handmade.put_manifest(registry.url, repository, digest_of(note), OCI_MANIFEST, note)
    await handmade.put_manifest(registry.url, repository, digest.replace(":", "-"), OCI_INDEX, index)
    return entry


async def record_of(state: State, repository: str, digest: str) -> ImageRecord:
    record = await state.recall_image(repository, digest)
    assert record is not None
    return record


async def command(folder: Path, name: str, registry: str, state: str, *argv: str) -> Any:
    """What `nixfront COMMAND --json` of this machine prints, in a process of its own."""
    chosen = settings(folder, registry, state)
    environment = {
        "NIXFRONT_DATA_DIR": str(folder / name / "data"),
        "NIXFRONT_REGISTRY_URL": registry,
        "NIXFRONT_STATE_URL": state,
        "NIXFRONT_NIX_STORE": chosen["nix"]["store"],
        "NIXFRONT_PACKAGES_KIND": "path",
        "NIXFRONT_PACKAGES_PATH": str(PACKAGES),
        "NIXFRONT_IMAGE_INDEX": "false",
    }
    outcome = await run((*FROM_CHECKOUT, *argv, "--json"), env={**os.environ, **environment}, deadline=300)
    assert outcome.returncode == 0, outcome.output
    return json.loads(outcome.stdout)


@asynccontextmanager
async def shared_state(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    async with redis(folder / "redis", port):
        yield f"redis://127.0.0.1:{port}/0"


async def killed_between(folder: Path, relay: Shim, state: str = "") -> str:
    """The digest of `hello`, whose tag is there; its maker was killed in the middle of its documents."""
    relay.break_by(Rule("PUT", ARTIFACT, Held(), times=99))
    async with machine(folder, "one", relay.url, state) as server:
        digest = await pull(server, "hello")
        await until(lambda: relay.held)
        os.kill(server.process.pid, signal.SIGKILL)
    relay.heal()
    return digest


async def test_a_pull_from_another_machine_attaches_what_the_dead_one_owed(
    tmp_path: Path, registry: Server
) -> None:
    async with shared_state(tmp_path) as state, shim(registry.url) as relay:
        digest = await killed_between(tmp_path, relay, state)
        async with state_redis.open_state(state) as records:
            assert (await record_of(records, "hello", digest)).due
            assert await documents_of(registry, "hello", digest) == {}

            await share_sets(tmp_path, "two")
            async with machine(tmp_path, "two", registry.url, state) as server:
                assert await pull(server, "hello", digest) == digest
                await until(lambda: are_there(registry, "hello", digest))
                check_documents(await documents_of(registry, "hello", digest), digest)
                await until(lambda: is_attached(records, "hello", digest))
                assert await digest_of_tag(registry.url, "hello", "latest") == digest, "it put no tag"


async def is_attached(records: State, repository: str, digest: str) -> bool:
    return not (await record_of(records, repository, digest)).due


async def test_a_pull_after_a_crash_attaches_documents_and_costs_no_request(
    tmp_path: Path, registry: Server
) -> None:
    """The state is a file. The folder of promises is lost, so the start does not know of them; the mark outlives `reindex`."""
    async with shim(registry.url) as relay:
        digest = await killed_between(tmp_path, relay)
        await asyncio.to_thread(shutil.rmtree, tmp_path / "one/data/attachments")
        assert (await command(tmp_path, "one", registry.url, "", "reindex"))["ours"] >= 1
        async with machine(tmp_path, "one", relay.url) as server:
            await pull(server, "hello", digest)
            await until(lambda: are_there(registry, "hello", digest))
        check_documents(await documents_of(registry, "hello", digest), digest)
        async with sqlite.open_state(tmp_path / "one/data/state.sqlite") as records:
            await until(lambda: is_attached(records, "hello", digest))

        async with machine(tmp_path, "one", relay.url) as server:
            relay.requests.clear()
            for _ in range(3):
                await pull(server, "hello", digest)
            # The readiness of a server is a `GET /v2/`.
            asked = [request for request in relay.requests if request[1] != "/v2/"]
            assert asked == [("GET", f"/v2/hello/manifests/{digest}")] * 3


async def test_three_machines_attach_at_once_and_heal_what_another_made(
    tmp_path: Path, registry: Server
) -> None:
    names = ("hello", "alpha", "shell/git")
    async with shared_state(tmp_path) as state:
        plain = {**settings(tmp_path, registry.url, state), "trust": {"attach": False}}
        async with nixfront(tmp_path / "one", settings=plain, command=FROM_CHECKOUT) as server:
            digests = {name: await pull(server, name) for name in names}
        note = await person_attaches(registry, "hello", digests["hello"])

        machines = ("one", "two", "three")
        await share_sets(tmp_path, "two", "three")
        done = await asyncio.gather(
            *(command(tmp_path, name, registry.url, state, "reindex", "--attach") for name in machines)
        )

        assert not [image for each in done for image in each["attached"] if image["error"]]
        for name, digest in digests.items():
            check_documents(await documents_of(registry, name, digest), digest)
            entries = await referrers_of(registry, name, digest)
            others = [note] if name == "hello" else []
            assert [entry for entry in entries if entry == note] == others, "a person's artifact stays"
            assert len({entry["digest"] for entry in entries}) == len(entries) == len(KINDS) + len(others)

        # The registry loses all; a machine that made none of it makes it again, with the same documents.
        before = {name: await documents_of(registry, name, digest) for name, digest in digests.items()}
        await asyncio.to_thread(shutil.rmtree, tmp_path / "registry/data/docker")
        async with machine(tmp_path, "two", registry.url, state) as server:
            for name, digest in digests.items():
                assert await pull(server, name, digest) == digest
            for name, digest in digests.items():
                await until(lambda name=name, digest=digest: are_there(registry, name, digest))  # type: ignore[misc]
                assert await documents_of(registry, name, digest) == before[name]


async def test_what_one_machine_deletes_while_another_attaches_is_gone(
    tmp_path: Path, registry: Server
) -> None:
    async with shared_state(tmp_path) as state, shim(registry.url) as relay:
        held = Held()
        relay.break_by(Rule("PUT", ARTIFACT, held, times=99))
        async with machine(tmp_path, "two", relay.url, state) as server:
            digest = await pull(server, "hello")
            await until(lambda: relay.held)
            pruned = await command(tmp_path, "one", registry.url, state, "prune", "--days", "0", "--yes")
            assert [each["gone"] for each in pruned] == [True]
            held.go.set()
            await until(lambda: not [*(tmp_path / "two/data/attachments").glob("*.json")])
        assert await digest_of_tag(registry.url, "hello", digest.replace(":", "-")) is None
        assert await digest_of_tag(registry.url, "hello", digest) is None


async def test_without_a_state_in_common_no_list_loses_a_document(
    tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each makes the image and its documents, of the same bytes. What only one of them made only that one makes again."""
    async with machine(tmp_path, "one", registry.url) as one, machine(tmp_path, "two", registry.url) as two:
        digests = await asyncio.gather(*(pull(server, "hello") for server in (one, two)))
        assert digests[0] == digests[1]
        other = await pull(one, "alpha")
        assert await pull(two, "alpha") == other
        for name in ("one", "two"):
            await until(lambda name=name: not [*(tmp_path / name / "data/attachments").glob("*.json")])  # type: ignore[misc]
        for repository, digest in (("hello", digests[0]), ("alpha", other)):
            check_documents(await documents_of(registry, repository, digest), digest)
            assert len(await referrers_of(registry, repository, digest)) == len(KINDS)

        await asyncio.to_thread(shutil.rmtree, tmp_path / "registry/data/docker")
        async with aiohttp.ClientSession(two.url) as session:
            path = f"/v2/alpha/manifests/{other}"
            async with session.get(path, headers={"Accept": DOCKER_MANIFEST}) as answer:
                assert answer.status == 404, "it has no record of it"
        assert await pull(one, "alpha", other) == other
