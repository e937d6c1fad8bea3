"""The management side: what a registry holds, listed and deleted with docker-registry-client.

That library is loaded only here and only when it is needed: on import it silences every warning of the process (undone
below). Its own catalog call stops at the registry's first page, so the pages are asked for one by one; its `manifest()` asks
for a kind of manifest whose digest nobody can delete, so digests come from `registry`. Everything here blocks.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

from proxy.errors import RegistryUnavailable

_PAGE = 100  # repositories in one answer
_CATALOG = "registry:catalog:*"
_AN_ERROR = object()

#: The bearer token for a scope, empty where the registry wants none.
Token = Callable[[str], str]


class Management:
    """The registry at an origin, as the one who keeps it sees it."""

    def __init__(
        self,
        url: str,
        *,
        login: tuple[str, str] | None = None,
        token: Token = lambda _: "",
        ca: str = "",
        certificate: tuple[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        """`login`: name and password; `ca`: a file of certificates that are trusted instead of the usual ones.

        `certificate`: files of our own certificate and its key, for a registry that wants one.
        """
        with warnings.catch_warnings():
            import requests
            from docker_registry_client._BaseClient import BaseClientV2

        self._url = url
        self._requests = requests
        self._token = token
        name, password = login or (None, None)
        self._client: Any = BaseClientV2(
            url, verify_ssl=ca or True, username=name, password=password, api_timeout=timeout
        )
        if certificate is not None:
            self._client.method_kwargs["cert"] = certificate

    def repositories(self) -> Iterator[str]:
        """Every repository, sorted. Raises `RegistryUnavailable`."""
        last = ""
        while True:
            page = f"/v2/_catalog?n={_PAGE}" + (f"&last={quote(last, safe='')}" if last else "")
            self._authorize(_CATALOG, _CATALOG)
            ask = partial(self._client._http_call, page, self._requests.get)  # noqa: SLF001 - made for subclasses
            names = list(self._asked("list", ask)["repositories"] or [])
            if not names:
                return
            yield from names
            last = names[-1]

    def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, sorted; none where the last one was deleted. Raises `RegistryUnavailable`."""
        self._authorize(repository, "pull")
        answer = self._asked(
            "list", lambda: self._client.get_repository_tags(repository), gone={"tags": None}
        )
        return tuple(sorted(answer["tags"] or ()))

    def delete(self, repository: str, digest: str) -> bool:
        """Delete a manifest, and every tag that names it; False if it was not there. Raises `RegistryUnavailable`."""
        self._authorize(repository, "delete")
        answer = self._asked("delete", lambda: self._client.delete_manifest(repository, digest), gone=None)
        return answer is not None

    def _authorize(self, subject: str, action: str) -> None:
        scope = subject if subject == _CATALOG else f"repository:{subject}:{action}"
        auth = self._client.auth
        auth.token = self._token(scope)
        auth.token_required = bool(auth.token)
        if auth.token:  # else the password goes in its place
            self._client.method_kwargs.pop("auth", None)
        # What the library is about to want, so that it does not go for a token by a way of its own.
        auth.scope = _CATALOG if subject == _CATALOG else f"repository:{subject}:*"
        auth.desired_scope = auth.scope

    def _asked(self, what: str, ask: Callable[[], Any], gone: Any = _AN_ERROR) -> Any:
        """The answer; `gone` where there is nothing such, unless that is an error."""
        try:
            return ask()
        except self._requests.HTTPError as error:
            missing = error.response is not None and error.response.status_code == 404
            if missing and gone is not _AN_ERROR:
                return gone
            raise RegistryUnavailable(self._told(what, error)) from error
        except (self._requests.RequestException, ValueError, KeyError) as error:
            raise RegistryUnavailable(self._told(what, error)) from error

    def _told(self, what: str, error: Exception) -> str:
        if "405" in str(error) and what == "delete":
            return f"{self._url} deletes nothing (storage.delete.enabled in its configuration would let it): {error}"
        return f"cannot {what} the images of {self._url}: {error}"


def images(url: str, timeout: float = 30.0) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every repository of the registry at this origin with its tags, both sorted.

    Raises `RegistryUnavailable`.
    """
    registry = Management(url, timeout=timeout)
    for name in registry.repositories():
        yield name, registry.tags(name)
