"""The backing registry as nixfront itself uses it: look, mount, upload, put. No header of a client ever comes here.

This module turns every exception of aiohttp into one of ours. It repeats requests whose bytes are at hand; `publish`
repeats uploads, as only it can make their bytes again. It follows a `Location` only on the registry's own host.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress

import aiohttp
from yarl import URL

from proxy.core import foreign
from proxy.core.errors import DigestMismatch, RegistryRefused, RegistryUnavailable
from proxy.core.model import (
    EVERY_MANIFEST_TYPE,
    BlobStream,
    Buffer,
    SmallBlob,
    digest_of,
)
from proxy.registry.chunks import chain, first_chunks
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import CATALOG, Scopes, delete_scopes, pull_scopes, push_scopes
from proxy.registry.no_answer import why, why_for_clients
from proxy.tools.retry import retry

_log = logging.getLogger(__name__)

_OCTETS = "application/octet-stream"
#: Bytes of a manifest or a configuration; the stock registry takes no longer manifest.
LARGEST_DOCUMENT = 4 << 20
_LARGEST_REFUSAL = 64 << 10  # bytes of a refusal that we read
_LACKING = (404, 405, 501)
_TRIES_WHEN_BUSY = 3
_TRIES_WHEN_AWAY = 5  # a registry that restarts needs some seconds
_PAUSE = 0.2  # seconds before the second try; doubled for each further one
_STALLED = 120.0  # seconds without progress of an upload
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)


class Registry:
    """The registry at an open endpoint. Every method raises `RegistryUnavailable` and `RegistryRefused`."""

    def __init__(self, endpoint: OpenEndpoint) -> None:
        self._endpoint = endpoint
        self._origin = URL(endpoint.url).origin()

    async def ping(self, *, must_admit: bool = False) -> None:
        """Return once the registry answers; if it does not let us in, only without `must_admit`."""
        await self._once("GET", self._origin / "v2/", (200,) if must_admit else (200, 401, 403), ())

    async def manifest_digest(self, repository: str, reference: str) -> str | None:
        """The digest of the manifest with this tag or digest, of any media type; None if there is none."""
        url = self._url(repository, "manifests", reference)
        status, headers = await self._retry(
            "HEAD", url, (200, 404), pull_scopes(repository), {"Accept": EVERY_MANIFEST_TYPE}
        )
        return headers.get("Docker-Content-Digest", "") if status == 200 else None

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has this blob."""
        url = self._url(repository, "blobs", digest)
        status, _ = await self._retry("HEAD", url, (200, 404), pull_scopes(repository))
        return status == 200

    async def mount(self, repository: str, digest: str, origin: str) -> bool:
        """Give the repository a blob of the repository `origin`. False if the registry did not mount it."""
        url = self._url(repository, "blobs", "uploads/").with_query(mount=digest, **{"from": origin})
        try:
            status, headers = await self._retry("POST", url, (201, 202), push_scopes(repository, origin))
        except RegistryRefused as error:
            if not error.temporary:  # we may not read from the origin, or this registry mounts nothing
                return False
            raise
        if status == 202:  # distribution-spec: instead of a mount the registry began an upload
            await self._cancel(_location(url, headers), repository)
        return status == 201

    async def upload(self, repository: str, stream: BlobStream) -> None:
        """Send a blob, which is read while it is sent.

        Also raises `DigestMismatch` if the registry stored other bytes.
        """
        rest = aiter(stream)
        first, is_all = await first_chunks(rest)
        scopes = push_scopes(repository)
        start = self._url(repository, "blobs", "uploads/")
        _, headers = await self._retry("POST", start, (202,), scopes)
        location = _location(start, headers)
        try:
            if not is_all:
                _, headers = await self._send("PATCH", location, (202, 204), scopes, chain(first, rest))
                location = _location(location, headers)
                first = []
            expected = stream.digest
            # The query of the location is the registry's own state, so its bytes stay as they are.
            separator = "&" if location.raw_query_string else "?"
            finish = URL(f"{location}{separator}digest={expected}", encoded=True)
            _, headers = await self._send("PUT", finish, (201, 204), scopes, b"".join(first))
        except BaseException:
            await self._cancel(location, repository)
            raise
        _check_digest(expected, headers)

    async def put_blob(self, repository: str, data: bytes) -> None:
        """Send a small blob, also if the repository has it."""
        await retry(
            lambda: self.upload(repository, SmallBlob(data)),
            lambda error: min(_tries(error), _TRIES_WHEN_BUSY),
            _PAUSE,
        )

    async def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> bool:
        """Store a manifest under a tag or its digest, and return whether the registry lists it by its subject.

        With this request, and not before, the image exists. Also raises `DigestMismatch` if the registry stored other bytes.
        """
        url = self._url(repository, "manifests", reference)
        _, headers = await self._retry(
            "PUT", url, (201,), push_scopes(repository), {"Content-Type": media_type}, data=data
        )
        _check_digest(digest_of(data), headers)
        return "OCI-Subject" in headers  # distribution-spec, "Pushing Manifests with Subject"

    async def referrers(self, repository: str, digest: str) -> bytes | None:
        """The index of the manifests whose subject has this digest; None where the registry has no such list."""
        return await self._read_or_none(self._url(repository, "referrers", digest), repository)

    async def manifest(self, repository: str, reference: str) -> bytes | None:
        """The manifest with this tag or digest; None if there is none."""
        url = self._url(repository, "manifests", reference)
        return await self._read_or_none(url, repository, EVERY_MANIFEST_TYPE)

    async def content(self, repository: str, kind: str, digest: str, most: int = LARGEST_DOCUMENT) -> bytes:
        """The manifest or small blob with this digest, of at most so many bytes; `kind` is `manifests` or `blobs`.

        Also raises `DigestMismatch` if the registry sent other bytes.
        """
        accept = EVERY_MANIFEST_TYPE if kind == "manifests" else "*/*"
        url = self._url(repository, kind, digest)
        data = await self._read(url, pull_scopes(repository), accept, most)
        if digest_of(data) != digest:
            raise DigestMismatch(f"nixfront asked the registry for {digest} and got {digest_of(data)}")
        return data

    async def repositories(self, most: int) -> list[str]:
        """The first repositories of the catalog, sorted."""
        url = (self._origin / "v2/_catalog").with_query(n=str(most))
        return _names(await self._read(url, CATALOG, "*/*"), "repositories")

    async def tag_names(self, repository: str) -> list[str]:
        """The tags of a repository, in the registry's order. Without a tag, the repository need not exist."""
        body = await self._read_or_none(self._url(repository, "tags", "list"), repository)
        return [] if body is None else _names(body, "tags")

    async def _read_or_none(self, url: URL, repository: str, accept: str = "*/*") -> bytes | None:
        """As `_read`; None for what the registry does not have."""
        try:
            return await self._read(url, pull_scopes(repository), accept)
        except RegistryRefused as error:
            if error.status in _LACKING:
                return None
            raise

    async def _read(self, url: URL, scopes: Scopes, accept: str, most: int = LARGEST_DOCUMENT) -> bytes:
        """The body of a 200. Raises `RegistryRefused` for another status, and for a body that is too long."""
        with _own_errors("GET", url):
            async with self._endpoint.ask(
                "GET", url, scopes, {"Accept": accept}, timeout=_TIMEOUT
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > most:
                        raise RegistryRefused("GET", url.path, response.status, "the response is too long")
        if response.status != 200:
            raise _refusal(response, "GET", url, body[:_LARGEST_REFUSAL])
        return bytes(body)

    def _url(self, repository: str, kind: str, rest: str) -> URL:
        return URL(f"{self._origin}/v2/{repository}/{kind}/{rest}", encoded=True)

    async def _send(
        self,
        method: str,
        url: URL,
        expected: tuple[int, ...],
        scopes: Scopes,
        data: bytes | AsyncIterator[Buffer],
    ) -> tuple[int, Mapping[str, str]]:
        """Send any number of bytes. Raises `RegistryUnavailable` when the registry takes none for a while."""
        loop = asyncio.get_running_loop()

        async def watch(chunks: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
            async for chunk in chunks:
                limit.reschedule(loop.time() + _STALLED)
                yield chunk
            limit.reschedule(loop.time() + _STALLED)

        with _own_errors(method, url):
            async with asyncio.timeout(_STALLED) as limit:
                headers = {"Content-Type": _OCTETS}
                body = data if isinstance(data, bytes) else watch(data)
                return await self._once(method, url, expected, scopes, headers, data=body)

    async def _cancel(self, location: URL, repository: str) -> None:
        """End an upload that stays unfinished, so that the registry drops its bytes."""
        with suppress(RegistryRefused, RegistryUnavailable):
            await self._once("DELETE", location, (204,), delete_scopes(repository))

    async def _retry(
        self,
        method: str,
        url: URL,
        expected: tuple[int, ...],
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> tuple[int, Mapping[str, str]]:
        """Status and headers, after more tries while the registry is busy or away."""
        return await retry(lambda: self._once(method, url, expected, scopes, headers, data), _tries, _PAUSE)

    async def _once(
        self,
        method: str,
        url: URL,
        expected: tuple[int, ...],
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        data: bytes | AsyncIterator[Buffer] | None = None,
    ) -> tuple[int, Mapping[str, str]]:
        """Status and headers. Raises `RegistryRefused` for a status that is not `expected`."""
        with _own_errors(method, url):
            async with self._endpoint.ask(
                method, url, scopes, headers, timeout=_TIMEOUT, redirects=False, data=data
            ) as response:
                if response.status in expected:
                    return response.status, response.headers
                body = await response.content.read(_LARGEST_REFUSAL)
        raise _refusal(response, method, url, body)


def _location(url: URL, headers: Mapping[str, str]) -> URL:
    """Where an upload goes on, by the response from `url`. Raises `RegistryUnavailable` for another host."""
    location = url.join(URL(headers.get("Location", ""), encoded=True))
    if location.authority != url.authority:
        raise RegistryUnavailable(
            f"the registry sent an upload from {url.authority} to {location.authority}; "
            "nixfront follows it on its own host only"
        )
    return location


def _tries(error: Exception) -> int:
    """How often a request is tried in all, after this error."""
    if isinstance(error, RegistryUnavailable):
        return _TRIES_WHEN_AWAY
    return _TRIES_WHEN_BUSY if isinstance(error, RegistryRefused) and error.temporary else 1


@contextmanager
def _own_errors(method: str, url: URL) -> Iterator[None]:
    """Raises `RegistryUnavailable` for what aiohttp raises.

    The text of aiohttp's error may hold addresses and signed queries, so only the log gets it.
    """
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _log.warning("the registry did not answer method=%s path=%s error=%s", method, url.path, why(error))
        reason = why_for_clients(error)
        raise RegistryUnavailable(f"the registry did not answer {method} {url.path} ({reason})") from error


def _names(body: bytes, key: str) -> list[str]:
    """The names in a list of the registry. Raises `RegistryUnavailable`."""
    try:
        return foreign.to_names(body, key)
    except foreign.DocumentInvalid as error:
        raise RegistryUnavailable(f"the registry sent no list of {key}: {error}") from error


def _refusal(response: aiohttp.ClientResponse, method: str, url: URL, body: Buffer) -> RegistryRefused:
    return RegistryRefused(method, url.path, response.status, bytes(body).decode(errors="replace"))


def _check_digest(expected: str, headers: Mapping[str, str]) -> None:
    stored = headers.get("Docker-Content-Digest", expected)
    if stored != expected:
        raise DigestMismatch(f"nixfront sent {expected} and the registry stored {stored}")
