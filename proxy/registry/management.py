"""A session of requests, which docker-registry-client is made for, that comes to a registry as everything of ours does (`reach`).

Loaded only by those who use it, since requests takes its time to load.

The management side: what a registry holds, listed and deleted with docker-registry-client.

That library is loaded only here and only when it is needed: on import it silences every warning of the process (undone
below). Its own catalog call stops at the registry's first page, so the pages are asked for one by one; its `manifest()` asks
for a kind of manifest whose digest nobody can delete, so digests come from `registry`; and it knows one token service only, so
it gets a session that comes as we come (`blocking_session`). Everything here blocks.
"""

import ssl
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from typing_extensions import override

from proxy.core.errors import RegistryUnavailable
from proxy.registry.endpoint import Endpoint
from proxy.registry.login import CATALOG, Scopes, deleting, pulling


class BlockingSession(requests.Session):
    """Raises `RegistryUnavailable` beside what requests raises."""

    def __init__(self, registry: Endpoint) -> None:
        """It is for one thread at a time, and without an event loop."""
        super().__init__()
        self.trust_env = False  # no proxies and no passwords of the environment, as the server has none
        self._let_in = _LetIn(self, registry)
        self.auth = self._let_in
        if registry.certificates is not None:
            self.mount("https://", _Adapter(registry.certificates))

    def needs(self, scopes: Scopes) -> None:
        """What the next requests are for."""
        self._let_in.scopes = scopes


class _Adapter(HTTPAdapter):
    """Checks certificates by one context and nothing else."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    @override
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        options["ssl_context"] = self._context
        if not self._context.check_hostname:
            options["assert_hostname"] = False
        super().init_poolmanager(*args, **options)

    @override
    def cert_verify(self, *_: Any) -> None:
        """Nothing: requests would add the authorities that it brings along."""


class _LetIn(AuthBase):
    """Sends what met a 401 again, with what the registry wants; from then on at once."""

    def __init__(self, session: requests.Session, registry: Endpoint) -> None:
        self.scopes: Scopes = ()
        self._session = session
        self._registry = registry
        self._known: dict[Scopes, str] = {}

    @override
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if known := self._known.get(self.scopes):
            request.headers["Authorization"] = known
        request.register_hook("response", self._answer)  # type: ignore[no-untyped-call]
        return request

    def _answer(self, response: requests.Response, **options: Any) -> requests.Response:
        if response.status_code != 401:
            return response
        wanted = response.headers.get("WWW-Authenticate", "")
        authorization = self._registry.let_in([wanted], self.scopes)
        if not authorization:
            return response
        self._known[self.scopes] = authorization
        again = response.request.copy()
        again.hooks = {"response": []}
        again.headers["Authorization"] = authorization
        response.close()
        return self._session.send(again, **options)


_PAGE = 100  # repositories in one answer
_AN_ERROR = object()


class Management:
    """A registry as the one who keeps it sees it, for as long as the context; for one thread at a time."""

    def __init__(self, registry: Endpoint, timeout: float = 30.0) -> None:
        """It is for a thread without an event loop; `timeout`: seconds of silence."""
        with warnings.catch_warnings():
            import requests
            from docker_registry_client._BaseClient import BaseClientV2

        self._url = registry.url
        self._requests = requests
        self._session = BlockingSession(registry)
        self._client: Any = BaseClientV2(registry.url, verify_ssl=True, api_timeout=timeout)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Its connections are closed: kept alive, they would be until the garbage is collected."""
        self._session.close()

    def images(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every repository with its tags, both sorted. Raises `RegistryUnavailable`."""
        for repository in self.repositories():
            yield repository, self.tags(repository)

    def repositories(self) -> Iterator[str]:
        """Every repository, sorted. Raises `RegistryUnavailable`."""
        last = ""
        while True:
            page = f"/v2/_catalog?n={_PAGE}" + (f"&last={quote(last, safe='')}" if last else "")
            names = list(self._list(CATALOG, page)["repositories"] or [])
            if not names:
                return
            yield from names
            last = names[-1]

    def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, sorted; none where the last one was deleted. Raises `RegistryUnavailable`."""
        path = self._client.LIST_TAGS
        return tuple(
            sorted(self._list(pulling(repository), path, {"tags": None}, name=repository)["tags"] or ())
        )

    def delete(self, repository: str, digest: str) -> bool:
        """Delete a manifest, and every tag that names it; False if it was not there. Raises `RegistryUnavailable`."""
        self._session.needs(deleting(repository))
        names = {"name": repository, "reference": digest}
        ask = partial(self._call, self._client.MANIFEST, self._session.delete, **names)
        return self._asked("delete", ask, gone=None) is not None

    def _list(self, scopes: Scopes, path: str, gone: Any = _AN_ERROR, **names: str) -> Any:
        self._session.needs(scopes)
        return self._asked("list", partial(self._call, path, self._session.get, **names), gone)

    def _call(self, path: str, method: Callable[..., Any], **names: str) -> Any:
        return self._client._http_call(path, method, **names)  # noqa: SLF001 - made for subclasses

    def _asked(self, what: str, ask: Callable[[], Any], gone: Any) -> Any:
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
