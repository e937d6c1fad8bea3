"""The backing registry as we ourselves use it: look, mount, upload, put. Nothing of a client's request comes here, and
nothing of our own credentials (`registry_login`) goes anywhere else.

Every foreign exception is translated at this border. Calls without a body are tried again here; uploads by
`publish`, which can make their bytes anew. A `Location` is followed only on the registry's own host.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import aiohttp
from yarl import URL

from proxy import __version__
from proxy.core import request
from proxy.core.errors import DigestMismatch, RegistryRefused, RegistryUnavailable
from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Buffer, digest_of
from proxy.registry.login import CATALOG, Credentials, Login, Scopes, deleting, pulling, pushing

_log = logging.getLogger(__name__)

#: All that a manifest can be. A registry answers 404 for one that is stored but not among the accepted types.
EVERY_MANIFEST_TYPE = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))
_AGENT = f"nixfront/{__version__}"
_OCTETS = "application/octet-stream"
_DOCUMENT_KEPT = 4 << 20  # bytes of a document that is read whole: no manifest is longer
_BODY_KEPT = 64 << 10  # bytes of a refusal that are kept
_TRIES = 3
_TRIES_AWAY = 5  # while it does not answer at all: one that is started again needs some seconds
_PAUSE = 0.2  # seconds before the second try; doubled for each further one
_WHOLE = 1 << 20  # bytes of a blob that are sent at once, in two requests instead of three
_STALLED = 120.0  # seconds without progress of an upload
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)


class Registry:
    """A registry at `url` (an origin, `http://127.0.0.1:5000`)."""

    def __init__(self, session: aiohttp.ClientSession, url: str, login: Login | None = None) -> None:
        """`session` is the application's; this class neither opens nor closes it. `login`: None to come as nobody."""
        self._session = session
        self._url = URL(url)
        self._login = login or Login(session, Credentials(), secure=self._url.scheme == "https")

    async def ping(self) -> None:
        """The registry answers; whether it lets us in is another question."""
        await self._once("GET", self._url.origin() / "v2/", (200, 401, 403), ())

    async def manifest_digest(self, repository: str, reference: str) -> str | None:
        """The digest of the manifest that the registry holds under any media type, None if there is none."""
        url = self._endpoint(repository, "manifests", reference)
        status, headers = await self._retry(
            "HEAD", url, (200, 404), pulling(repository), {"Accept": EVERY_MANIFEST_TYPE}
        )
        return headers.get("Docker-Content-Digest", "") if status == 200 else None

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has this blob."""
        url = self._endpoint(repository, "blobs", digest)
        status, _ = await self._retry("HEAD", url, (200, 404), pulling(repository))
        return status == 200

    async def mount(self, repository: str, digest: str, origin: str) -> bool:
        """Give the repository a blob that another one has; False if the registry did not."""
        url = self._endpoint(repository, "blobs", "uploads/").with_query(mount=digest, **{"from": origin})
        try:
            status, headers = await self._retry("POST", url, (201, 202), pushing(repository, origin))
        except RegistryRefused as error:
            if not error.temporary:  # we may write here and not read there, or it mounts nothing
                return False
            raise
        if status == 202:  # distribution-spec: the registry began an upload instead
            await self._cancel(self._location(url, headers), repository)
        return status == 201

    async def upload(self, repository: str, chunks: AsyncIterable[Buffer], digest: Callable[[], str]) -> None:
        """Send a blob whose digest is known only once its bytes were read (then `digest` is called).

        Raises `DigestMismatch` if the registry read other bytes than were sent.
        """
        rest = aiter(chunks)
        first, ended = await _beginning(rest)
        scopes = pushing(repository)
        start = self._endpoint(repository, "blobs", "uploads/")
        _, headers = await self._retry("POST", start, (202,), scopes)
        location = self._location(start, headers)
        try:
            if not ended:
                _, headers = await self._send("PATCH", location, (202, 204), scopes, _joined(first, rest))
                location = self._location(location, headers)
                first = []
            expected = digest()
            # The query of the location is the registry's own state: it stays as it is, byte for byte.
            separator = "&" if location.raw_query_string else "?"
            finish = URL(f"{location}{separator}digest={expected}", encoded=True)
            _, headers = await self._send("PUT", finish, (201, 204), scopes, b"".join(first))
        except BaseException:
            await self._cancel(location, repository)
            raise
        _same_digest(expected, headers)

    async def put_blob(self, repository: str, data: bytes) -> None:
        """Send a small blob, whether or not it is there."""
        digest = digest_of(data)
        for attempt in range(_TRIES):
            try:
                return await self.upload(repository, _one(data), lambda: digest)
            except (RegistryUnavailable, RegistryRefused) as error:
                if attempt == _TRIES - 1 or (isinstance(error, RegistryRefused) and not error.temporary):
                    raise
                await asyncio.sleep(_PAUSE * 2**attempt)

    async def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> None:
        """Make the reference name this manifest: the commit point of an image."""
        url = self._endpoint(repository, "manifests", reference)
        _, headers = await self._retry(
            "PUT", url, (201,), pushing(repository), {"Content-Type": media_type}, data=data
        )
        _same_digest(digest_of(data), headers)

    async def content(self, repository: str, kind: str, digest: str) -> bytes:
        """A manifest or a small blob, by its digest. Raises `DigestMismatch` if the registry sent other bytes."""
        accept = EVERY_MANIFEST_TYPE if kind == "manifests" else "*/*"
        data = await self._read(
            self._endpoint(repository, kind, digest), pulling(repository), {"Accept": accept}
        )
        if digest_of(data) != digest:
            raise DigestMismatch(f"the registry sent {digest_of(data)} where {digest} was asked for")
        return data

    async def repositories(self, most: int) -> list[str]:
        """The first repositories of the catalog, sorted."""
        url = (self._url.origin() / "v2/_catalog").with_query(n=str(most))
        return [str(name) for name in json.loads(await self._read(url, CATALOG)).get("repositories") or []]

    async def tag_names(self, repository: str) -> list[str]:
        """The tags of a repository, in the registry's order; none where the last one was deleted."""
        try:
            said = await self._read(self._endpoint(repository, "tags", "list"), pulling(repository))
        except RegistryRefused as error:
            if error.status == 404:
                return []
            raise
        return [str(name) for name in json.loads(said).get("tags") or []]

    async def _read(self, url: URL, scopes: Scopes, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of a 200, not too long; a 401 teaches us how to come, as in `_once`."""
        asked = {"Accept-Encoding": "identity", "User-Agent": _AGENT, **(headers or {})}
        tries = 2
        while True:
            sent = await self._login.authorization(scopes)
            if sent:
                asked["Authorization"] = sent
            with _border("GET", url):
                async with self._session.get(url, headers=asked, timeout=_TIMEOUT) as response:
                    body = bytearray()
                    async for chunk in response.content.iter_any():
                        body += chunk
                        if len(body) > _DOCUMENT_KEPT:
                            raise RegistryRefused("GET", url.path, response.status, "the answer is too long")
                    if response.status == 200:
                        return bytes(body)
                    wanted = response.headers.getall("WWW-Authenticate", ())
            tries -= 1
            if not (tries and response.status == 401 and self._login.refused(wanted, scopes, sent)):
                told = body[:_BODY_KEPT].decode(errors="replace")
                raise RegistryRefused("GET", url.path, response.status, told)

    def _endpoint(self, repository: str, kind: str, rest: str) -> URL:
        return URL(f"{self._url.origin()}/v2/{repository}/{kind}/{rest}", encoded=True)

    def _location(self, asked: URL, headers: Mapping[str, str]) -> URL:
        """Where the registry says to go on. Raises `RegistryUnavailable` if that is another host."""
        found = asked.join(URL(headers.get("Location", ""), encoded=True))
        if found.authority != self._url.authority:
            raise RegistryUnavailable(
                f"the registry sent an upload from {self._url.authority} to {found.authority}; "
                "nixfront follows it on its own host only"
            )
        return found

    async def _send(
        self,
        method: str,
        url: URL,
        expected: tuple[int, ...],
        scopes: Scopes,
        data: bytes | AsyncIterator[Buffer],
    ) -> tuple[int, Mapping[str, str]]:
        """Send bytes, however many; it ends when the registry takes none for a while."""
        loop = asyncio.get_running_loop()

        async def watched(chunks: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
            async for chunk in chunks:
                limit.reschedule(loop.time() + _STALLED)
                yield chunk
            limit.reschedule(loop.time() + _STALLED)

        with _border(method, url):
            async with asyncio.timeout(_STALLED) as limit:
                headers = {"Content-Type": _OCTETS}
                body = data if isinstance(data, bytes) else watched(data)
                return await self._once(method, url, expected, scopes, headers, data=body)

    async def _cancel(self, location: URL, repository: str) -> None:
        """End an upload that will not be finished, so that the registry need not keep it."""
        with suppress(RegistryRefused, RegistryUnavailable):
            await self._once("DELETE", location, (204,), deleting(repository))

    async def _retry(
        self,
        method: str,
        url: URL,
        expected: tuple[int, ...],
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> tuple[int, Mapping[str, str]]:
        """A call that may be repeated as it is, tried a few times while the registry is busy or away."""
        for attempt in range(_TRIES_AWAY - 1):
            try:
                return await self._once(method, url, expected, scopes, headers, data)
            except RegistryUnavailable:
                pass
            except RegistryRefused as error:
                if not error.temporary or attempt >= _TRIES - 1:
                    raise
            await asyncio.sleep(_PAUSE * 2**attempt)
        return await self._once(method, url, expected, scopes, headers, data)

    async def _once(
        self,
        method: str,
        url: URL,
        expected: tuple[int, ...],
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        data: bytes | AsyncIterator[Buffer] | None = None,
    ) -> tuple[int, Mapping[str, str]]:
        """Status and headers; a 401 teaches us how to come, and is tried once more so.

        Raises `RegistryUnavailable`, and `RegistryRefused` for a status not expected.
        """
        named = {**(headers or {}), "User-Agent": _AGENT, request.HEADER: request.CURRENT.get()}
        if named[request.HEADER]:  # in its log too, where agents are told and headers are not
            named["User-Agent"] += f" (request {named[request.HEADER]})"
        tries = 2
        while True:
            sent = await self._login.authorization(scopes)
            if sent:
                named["Authorization"] = sent
            with _border(method, url):
                async with self._session.request(
                    method, url, headers=named, data=data, allow_redirects=False, timeout=_TIMEOUT
                ) as response:
                    if response.status in expected:
                        return response.status, response.headers
                    body = await response.content.read(_BODY_KEPT)
                    wanted = response.headers.getall("WWW-Authenticate", ())
            again = response.status == 401 and self._login.refused(wanted, scopes, sent)
            if again and data is not None and not isinstance(data, bytes):
                raise RegistryUnavailable(
                    f"the registry wants another token in the middle of {method} {url.path}"
                )
            tries -= 1
            if not (again and tries):
                raise RegistryRefused(method, url.path, response.status, body.decode(errors="replace"))


@contextmanager
def _border(method: str, url: URL) -> Iterator[None]:
    """Foreign exceptions become ours. What they say may hold addresses and signed queries: it goes to the log alone."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _log.warning("no answer of the registry method=%s path=%s error=%r", method, url.path, error)
        kind = type(error).__name__
        raise RegistryUnavailable(f"no answer of the registry to {method} {url.path} ({kind})") from error


def _same_digest(expected: str, headers: Mapping[str, str]) -> None:
    stored = headers.get("Docker-Content-Digest", expected)
    if stored != expected:
        raise DigestMismatch(f"the registry stored {stored} where {expected} was sent")


async def _one(data: bytes) -> AsyncIterator[Buffer]:
    yield data


async def _beginning(chunks: AsyncIterator[Buffer]) -> tuple[list[Buffer], bool]:
    """What comes first, somewhat more than `_WHOLE` bytes, and whether that is all."""
    first: list[Buffer] = []
    async for chunk in chunks:
        first.append(chunk)
        if sum(len(each) for each in first) > _WHOLE:
            return first, False
    return first, True


async def _joined(first: list[Buffer], rest: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
    while first:
        yield first.pop(0)
    async for chunk in rest:
        yield chunk
