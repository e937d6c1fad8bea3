"""An answer of the registry as bytes: what of it is stored, whether it may be, and the response that sends it again."""

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest
from typing_extensions import override

from proxy.core.errors import RegistryUnavailable
from proxy.core.request import HEADER
from proxy.registry.no_answer import why
from proxy.web.passthrough import backward
from proxy.web.replies import conditions

_log = logging.getLogger(__name__)
_LARGEST = 1 << 20  # bytes of a manifest that is stored: the event loop reads it whole and hashes it
_PART = 64 << 10  # bytes of a body that are read at once
# Response headers that are meant for one client, or that say that the body is not the manifest itself.
_PERSONAL = frozenset({"set-cookie", "content-encoding", "transfer-encoding", "www-authenticate"})
_OWN = frozenset({"content-length", HEADER.lower()})  # each response gets its own
_VARIES = frozenset({"accept", "accept-encoding"})
_PRIVATE = ("no-store", "no-cache", "private")  # Cache-Control of a response


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """An answer without its body.

    `head`: the status line behind the version, and all headers but the last ones; `unchanged_head`: those of the 304 for a
    client that has the manifest. `etag`, `digest` and `size` are the body's. `version`: of the repository's tags when nixfront
    asked the registry.
    """

    head: bytes
    unchanged_head: bytes
    etag: str
    digest: str
    size: int
    version: int = 0


def record(request: web.Request, answer: aiohttp.ClientResponse, version: int = 0) -> AnswerRecord:
    """The answer to this request, each line of its head with the line's end; its body is not read."""
    pairs = [
        pair
        for pair in backward(conditions.headers_for(request, answer.headers))
        if pair[0].lower() not in _OWN
    ]
    return AnswerRecord(
        _head(f" {answer.status} {answer.reason}", pairs),
        _head(" 304 Not Modified", conditions.without_body(pairs)),
        answer.headers.get("ETag", ""),
        answer.headers["Docker-Content-Digest"],
        answer.content_length or 0,
        version,
    )


def _head(status: str, pairs: Iterable[tuple[str, str]]) -> bytes:
    lines = [status, *(f"{name}: {value}" for name, value in pairs)]
    # Encoded as aiohttp decoded it.
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")


def is_public(answer: aiohttp.ClientResponse) -> bool:
    """Whether the registry gives this answer to everybody, and it is small enough to be stored."""
    if answer.status != 200 or not _PERSONAL.isdisjoint(name.lower() for name in answer.headers):
        return False
    if any(word in answer.headers.get("Cache-Control", "").lower() for word in _PRIVATE):
        return False
    if not {kind.strip().lower() for kind in answer.headers.get("Vary", "accept").split(",")} <= _VARIES:
        return False
    digest = answer.headers.get("Docker-Content-Digest", "")
    return digest.startswith("sha256:") and 0 <= (answer.content_length or -1) <= _LARGEST


async def body(answer: aiohttp.ClientResponse) -> bytes:
    """The whole manifest. Raises `RegistryUnavailable`; the client has got nothing of the answer then."""
    try:
        return await answer.content.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.warning("the registry broke off path=%s error=%s", answer.url.path, why(error))
        raise RegistryUnavailable(
            "the registry behind nixfront broke off in the middle of a manifest"
        ) from error


async def start_of_body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The start of the answer's body, of `most` bytes or a little more. It is less if the body broke off."""
    start = b""
    with contextlib.suppress(aiohttp.ClientError):  # the next reader meets the error again
        while len(start) < most and (chunk := await answer.content.read(_PART)):
            start += chunk
    return start


def manifest_digest(response: web.StreamResponse) -> str:
    """The digest of the manifest that a client got with this answer; empty if it got none."""
    if response.status not in (200, 304):
        return ""
    if isinstance(response, VerbatimResponse):
        return response.digest
    return response.headers.get("Docker-Content-Digest", "")


class VerbatimResponse(web.StreamResponse):
    """A response that exists as bytes: one write sends it, and aiohttp adds nothing to it.

    `headers` has only what is not in those bytes; signal handlers and middlewares add theirs there. `digest`: the
    manifest's, in this `repository`.
    """

    def __init__(self, request: web.Request, answer: AnswerRecord, manifest: bytes, repository: str) -> None:
        """The answer to this request, or the 304 that its condition asks for; to a HEAD, `manifest` is empty."""
        if conditions.is_met(request, answer.etag, answer.digest):
            super().__init__(status=304)
            self._head, manifest = answer.unchanged_head, b""
        else:
            super().__init__(headers={"Content-Length": str(answer.size)})
            self._head = answer.head
        self.digest = answer.digest
        self.repository = repository
        self._version = b"HTTP/1.1" if request.version >= HttpVersion11 else b"HTTP/1.0"
        self._stays = request.keep_alive
        self._manifest = manifest

    @property
    @override
    def keep_alive(self) -> bool:
        return self._stays

    @override
    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter:
        self._to = request.writer
        return self._to

    @override
    async def write_eof(self, data: bytes = b"") -> None:
        # A response has to say what is not the default of its version of HTTP.
        if self._stays == (self._version == b"HTTP/1.0"):
            self.headers["Connection"] = "keep-alive" if self._stays else "close"
        own = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        await self._to.write_eof(
            b"%b%b%b\r\n%b" % (self._version, self._head, own.encode("ascii"), self._manifest)
        )
