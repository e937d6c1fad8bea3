"""docker-registry-client on top of an `OpenEndpoint`, so that its requests log in and check certificates as ours do.

Only `Management` loads this module, and only in a thread: the library blocks, and it takes long to load. On import, it
and requests silence warnings of the whole process, which is undone here. The library knows a single token service, so it gets a
transport that hands each request to the endpoint.
"""

import asyncio
import warnings
from collections.abc import Mapping
from typing import Any

import aiohttp
from typing_extensions import override
from yarl import URL

from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import Scopes

with warnings.catch_warnings():
    import requests
    from docker_registry_client._BaseClient import BaseClientV2
    from requests.adapters import BaseAdapter
    from requests.structures import CaseInsensitiveDict

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30, sock_read=30)


class NotFound(Exception):
    """The registry answered 404."""


def call(
    registry: OpenEndpoint,
    loop: asyncio.AbstractEventLoop,
    method: str,
    path: str,
    scopes: Scopes,
    names: Mapping[str, str],
) -> Any:
    """The JSON value of the registry's response; blocks a thread while `loop`, which runs in another, does the work.

    `names` fills the placeholders of `path`. Raises `NotFound`, `ValueError` for a body that is no JSON, and what
    requests, aiohttp and `OpenEndpoint.ask` raise.
    """
    client = BaseClientV2(registry.url, verify_ssl=True)
    with requests.Session() as session:
        session.trust_env = (
            False  # no proxies and no passwords from the environment: the server uses none either
        )
        session.mount(registry.url, _Transport(registry, loop, scopes))
        send = session.delete if method == "DELETE" else session.get
        try:
            return client._http_call(path, send, **names)  # noqa: SLF001 - the library has it for its subclasses
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code == 404:
                raise NotFound(str(error)) from error
            raise


class _Transport(BaseAdapter):
    """Sends the requests of one session by the endpoint."""

    def __init__(self, registry: OpenEndpoint, loop: asyncio.AbstractEventLoop, scopes: Scopes) -> None:
        super().__init__()
        self._registry = registry
        self._loop = loop
        self._scopes = scopes

    @override
    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The response, read to its end."""
        return asyncio.run_coroutine_threadsafe(self._ask(request), self._loop).result()

    @override
    def close(self) -> None:
        """Nothing: the endpoint is the caller's."""

    async def _ask(self, request: requests.PreparedRequest) -> requests.Response:
        headers = {"Accept": request.headers.get("Accept", "*/*")}
        url = URL(request.url or "", encoded=True)
        async with self._registry.ask(
            request.method or "GET", url, self._scopes, headers, timeout=_TIMEOUT
        ) as answer:
            response = requests.Response()
            response.status_code = answer.status
            response.reason = answer.reason or ""
            response.headers = CaseInsensitiveDict(answer.headers)
            response.url = str(answer.url)
            response.request = request
            response._content = await answer.read()  # noqa: SLF001 - as adapters of requests do
            return response
