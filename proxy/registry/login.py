"""nixfront's own way into the registry: its user and password, and the tokens that they buy.

For nixfront's own calls (see `reach`); no request of a client ever carries any of it. The registry says what
it wants (RFC 9110, section 11): nothing, Basic, or Bearer, that is a token for a scope from the service which it names
(distribution-spec's token authentication). Tokens are kept until shortly before they end. The password is in no message,
no log line, no repr and no address.
"""

import base64
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
from cachetools import TLRUCache
from yarl import URL

from proxy.core.errors import RegistryUnavailable
from proxy.tools.flight import SingleFlight

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=\s|,|$)")
_PARAMETER = re.compile(rf'[\s,]*({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",]+)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to be let in, of a `WWW-Authenticate`: names in lowercase, values without quotes."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(values: Iterable[str]) -> list[Challenge]:
    """All of a response's challenges, in their order; what cannot be read ends its line."""
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
_SHORTEST = 60  # seconds that a token lives when its service does not say
_SPARE = 30  # seconds before its end from which on a token is not used any more
_LONGEST = 1 << 20  # bytes of a service's answer
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)

Scopes = tuple[str, ...]
#: What the list of all repositories needs.
CATALOG: Scopes = ("registry:catalog:*",)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the registry; of none, an empty name."""

    username: str = ""
    password: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of an `Authorization`."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    seconds: float


class Login:
    """Knows what a registry wants, and has it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: Credentials,
        *,
        secure: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secure`: the registry is asked by TLS, and so must be the service that gets the password."""
        self._session = session
        self._credentials = credentials
        self._secure = secure
        self._wanted: Challenge | None = None
        self._tokens: TLRUCache[Scopes, _Token] = TLRUCache(
            _MOST_TOKENS, lambda _, token, now: now + token.seconds, timer=clock
        )
        self._fetches: SingleFlight[Scopes, _Token] = SingleFlight()

    async def authorization(self, scopes: Scopes) -> str:
        """The value of an `Authorization` for a request that needs these scopes, empty where none is wanted.

        Raises `RegistryUnavailable` where a token cannot be had.
        """
        if self._wanted is None:
            return ""
        if self._wanted.scheme == "basic":
            return self._credentials.basic()
        token = self._tokens.get(scopes)
        if token is None:
            wanted = self._wanted
            token = await self._fetches.run(scopes, lambda: self._fetch(wanted, scopes))
            if token.seconds > 0:
                self._tokens[scopes] = token
        return f"Bearer {token.text}"

    def refused(self, challenged: Iterable[str], scopes: Scopes, sent: str) -> bool:
        """Learn from the `WWW-Authenticate` of a 401 to what was `sent`; whether another try can be let in."""
        known = {challenge.scheme: challenge for challenge in challenges(challenged)}
        wanted = known.get("bearer") or (known.get("basic") if self._credentials.username else None)
        if wanted is None:
            return False
        changed = self._wanted is None or self._wanted.scheme != wanted.scheme
        self._wanted = wanted
        had = self._tokens.pop(scopes, None) if sent else None
        return changed or had is not None

    async def close(self) -> None:
        """End what is being asked."""
        await self._fetches.close()

    async def _fetch(self, wanted: Challenge, scopes: Scopes) -> _Token:
        service = self._service(wanted)
        place = service.with_query(None)
        query = [("scope", scope) for scope in scopes]
        if "service" in wanted.parameters:
            query.insert(0, ("service", wanted.parameters["service"]))
        sent = {"Authorization": self._credentials.basic()} if self._credentials.username else {}
        try:
            async with self._session.get(
                service.extend_query(query), headers=sent, allow_redirects=False, timeout=_TIMEOUT
            ) as answer:
                body = await answer.content.read(_LONGEST)
                while chunk := await answer.content.read(_LONGEST - len(body)):
                    body += chunk
                if answer.status != 200:
                    raise RegistryUnavailable(
                        f"the registry's token service {place} answered {answer.status} to nixfront; see registry.username"
                    )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("no answer of the token service service=%s error=%s", place, type(error).__name__)
            kind = type(error).__name__
            raise RegistryUnavailable(f"no answer of the registry's token service {place} ({kind})") from None
        return _read(body, place)

    def _service(self, wanted: Challenge) -> URL:
        """The address of the token service. Raises `RegistryUnavailable` for one that gets no password of ours."""
        allowed = ("https",) if self._secure else ("http", "https")
        try:
            url = URL(wanted.parameters.get("realm", "")).with_fragment(None)
        except ValueError:
            url = URL()
        if url.scheme not in allowed or not url.host or url.user or url.password:
            raise RegistryUnavailable(
                f"the registry names no token service that nixfront may ask: an address of {' or '.join(allowed)}"
            )
        return url


def _read(body: bytes, service: URL) -> _Token:
    """The token of a service's answer. Raises `RegistryUnavailable`."""
    try:
        said = json.loads(body)
        text, lives = said.get("token") or said["access_token"], float(said.get("expires_in") or _SHORTEST)
    except (ValueError, KeyError, TypeError, AttributeError):
        text, lives = None, 0.0
    if not (isinstance(text, str) and text.isascii() and text.isprintable()):
        raise RegistryUnavailable(f"the registry's token service {service} gave no token")
    return _Token(text, lives - min(_SPARE, lives / 2))


def pulling(repository: str) -> Scopes:
    """What a look needs."""
    return (f"repository:{repository}:pull",)


def pushing(repository: str, origin: str = "") -> Scopes:
    """What an upload needs, and a mount from another repository."""
    return (
        f"repository:{repository}:pull,push",
        *(pulling(origin) if origin and origin != repository else ()),
    )


def deleting(repository: str) -> Scopes:
    """What it needs to delete a manifest, or to give up an upload."""
    return (f"repository:{repository}:delete",)
