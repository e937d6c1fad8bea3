"""One binary cache: its small files, and the bytes of its large ones for a thread that reads them.

A cache that does not answer is left alone for a while, so that no image waits for it again and again.
"""

import asyncio
import base64
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import aiohttp
from cachetools import TTLCache
from yarl import URL

from proxy.core.errors import CacheUnusable
from proxy.core.model import without_credentials
from proxy.nix.cache.settings import Address
from proxy.tools import redirects

T = TypeVar("T")

_log = logging.getLogger(__name__)
_AWAY_SECONDS = 60.0
_SECONDS = aiohttp.ClientTimeout(total=30, sock_connect=5, sock_read=15)
_STALLED = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=20)
#: A file has so many seconds, and one more for each of so many bytes of it.
_LEAST_SECONDS = 60.0
_LEAST_SPEED = 128 << 10
_PIECE = 1 << 20
_READ_BUFFER = 1 << 18
#: What a request can end with; a `RuntimeError` where the session was closed meanwhile.
_FAILURES = (aiohttp.ClientError, TimeoutError, ValueError, RuntimeError)
# The hash of a file is that of the bytes as they lie in the cache.
_AS_IT_LIES = {"Accept-Encoding": "identity"}
_INFO_FILE = "nix-cache-info"
_PRIORITY = re.compile(r"^Priority: *(\d{1,9})\s*$", re.MULTILINE)
_STORE = re.compile(r"^StoreDir: */nix/store\s*$", re.MULTILINE)
_USUAL_PRIORITY = 50
_LARGEST_INFO = 64 << 10


