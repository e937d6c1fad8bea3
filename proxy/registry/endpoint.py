"""How a registry is reached: its address, what its certificate is checked by, and our own way in. The server and every command
come by this one way, to the registry that is configured or to the nixfront before it.

How nixfront asks others by HTTP: bodies come as they were sent, no cookies are kept, heads may be long.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import hdrs
from yarl import URL

from proxy import __version__
from proxy.core.errors import SettingsInvalid
from proxy.registry.login import Credentials, Login, Scopes

_AGENT = f"nixfront/{__version__}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry at `url`, an origin; `certificates`: for https, None for those of the host."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    certificates: ssl.SSLContext | None = None

    @asynccontextmanager
    async def opened(self, *traces: aiohttp.TraceConfig) -> AsyncIterator["OpenEndpoint"]:
        """The way to it, for as long as the context lasts."""
        async with client_session(*traces, certificates=self.certificates) as session:
            login = Login(session, self.credentials, secure=self.url.startswith("https:"))
            try:
                yield OpenEndpoint(self.url, session, login)
            finally:
                await login.close()

    def let_in(self, challenged: Sequence[str], scopes: Scopes) -> str:
        """The value of an `Authorization` that answers the `WWW-Authenticate` of a 401, empty where we have none; blocking.

        For those who ask without an event loop. Raises `RegistryUnavailable`.
        """

        async def answer() -> str:
            async with self.opened() as reached:
                again = reached.login.refused(challenged, scopes, "")
                return await reached.login.authorization(scopes) if again else ""

        return asyncio.run(answer())


@dataclass(frozen=True, slots=True)
class OpenEndpoint:
    """A registry, with the session and the login for it."""

    url: str
    session: aiohttp.ClientSession
    login: Login

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str | URL,
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: aiohttp.ClientTimeout,
        redirects: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Its answer to a path, or to a whole URL of its own, whatever it is; a 401 teaches us how to come, and is tried once more so.

        Raises what aiohttp raises, and `RegistryUnavailable` where its token service lets us down.
        """
        asked = {hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: _AGENT, **(headers or {})}
        url = URL(f"{self.url}{path}") if isinstance(path, str) else path
        for last in (False, True):
            sent = await self.login.authorization(scopes)
            if sent:
                asked[hdrs.AUTHORIZATION] = sent
            async with self.session.request(
                method, url, headers=asked, timeout=timeout, allow_redirects=redirects
            ) as answer:
                wanted = answer.headers.getall(hdrs.WWW_AUTHENTICATE, ())
                if last or answer.status != 401 or not self.login.refused(wanted, scopes, sent):
                    yield answer
                    return


_READ_BUFFER = 1 << 18  # bytes that aiohttp reads ahead
#: As much as the stock registry takes: tokens, and the states of uploads, can be long.
LONGEST_LINE = 1 << 20  # bytes of a request's or an answer's first line, or of a header
MOST_HEADERS = 1024


def client_session(
    *traces: aiohttp.TraceConfig, certificates: ssl.SSLContext | None = None
) -> aiohttp.ClientSession:
    """A session that is for its maker to close; `certificates`: for https, None for those of the host."""
    return aiohttp.ClientSession(
        trace_configs=list(traces),
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0, ssl=certificates or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_BUFFER,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
        max_headers=MOST_HEADERS,
    )


def toward_registry(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """What the registry is asked with: the host's authorities and `ca`, and a certificate of our own if there is one.

    Blocking. Raises `SettingsInvalid`.
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


def trusting(certificate: str) -> ssl.SSLContext:
    """Trust in the certificates of this file alone, be they an authority's or not. Blocking. Raises `SettingsInvalid`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"http.certificate: {tls_reason(error)}") from error
    return context


def tls_reason(error: Exception) -> str:
    """Why a certificate or key cannot be used, in words; never empty."""
    return str(error) or type(error).__name__
