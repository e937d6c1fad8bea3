"""nixfront's own login at the registry: a user, a password, and the tokens that they buy.

Only nixfront's own requests (`OpenEndpoint.ask`) use it; no request of a client ever carries any of it. The registry names
the scheme that it wants (RFC 9110, section 11): none, Basic, or Bearer. Bearer means a token for a scope, from the service
that the registry names (token authentication of the distribution project). A token serves until shortly before it expires.
The password is in no message, no log line, no repr and no address.
"""

import base64
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
from cachetools import TLRUCache
from yarl import URL

from proxy.core import foreign
from proxy.core.errors import RegistryUnavailable
from proxy.registry.no_answer import why_for_clients
from proxy.tools.flight import SingleFlight

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=\s|,|$)")
_PARAMETER = re.compile(rf'[\s,]*({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",]+)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header: names in lowercase, values without quotes."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(values: Iterable[str]) -> list[Challenge]:
    """All challenges of a response's headers, in their order. An unreadable one ends its header."""
    found: list[Challenge] = []
    for value in values:
        position = 0
        parameters: dict[str, str] | None = None
        while match := (parameters is not None and _PARAMETER.match(value, position)) or _SCHEME.match(
            value, position
        ):
            if match.re is _SCHEME:
                parameters = {}
                found.append(Challenge(match[1].lower(), parameters))
            elif parameters is not None:
                text = match[2]
                quoted = text.startswith('"')
                parameters[match[1].lower()] = re.sub(r"\\(.)", r"\1", text[1:-1]) if quoted else text
            position = match.end()
    return found


_log = logging.getLogger(__name__)
_MOST_TOKENS = 4096
_DEFAULT_LIFE = 60  # seconds that a token lives when its service does not say
_SPARE = 30  # seconds before it expires a token is used no more
_LARGEST_RESPONSE = 1 << 20  # bytes
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)

Scopes = tuple[str, ...]
#: The scopes of the list of all repositories.
CATALOG: Scopes = ("registry:catalog:*",)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the registry. An empty name is nobody."""

    username: str = ""
    password: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of an `Authorization` header."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    seconds: float


class Login:
    """What a registry wants of nixfront, and the tokens for it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: Credentials,
        *,
        secure: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secure`: requests to the registry use TLS, so the password goes only to a token service that uses TLS too."""
        self._session = session
        self._credentials = credentials
        self._secure = secure
        self._challenge: Challenge | None = None
        self._tokens: TLRUCache[Scopes, _Token] = TLRUCache(
            _MOST_TOKENS, lambda _, token, now: now + token.seconds, timer=clock
        )
        self._fetches: SingleFlight[Scopes, _Token] = SingleFlight()

    @property
    def credentials(self) -> Credentials:
        """Whose login this is."""
        return self._credentials

    async def authorization(self, scopes: Scopes) -> str:
        """The value of an `Authorization` header for a request with these scopes; empty while the registry wants none.

        Raises `RegistryUnavailable` when the token service gives no token.
        """
        challenge = self._challenge
        if challenge is None:
            return ""
        if challenge.scheme == "basic":
            return self._credentials.basic()
        token = self._tokens.get(scopes)
        if token is None:
            token = await self._fetches.run(scopes, lambda: self._fetch(challenge, scopes))
            if token.seconds > 0:
                self._tokens[scopes] = token
        return f"Bearer {token.text}"

    def learn(self, headers: Iterable[str], scopes: Scopes, authorization: str) -> bool:
        """Learn from the `WWW-Authenticate` headers of a 401 what the registry wants.

        `authorization` is the header that met the 401. Returns whether another try may succeed.
        """
        by_scheme = {challenge.scheme: challenge for challenge in challenges(headers)}
        challenge = by_scheme.get("bearer") or (
            by_scheme.get("basic") if self._credentials.username else None
        )
        if challenge is None:
            return False
        is_new = self._challenge is None or self._challenge.scheme != challenge.scheme
        self._challenge = challenge
        stale = self._tokens.pop(scopes, None) if authorization else None
        return is_new or stale is not None or not authorization  # another request has learned it meanwhile

    async def close(self) -> None:
        """Cancel all requests to the token service."""
        await self._fetches.close()

    async def _fetch(self, challenge: Challenge, scopes: Scopes) -> _Token:
        service = self._service(challenge)
        place = service.with_query(None)
        query = [("scope", scope) for scope in scopes]
        if "service" in challenge.parameters:
            query.insert(0, ("service", challenge.parameters["service"]))
        headers = {"Authorization": self._credentials.basic()} if self._credentials.username else {}
        try:
            async with self._session.get(
                service.extend_query(query), headers=headers, allow_redirects=False, timeout=_TIMEOUT
            ) as answer:
                body = await answer.content.read(_LARGEST_RESPONSE)
                while chunk := await answer.content.read(_LARGEST_RESPONSE - len(body)):
                    body += chunk
                if answer.status != 200:
                    raise RegistryUnavailable(
                        f"the registry's token service {place} answered {answer.status} to nixfront; see registry.username"
                    )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("the token service did not answer service=%s error=%s", place, type(error).__name__)
            reason = why_for_clients(error)
            raise RegistryUnavailable(
                f"the registry's token service {place} did not answer ({reason})"
            ) from None
        return _read(body, place)

    def _service(self, challenge: Challenge) -> URL:
        """The address of the token service. Raises `RegistryUnavailable` for one that must not get our password."""
        allowed = ("https",) if self._secure else ("http", "https")
        try:
            url = URL(challenge.parameters.get("realm", "")).with_fragment(None)
        except ValueError:
            url = URL()
        if url.scheme not in allowed or not url.host or url.user or url.password:
            raise RegistryUnavailable(
                f"the registry names no token service that may get nixfront's password: it needs an address with {' or '.join(allowed)}"
            )
        return url


def _read(body: bytes, service: URL) -> _Token:
    """The token in a service's response. Raises `RegistryUnavailable`."""
    try:
        document = foreign.parse(body)
        text = document.get("token") or document["access_token"]
        life = float(document.get("expires_in") or _DEFAULT_LIFE)
    except (ValueError, KeyError, TypeError, AttributeError):
        text, life = None, 0.0
    if not (isinstance(text, str) and text.isascii() and text.isprintable()):
        raise RegistryUnavailable(f"the registry's token service {service} gave no token")
    return _Token(text, life - min(_SPARE, life / 2))


def pull_scopes(repository: str) -> Scopes:
    """The scopes of reading."""
    return (f"repository:{repository}:pull",)


def push_scopes(repository: str, origin: str = "") -> Scopes:
    """The scopes of an upload, and of a mount from the repository `origin`."""
    return (
        f"repository:{repository}:pull,push",
        *(pull_scopes(origin) if origin and origin != repository else ()),
    )


def delete_scopes(repository: str) -> Scopes:
    """The scopes of deleting a manifest, and of giving up an upload."""
    return (f"repository:{repository}:delete",)