def cache_session() -> aiohttp.ClientSession:
    """A session for binary caches, which the caller closes.

    Its callers bound their requests; a limit here would let one cache's slow files hold up another cache.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_BUFFER,
    )


class Source(Protocol):
    """A file on its way, for one thread."""

    def read(self) -> bytes:
        """The next bytes, none at the end. Raises `CacheUnusable`."""

    def close(self) -> None:
        """Read no more of it; from any thread."""


class Cache:
    """A binary cache."""

    def __init__(
        self,
        address: Address,
        session: aiohttp.ClientSession,
        threads: Executor,
        login: tuple[str, str] | None,
    ) -> None:
        """`threads` read small files of a folder. `login`: a user and a password."""
        self._threads = threads
        self.address = address
        self.name = without_credentials(address.url)
        self._session = session
        self._login = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}" if login else ""
        # Without a login, which `_login` has: no address shows it.
        self._base = address.url
        self._folder: Path | None = None
        if address.url.startswith("file:"):
            self._folder = Path(unquote(urlsplit(address.url).path))
        else:
            self._base = str(URL(address.url).with_user(None))
        self._away: TTLCache[str, bool] = TTLCache(1, _AWAY_SECONDS)
        self._priority: int | None = address.priority
        self._is_cache = False

    @property
    def is_away(self) -> bool:
        """Whether the cache did not answer a moment ago. The log says so once."""
        return bool(self._away)

    async def priority(self) -> int | None:
        """What Nix orders caches by: a lower one comes first. None for what is no cache, or is away."""
        if not self._is_cache:
            try:
                text = await self.text(_INFO_FILE, _LARGEST_INFO)
            except CacheUnusable:
                return None
            if text is None or not _STORE.search(text):
                self._leave("is no binary cache of /nix/store")
                return None
            match = _PRIORITY.search(text)
            if self._priority is None:
                self._priority = int(match[1]) if match else _USUAL_PRIORITY
            self._is_cache = True
        return None if self._away else self._priority

    async def text(self, file: str, most: int) -> str | None:
        """A small file; None if the cache lacks it. Raises `CacheUnusable`, also where it is larger than `most` bytes."""
        if self._away:
            raise CacheUnusable(f"{self.name} did not answer a moment ago")
        if self._folder is None:
            data = await self._get(file, most)
        else:
            data = await asyncio.get_running_loop().run_in_executor(
                self._threads, _load, self._folder / file, most
            )
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError as error:
            raise CacheUnusable(f"{self.name}/{file} is no text") from error

    def open(self, file: str, size: int, loop: asyncio.AbstractEventLoop) -> Source:
        """A large file, for a thread; `size`: about the bytes that it has, for its deadline. `loop` runs the session."""
        if self._folder is not None:
            return _FileSource(self._folder / file)
        seconds = _LEAST_SECONDS + size / _LEAST_SPEED
        return _HttpSource(partial(self._request, self._url(file)), self.name, loop, seconds)

    async def _request(self, url: str) -> aiohttp.ClientResponse:
        return await redirects.get(self._session, URL(url), _STALLED, headers=_AS_IT_LIES, login=self._login)

    async def _get(self, file: str, most: int) -> bytes | None:
        url = self._url(file)
        try:
            async with await redirects.get(self._session, URL(url), _SECONDS, login=self._login) as answer:
                if answer.status in (403, 404):  # some object stores answer 403 for what they lack
                    return None
                answer.raise_for_status()
                data = bytearray()
                async for chunk in answer.content.iter_any():
                    data += _at_most(chunk, most - len(data), url)
                return bytes(data)
        except _FAILURES as error:
            raise self._leave(f"does not answer: {_reason(error)}") from error

    def _leave(self, problem: str) -> CacheUnusable:
        """Ask this cache nothing for a while."""
        if not self._away:
            _log.warning("binary cache %s %s", self.name, problem)
        self._away[self.name] = True
        return CacheUnusable(f"{self.name} {problem}")

    def _url(self, file: str) -> str:
        return f"{self._base}/{file}"


def _load(file: Path, most: int) -> bytes | None:
    """As `Cache.text`, of a cache in a folder. Blocking."""
    try:
        with file.open("rb") as opened:
            data = opened.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheUnusable(f"cannot read {file}: {error.strerror}") from error
    return _at_most(data, most, str(file))


class _FileSource:
    """A file in a folder."""

    def __init__(self, file: Path) -> None:
        self._path = file
        self._file: BinaryIO | None = None

    def read(self) -> bytes:
        """As `Source.read`."""
        try:
            if self._file is None:
                self._file = self._path.open("rb", buffering=0)
            return self._file.read(_PIECE)
        except OSError as error:
            raise CacheUnusable(f"cannot read {self._path}: {error.strerror}", elsewhere=True) from error

    def close(self) -> None:
        """As `Source.close`."""
        if self._file is not None:
            self._file.close()


class _HttpSource:
    """An answer of a server. The event loop receives it, and a thread waits for the next bytes."""

    def __init__(
        self,
        request: Callable[[], Awaitable[aiohttp.ClientResponse]],
        name: str,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
    ) -> None:
        """`request` asks the server; `seconds`: for all of its answer."""
        self._request = request
        self._name = name
        self._loop = loop
        self._end = time.monotonic() + seconds
        self._answer: aiohttp.ClientResponse | None = None

    def read(self) -> bytes:
        """As `Source.read`."""
        return in_loop(self._loop, self._next)

    def close(self) -> None:
        """As `Source.close`."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(max(0.0, self._end - time.monotonic())):
                if self._answer is None:
                    self._answer = await self._request()
                    if self._answer.status != 200 or "Content-Encoding" in self._answer.headers:
                        status = self._answer.status
                        self._answer.close()
                        raise CacheUnusable(f"{self._name} answers {status} for a NAR", elsewhere=True)
                return await self._answer.content.readany()
        except _FAILURES as error:
            raise CacheUnusable(f"{self._name} broke off: {_reason(error)}", elsewhere=True) from error


def in_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which the event loop runs while this thread waits."""

    async def run() -> T:
        return await work()

    return asyncio.run_coroutine_threadsafe(run(), loop).result()


def _at_most(data: bytes, most: int, name: str) -> bytes:
    if len(data) > most:
        raise CacheUnusable(f"{without_credentials(name)} is larger than we read")
    return data


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return f"status {error.status}"  # its text has the address behind a redirect, which may be a secret
    return without_credentials(f"{type(error).__name__}: {error}"[:200])


def by_host(logins: Mapping[str, tuple[str, str]], address: Address) -> tuple[str, str] | None:
    """User and password for a cache: those in its address, else those of its host, or of every other host."""
    url = URL(address.url)
    if url.user is not None:
        return url.user, url.password or ""
    host = url.host or ""
    return logins.get(host) or logins.get("default")
