"""The registry as its keeper sees it: repositories and tags, listed and deleted with docker-registry-client.

That library's own catalog call stops at the registry's first page, so `Management` asks for the pages one by one. The
library's `manifest()` finds digests that nobody can delete, so digests come from `client`.

Many registries have no catalog, or show it to nobody. `has_catalog` tells; the caller then names the repositories.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp

from proxy.core.errors import RegistryUnavailable
from proxy.core.names import is_referrers_tag
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import CATALOG, Scopes, delete_scopes, pull_scopes
from proxy.registry.no_answer import why

_PAGE = 100  # repositories in one response
_PAGE_OF_TAGS = 1000  # a registry may send fewer, or all
_REFUSED = (401, 403)
_LACKING = (404, 405, 501)
_TIMEOUT = aiohttp.ClientTimeout(total=30)


class Management:
    """The keeper's view of a registry. Every method raises `RegistryUnavailable`."""

    def __init__(self, registry: OpenEndpoint) -> None:
        self._registry = registry

    async def images(
        self, repositories: AsyncIterable[str] | None = None
    ) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
        """These repositories with the tags of their images, sorted; by default those of the catalog.

        A tag that only holds what is attached to an image is none of them.
        """
        async for repository, tags in self.every_tag(repositories):
            yield repository, tuple(tag for tag in tags if not is_referrers_tag(tag))

    async def every_tag(
        self, repositories: AsyncIterable[str] | None = None
    ) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
        """The same with all tags."""
        async for repository in self.repositories() if repositories is None else repositories:
            yield repository, tuple(await self.tags(repository))

    async def has_catalog(self) -> bool:
        """Whether the registry lists its repositories to us. False only where it lets us in for all else."""
        try:
            status = await self._status(f"/v2/_catalog?n={_PAGE}", CATALOG)
        except RegistryUnavailable:  # the token service may refuse this one scope
            status = 403
        if status in _REFUSED and (admitted := await self._status("/v2/", ())) != 200:
            raise RegistryUnavailable(self._failure("list", f"it answers {admitted} to nixfront"))
        return status not in (*_REFUSED, *_LACKING)

    async def repositories(self) -> AsyncIterator[str]:
        """Every repository, sorted."""
        last = ""
        while True:
            page = f"/v2/_catalog?n={_PAGE}" + (f"&last={quote(last, safe='')}" if last else "")
            document = await self._call("list", "GET", page, CATALOG)
            if document is None:
                raise RegistryUnavailable(self._failure("list", "it has no catalog (404)"))
            names = document.get("repositories")
            if not names:
                return
            for name in names:
                yield name
            last = names[-1]

    async def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, sorted. Without a tag, the repository need not exist.

        Some registries send a page, and some send all tags whatever page we ask for: the last page is the one with nothing new.
        """
        tags: set[str] = set()
        path = f"/v2/{{name}}/tags/list?n={_PAGE_OF_TAGS}"
        while True:
            last = f"&last={quote(max(tags), safe='')}" if tags else ""
            document = await self._call("list", "GET", path + last, pull_scopes(repository), name=repository)
            new = set((document or {}).get("tags") or ()) - tags
            if not new:
                return tuple(sorted(tags))
            tags |= new

    async def delete(self, repository: str, digest: str) -> bool:
        """Delete a manifest and with it every tag that names it. False if the registry did not have it."""
        document = await self._call(
            "delete",
            "DELETE",
            "/v2/{name}/manifests/{reference}",
            delete_scopes(repository),
            name=repository,
            reference=digest,
        )
        return document is not None

    async def _call(
        self, purpose: str, method: str, path: str, scopes: Scopes, **names: str
    ) -> dict[str, Any] | None:
        """The document of the response; None for a 404."""
        call = partial(_call, self._registry, asyncio.get_running_loop(), method, path, scopes, names)
        try:
            return await asyncio.to_thread(call)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # requests' are OSErrors
            raise RegistryUnavailable(self._failure(purpose, why(error))) from error

    async def _status(self, path: str, scopes: Scopes) -> int:
        try:
            async with self._registry.ask("GET", path, scopes, timeout=_TIMEOUT) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryUnavailable(self._failure("list", why(error))) from error

    def _failure(self, purpose: str, reason: object) -> str:
        url = self._registry.url
        if purpose == "delete" and "405" in str(reason):
            return f"{url} deletes nothing: its configuration has to set storage.delete.enabled: {reason}"
        return f"cannot {purpose} the images of {url}: {reason}"


def _call(*arguments: Any) -> dict[str, Any] | None:
    from proxy.registry import blocking_client  # takes long to load, and only commands need it

    try:
        document = blocking_client.call(*arguments)
    except blocking_client.NotFound:
        return None
    if isinstance(document, dict):
        return document
    raise ValueError("its response is no JSON object")
