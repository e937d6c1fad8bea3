"""What a stock registry holds, asked directly: tags, and whether each has all that it names."""

from dataclasses import dataclass
from typing import Any

import aiohttp

from proxy.registry.endpoint import Endpoint
from proxy.registry.management import Management
from tests.support.validate import EVERY_TYPE

_ACCEPT = {"Accept": ", ".join(EVERY_TYPE)}


@dataclass(frozen=True, slots=True)
class StoredTag:
    """A tag and the digest of the manifest that it names."""

    repository: str
    tag: str
    digest: str


async def listed(registry: Endpoint) -> dict[str, tuple[str, ...]]:
    """Every repository with its tags, as our own commands list them."""
    async with registry.opened() as reached:
        return {repository: tags async for repository, tags in Management(reached).images()}


async def stored_tags(registry: str) -> list[StoredTag]:
    """Every tag of a registry, each with a whole image behind it. Raises `AssertionError` for one that lacks a blob."""
    found = []
    async with aiohttp.ClientSession(registry) as session:
        for repository in (await _json(session, "/v2/_catalog?n=1000"))["repositories"]:
            listed = await _json(session, f"/v2/{repository}/tags/list")
            for tag in sorted(listed.get("tags") or ()):
                found.append(StoredTag(repository, tag, await _whole(session, repository, tag)))
    return found


async def digest_of_tag(registry: str, repository: str, tag: str) -> str | None:
    """The digest that a tag names, None where there is no such tag."""
    async with (
        aiohttp.ClientSession(registry) as session,
        session.head(f"/v2/{repository}/manifests/{tag}", headers=_ACCEPT) as answer,
    ):
        return answer.headers["Docker-Content-Digest"] if answer.status == 200 else None


async def _whole(session: aiohttp.ClientSession, repository: str, tag: str) -> str:
    async with session.get(f"/v2/{repository}/manifests/{tag}", headers=_ACCEPT) as answer:
        assert answer.status == 200, f"{repository}:{tag} is listed, and answers {answer.status}"
        manifest = await answer.json(content_type=None)
        digest = answer.headers["Docker-Content-Digest"]
    for child in manifest.get("manifests", ()):  # an index
        await _whole(session, repository, child["digest"])
    for blob in (manifest["config"], *manifest["layers"]) if "config" in manifest else ():
        async with session.head(f"/v2/{repository}/blobs/{blob['digest']}") as answer:
            assert answer.status == 200, f"{repository}:{tag} lacks {blob['digest']}"
            assert int(answer.headers["Content-Length"]) == blob["size"]
    return digest


async def _json(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with session.get(path) as answer:
        found: dict[str, Any] = await answer.json() if answer.status == 200 else {}
        return found
