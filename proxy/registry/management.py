"""The registry as its keeper sees it: repositories and tags, listed and deleted with docker-registry-client.

That library's own catalog call stops at the registry's first page, so `Management` asks for the pages one by one. The
library's `manifest()` finds digests that nobody can delete, so digests come from `client`.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp

from proxy.core.errors import RegistryUnavailable
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import CATALOG, Scopes, delete_scopes, pull_scopes

_PAGE = 100  # repositories in one response


class Management:
    """The keeper's view of a registry. Every method raises `RegistryUnavailable`."""

    def __init__(self, registry: OpenEndpoint) -> None:
        self._registry = registry

    async def images(self) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
        """Every repository with its tags, both sorted."""
        async for repository in self.repositories():
            yield repository, await self.tags(repository)

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
        """The tags of a repository, sorted. Without a tag, the repository need not exist."""
        document = await self._call(
            "list", "GET", "/v2/{name}/tags/list", pull_scopes(repository), name=repository
        )
        return tuple(sorted((document or {}).get("tags") or ()))

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
            raise RegistryUnavailable(self._failure(purpose, error)) from error

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
