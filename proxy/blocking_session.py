"""A session of requests, which docker-registry-client is made for, that comes to a registry as everything of ours does (`reach`).

Loaded only by those who use it, since requests takes its time to load.
"""

import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from typing_extensions import override

from proxy.reach import Reach
from proxy.registry_login import Scopes


class BlockingSession(requests.Session):
    """Raises `RegistryUnavailable` beside what requests raises."""

    def __init__(self, registry: Reach) -> None:
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

    def __init__(self, session: requests.Session, registry: Reach) -> None:
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
