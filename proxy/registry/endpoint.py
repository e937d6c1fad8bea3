"""How nixfront reaches a registry: its address, how its certificate is checked, and nixfront's own account there.

The server and every subcommand use this one way, both to the registry that is configured and to a nixfront before it.
Bodies arrive as the registry sent them, cookies are dropped, and header lines may be long.
"""

import select
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp import ClientRequest, ClientTimeout, hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from typing_extensions import override
from yarl import URL

from proxy import __version__
from proxy.core import request
from proxy.core.errors import RegistryUnavailable, SettingsInvalid, reason
from proxy.core.model import Buffer
from proxy.registry.login import Credentials, Login, Scopes

_AGENT = f"nixfront/{__version__}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry at `url`, an origin. `certificates` checks an https registry; None trusts the host's authorities."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    certificates: ssl.SSLContext | None = None

    @asynccontextmanager
    async def opened(self, *traces: aiohttp.TraceConfig) -> AsyncIterator["OpenEndpoint"]:
        """The registry with an open session, which closes with the context."""
        async with client_session(*traces, certificates=self.certificates) as session:
            login = Login(session, self.credentials, secure=self.url.startswith("https:"))
            try:
                yield OpenEndpoint(self.url, session, login)
            finally:
                await login.close()


@dataclass(frozen=True, slots=True)
class OpenEndpoint:
    """A registry, with the session and the login for it."""

    url: str
    session: aiohttp.ClientSession
    login: Login

    @asynccontextmanager
    async def as_user(self, credentials: Credentials) -> AsyncIterator["OpenEndpoint"]:
        """The same registry with these credentials in place of nixfront's, as long as the context lasts."""
        login = Login(self.session, credentials, secure=self.url.startswith("https:"))
        try:
            yield OpenEndpoint(self.url, self.session, login)
        finally:
            await login.close()

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        target: str | URL,
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: aiohttp.ClientTimeout,
        redirects: bool = True,
        data: bytes | AsyncIterator[Buffer] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The registry's response, whatever its status. `target` is a path, or a whole URL of this registry.

        A 401 names the login that the registry wants; the request then goes out once more with it.

        Raises what aiohttp raises. Raises `RegistryUnavailable` when the token service fails, and when a 401 comes
        after `data` from an iterator was sent, since those bytes are gone.
        """
        sent = {hdrs.ACCEPT_ENCODING: "identity", **_identity(), **(headers or {})}
        url = URL(f"{self.url}{target}") if isinstance(target, str) else target
        for is_last in (False, True):
            authorization = await self.login.authorization(scopes)
            if authorization:
                sent[hdrs.AUTHORIZATION] = authorization
            async with self.session.request(
                method, url, headers=sent, data=data, timeout=timeout, allow_redirects=redirects
            ) as response:
                challenges = response.headers.getall(hdrs.WWW_AUTHENTICATE, ())
                if (
                    is_last
                    or response.status != 401
                    or not self.login.learn(challenges, scopes, authorization)
                ):
                    yield response
                    return
            if data is not None and not isinstance(data, bytes):
                raise RegistryUnavailable(
                    f"the registry wants another token in the middle of {method} {url.path}"
                )


def _identity() -> dict[str, str]:
    """Headers that name us and the request we work for.

    The id is in the agent too, since the stock registry logs agents and no other header.
    """
    identity = request.CURRENT.get()
    if not identity:
        return {hdrs.USER_AGENT: _AGENT}
    return {hdrs.USER_AGENT: f"{_AGENT} (request {identity})", request.HEADER: identity}


_READ_BUFFER = 1 << 18  # bytes that aiohttp reads ahead
#: The stock registry's own limit: tokens and upload states can be long.
LONGEST_LINE = 1 << 20  # bytes of a header, or of the first line of a request or response
MOST_HEADERS = 1024


class _Connector(aiohttp.TCPConnector):
    """Uses a connection again only if nothing came behind the last answer.

    aiohttp would take such bytes, if they look like an answer, for the answer to the next request: one of another client.
    """

    def __init__(self, **options: Any) -> None:
        """The options of aiohttp's connector."""
        super().__init__(**options)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    @override
    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or connection.protocol not in self._used:
                break
            if not _has_more(connection):
                return connection
            connection.close()
        if connection.protocol is not None:
            self._used.add(connection.protocol)
        return connection


def _has_more(connection: Connection) -> bool:
    """Whether bytes, or the end, came over a connection that is idle: in aiohttp's memory, or still in the socket."""
    if connection.protocol is None or connection.protocol.should_close:
        return True
    raw = connection.transport.get_extra_info("socket") if connection.transport is not None else None
    if raw is None:
        return True
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def client_session(
    *traces: aiohttp.TraceConfig, certificates: ssl.SSLContext | None = None
) -> aiohttp.ClientSession:
    """A session, which the caller closes. `certificates` checks https servers; None trusts the host's authorities."""
    return aiohttp.ClientSession(
        trace_configs=list(traces),
        auto_decompress=False,
        connector=_Connector(limit=0, ssl=certificates or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_BUFFER,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
        max_headers=MOST_HEADERS,
    )


def registry_tls(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS toward the registry: trusts the host's authorities and those in the file `ca`, and shows our `certificate`, if any.

    Reads files, so it blocks. Raises `SettingsInvalid`.
    """
    context = ssl.create_default_context()
    try:
        if ca:
            context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"registry.ca: {tls_reason(error)}") from error
    try:
        if certificate:
            context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(
            f"registry.client_certificate, registry.client_key: {tls_reason(error)}"
        ) from error
    return context


def pinned_tls(certificate: str) -> ssl.SSLContext:
    """TLS that trusts only the certificates of this file, whether an authority's or a server's own.

    Reads the file, so it blocks. Raises `SettingsInvalid`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"http.certificate: {tls_reason(error)}") from error
    return context


def tls_reason(error: Exception) -> str:
    """Why a certificate or key cannot be used; never empty."""
    if isinstance(error, ssl.SSLError):
        words = (error.reason or "").replace("_", " ").lower()
        return words or "neither a certificate nor a key in PEM"
    file = getattr(error, "filename", None)
    return f"{file}: {reason(error)}" if file else reason(error)
