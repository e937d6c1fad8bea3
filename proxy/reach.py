"""How a registry is reached: its address, what its certificate is checked by, and our own way in. The server and every command
come by this one way, to the registry that is configured or to the nixfront before it.
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
from proxy.client_session import client_session
from proxy.registry_login import Credentials, Login, Scopes

_AGENT = f"nixfront/{__version__}"


@dataclass(frozen=True, slots=True)
class Reach:
    """A registry at `url`, an origin; `certificates`: for https, None for those of the host."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    certificates: ssl.SSLContext | None = None

    @asynccontextmanager
    async def opened(self, *traces: aiohttp.TraceConfig) -> AsyncIterator["Reached"]:
        """The way to it, for as long as the context lasts."""
        async with client_session(*traces, certificates=self.certificates) as session:
            login = Login(session, self.credentials, secure=self.url.startswith("https:"))
            try:
                yield Reached(self.url, session, login)
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
class Reached:
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
