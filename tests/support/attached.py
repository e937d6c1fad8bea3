"""What nixfront attached to an image, as a client fetches it, without the API of referrers, and checks it."""

import asyncio
import json
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp

from proxy.core.model import (
    DOCKER_LIST,
    EVERY_MANIFEST_TYPE,
    OCI_INDEX,
    OCI_MANIFEST,
    contents_tag,
    digest_of,
    sha256_hex,
)
from proxy.trust.kinds import EMPTY, KINDS, SPDX
from tests.support.wait import until

#: The digests of documents that passed, by the digests of the image and of the artifact.
_documented: dict[tuple[str, str], str] = {}
_DOCUMENTS_PAUSE = 0.1  # seconds: documents take some time, and to ask costs it the processor


async def checked_documents(
    session: aiohttp.ClientSession, repository: str, digest: str, wait: bool
) -> dict[str, str]:
    """The digests of the documents of an image by kind, each of them valid.

    All kinds of them where this may `wait`: they come after the tag. An artifact that passed is not fetched again.
    """
    entries: dict[str, Mapping[str, Any]] = {}

    async def are_there() -> bool:
        nonlocal entries
        entries = await _artifacts(session, repository, digest)
        return not wait or entries.keys() == KINDS.keys()

    await until(are_there, pause=_DOCUMENTS_PAUSE)
    new = {kind: entry for kind, entry in entries.items() if (digest, entry["digest"]) not in _documented}
    if new:
        # The libraries take long to load, and some tests have no documents.
        from tests.support.attested import check_documents

        documents = {
            kind: await _attached_document(session, repository, digest, entry) for kind, entry in new.items()
        }
        await asyncio.to_thread(check_documents, documents, digest)
        for kind, document in documents.items():
            _documented[digest, new[kind]["digest"]] = digest_of(document)
    return {kind: _documented[digest, entry["digest"]] for kind, entry in sorted(entries.items())}


async def check_all(url: str) -> None:
    """Every image that a nixfront made in the registry at this URL has all its documents, or gets them soon; each is valid."""
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=False)) as session:
        async for repository, digest in _made_images(session):
            with _named(repository, digest):
                await checked_documents(session, repository, digest, wait=True)


async def check_ended(url: str, promises: Container[str]) -> None:
    """Every image in the registry at this URL has all its documents, and each is valid. The nixfronts that made them have ended.

    `promises` are the names of the files that they left, each for an image to which documents are still due.
    """
    async with aiohttp.ClientSession(url) as session:
        async for repository, digest in _made_images(session, lacking=True):
            if f"{sha256_hex(f'{repository}@{digest}'.encode())}.json" in promises:
                continue
            with _named(repository, digest):
                documents = await checked_documents(session, repository, digest, wait=False)
                assert documents.keys() == KINDS.keys(), f"it has no documents but {sorted(documents)}"


@contextmanager
def _named(repository: str, digest: str) -> Iterator[None]:
    """What is wrong there is wrong with this image."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{repository}@{digest}: {error}") from error


async def _made_images(
    session: aiohttp.ClientSession, *, lacking: bool = False
) -> AsyncIterator[tuple[str, str]]:
    """Repository and digest of each image that nixfront made, those in an index too: it gives each a tag of its contents.

    Some may be `lacking`, as a test deleted them.
    """
    for repository in await _list(session, "/v2/_catalog?n=1000", "repositories", lacking=lacking):
        digests = set()
        for tag in await _list(session, f"/v2/{repository}/tags/list", "tags", lacking=lacking):
            if not tag.startswith(contents_tag("")):
                continue
            path = f"/v2/{repository}/manifests/{tag}"
            async with session.get(path, headers={"Accept": EVERY_MANIFEST_TYPE}) as answer:
                document = await answer.read()
            if lacking and answer.status == 404:
                continue
            assert answer.status == 200, f"GET {path} answered {answer.status}"
            if answer.content_type in (OCI_INDEX, DOCKER_LIST):
                digests |= {child["digest"] for child in json.loads(document)["manifests"]}
            else:
                digests.add(digest_of(document))
        for digest in sorted(digests):
            yield repository, digest


async def _list(session: aiohttp.ClientSession, path: str, key: str, *, lacking: bool = False) -> list[str]:
    """The texts of a list, in one page; nothing where the list may be `lacking`."""
    async with session.get(path) as answer:
        if lacking and answer.status == 404:
            return []
        assert answer.status == 200, f"GET {path} answered {answer.status}"
        listed: list[str] = json.loads(await answer.read())[key] or []
    return listed


async def attached(session: aiohttp.ClientSession, repository: str, digest: str) -> dict[str, bytes]:
    """The documents that nixfront attached to an image, by kind, as a client finds them without the API of referrers.

    Nothing for an image without documents.
    """
    return {
        kind: await _attached_document(session, repository, digest, entry)
        for kind, entry in (await _artifacts(session, repository, digest)).items()
    }


async def _artifacts(
    session: aiohttp.ClientSession, repository: str, digest: str
) -> dict[str, Mapping[str, Any]]:
    """The descriptors of our artifacts in the list of this image's referrers, by kind of document."""
    path = f"/v2/{repository}/manifests/{digest.replace(':', '-')}"
    status, referrers = 0, b""

    async def is_answered() -> bool:
        """The registry of Debian 12 empties the file of a tag before it writes it: 500 for who reads at this moment."""
        nonlocal status, referrers
        async with session.get(path, headers={"Accept": OCI_INDEX}) as answer:
            status, referrers = answer.status, await answer.read()
        return status != 500

    await until(is_answered)
    if status == 404:
        return {}
    assert status == 200, f"GET {path} answered {status}"
    entries = ((entry.get("annotations", {}), entry) for entry in json.loads(referrers)["manifests"])
    return {kind: entry for annotations, entry in entries if (kind := annotations.get("nixfront.document"))}


async def _attached_document(
    session: aiohttp.ClientSession, repository: str, digest: str, entry: Mapping[str, Any]
) -> bytes:
    """The document of one artifact, after all that its manifest has to say of it was checked."""
    path = f"/v2/{repository}/manifests/{entry['digest']}"
    async with session.get(path, headers={"Accept": OCI_MANIFEST}) as answer:
        manifest = await answer.read()
        assert answer.status == 200, f"GET {path} answered {answer.status}"
    assert (digest_of(manifest), len(manifest)) == (entry["digest"], entry["size"])
    value = json.loads(manifest)
    assert value["subject"]["digest"] == digest, "an artifact is of another image"
    for field in ("mediaType", "artifactType", "annotations"):
        assert value[field] == entry[field], f"the list of referrers has another {field} than the artifact"
    (layer,) = value["layers"]
    config = (value["config"]["digest"], value["config"]["size"])
    assert config == (digest_of(EMPTY), len(EMPTY))
    blobs = [
        layer,
        *([value["config"]] if value["artifactType"] == SPDX.media_type else []),
    ]  # they share one
    read = []
    for blob in blobs:
        async with session.get(f"/v2/{repository}/blobs/{blob['digest']}") as answer:
            read.append(await answer.read())
        assert (digest_of(read[-1]), len(read[-1])) == (blob["digest"], blob["size"])
    return read[0]
