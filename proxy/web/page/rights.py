"""What the registry lets each visitor of the page pull. The registry decides, repository by repository.

A visitor is who the `Authorization` header says, or nobody. nixfront asks the registry in the visitor's name, by Basic or by the
token that the registry's challenge asks for. It caches the answers for a while under a keyed hash of the credentials, so no
visitor gets the answer of another. A password lives as long as its request.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import aiohttp
from cachetools import LRUCache

from proxy.core.errors import Busy, NixfrontError
from proxy.core.model import EVERY_MANIFEST_TYPE
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import Credentials, Scopes, pull_scopes

_FRESH = 30.0  # seconds for which an answer is cached
_STALE = 120.0  # seconds for which it counts while the registry does not answer
_MOST_ANSWERS = 16384
_MOST_REPOSITORIES = 500  # that one visitor sees
_AT_ONCE = 8  # questions
_MOST_VISITORS = 64  # whose questions wait for their turn
_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=10)
_LOGIN = (
    ""  # stands for the question whether the registry accepts the credentials; no repository has this name
)
_NOBODY = Credentials()


@dataclass(frozen=True, slots=True)
class _Answer:
    allowed: bool
    moment: float


def credentials_of(authorizations: Sequence[str]) -> Credentials:
    """The user and password of the `Authorization` headers of a request; nobody's if they are not one Basic header."""
    if len(authorizations) != 1:
        return _NOBODY
    scheme, _, rest = authorizations[0].strip().partition(" ")
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode() if scheme.lower() == "basic" else ""
    except ValueError:
        return _NOBODY
    user, _, password = text.partition(":")
    return Credentials(user, password) if user else _NOBODY


class Rights:
    """The rights of all visitors at one registry."""

    def __init__(self, registry: OpenEndpoint, clock: Callable[[], float] = time.monotonic) -> None:
        """`registry` has nixfront's own credentials: a visitor who has the same sees what nixfront sees."""
        self._registry = registry
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._own = self._name(registry.login.credentials)
        self._answers: LRUCache[tuple[str, str], _Answer] = LRUCache(_MOST_ANSWERS)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    @property
    def has_logins(self) -> bool:
        """Whether nixfront itself logs in at the registry, so that visitors may see more when they do."""
        return bool(self._registry.login.credentials.username)

    async def accepts(self, credentials: Credentials) -> bool:
        """Whether the registry accepts this user and password. Raises `Busy`."""
        return bool(await self._allowed(credentials, [_LOGIN]))

    async def readable(self, credentials: Credentials, repositories: Iterable[str]) -> set[str]:
        """Those of the repositories that the registry lets the visitor pull, also if they are empty. Raises `Busy`."""
        listed = list(dict.fromkeys(repositories))
        if self._name(credentials) == self._own:
            return set(listed)
        if not listed or (credentials.username and not await self.accepts(credentials)):
            return set()
        return await self._allowed(credentials, listed[:_MOST_REPOSITORIES])

    async def _allowed(self, credentials: Credentials, questions: Sequence[str]) -> set[str]:
        visitor = self._name(credentials)
        fresh = {question: self._fresh((visitor, question)) for question in questions}
        if all(answer is not None for answer in fresh.values()):
            return {question for question, answer in fresh.items() if answer}
        if self._waiting >= _MOST_VISITORS:
            raise Busy("too many people look at this page at this moment", 5)
        self._waiting += 1
        try:
            async with self._registry.as_user(credentials) as registry:
                answers = await asyncio.gather(*(self._ask(registry, visitor, each) for each in questions))
        finally:
            self._waiting -= 1
        return {question for question, answer in zip(questions, answers, strict=True) if answer}

    async def _ask(self, registry: OpenEndpoint, visitor: str, question: str) -> bool:
        async with self._slots:
            if (answer := self._fresh((visitor, question))) is not None:
                return answer
            if question == _LOGIN:
                allowed = await _status(registry, "GET", "/v2/", (), (200,))
            else:
                # A registry checks the rights before it looks whether the manifest is there.
                path = f"/v2/{question}/manifests/latest"
                allowed = await _status(registry, "HEAD", path, pull_scopes(question), (200, 404))
            if allowed is None:
                return self._within((visitor, question), _STALE) or False
            self._answers[visitor, question] = _Answer(allowed, self._clock())
            return allowed

    def _fresh(self, key: tuple[str, str]) -> bool | None:
        return self._within(key, _FRESH)

    def _within(self, key: tuple[str, str], seconds: float) -> bool | None:
        """The answer, if it is at most so old."""
        answer = self._answers.get(key)
        return answer.allowed if answer is not None and self._clock() - answer.moment < seconds else None

    def _name(self, credentials: Credentials) -> str:
        """A name for who has these credentials, which tells nothing about them."""
        if not credentials.username:
            return "nobody"
        pair = f"{len(credentials.username)}:{credentials.username}:{credentials.password}"
        return hmac.new(self._key, pair.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


async def _status(
    registry: OpenEndpoint, method: str, path: str, scopes: Scopes, good: Sequence[int]
) -> bool | None:
    """Whether the registry answers with a good status; None if it does not decide at this moment."""
    try:
        async with registry.ask(
            method, path, scopes, {"Accept": EVERY_MANIFEST_TYPE}, timeout=_TIMEOUT, redirects=False
        ) as response:
            return None if response.status >= 500 or response.status == 429 else response.status in good
    except (aiohttp.ClientError, TimeoutError, OSError, NixfrontError):
        return None
