"""The registry's answers to anonymous questions about manifests, given again for a few seconds. Around `passthrough`.

Rules of this file: the registry decides who sees what, so what it answered one client may be told another one only
where it could not have told them apart: no credentials, no certificate, no condition, no query, and no header beyond
those listed here. Only a 200 is kept. A manifest's bytes are kept by digest, as long as there is room, for they never
change; which question they answer is known for `seconds` alone.

A write of ours or through us ends all that is known about its repository, once before it goes up and once when it is
answered; an answer that was under way meanwhile is not kept. So no client is told what was so before a push that
somebody knows to be done. Only what is written behind our back shows late, by `seconds` at most.

An answer given again is the registry's, byte for byte, its `Date` too.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain

import aiohttp
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest
from cachetools import LRUCache, TTLCache
from typing_extensions import override

from proxy.core import request as core_request
from proxy.core.errors import RegistryUnavailable
from proxy.core.events import BuildEnded, Event
from proxy.core.model import digest_of
from proxy.core.request import HEADER, is_upload
from proxy.web.client import FORWARDING
from proxy.web.passthrough import Passthrough, backward

_log = logging.getLogger(__name__)
_MOST_QUESTIONS = 4096
_LARGEST = 1 << 20  # bytes of a manifest that is kept: it is read whole and hashed on the event loop
_LONGEST = 2048  # bytes of the headers of an answer or a request that is kept
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# Request headers that change nothing in the registry's answer about a manifest.
_IGNORED = frozenset(
    {
        "host",
        "user-agent",
        "accept-encoding",
        "connection",
        "docker-distribution-api-version",
        HEADER.lower(),
    }
    | FORWARDING  # the registry gets our own
)
# Response headers that are meant for one client, or say that the body is not the manifest itself.
_PERSONAL = frozenset({"set-cookie", "content-encoding", "transfer-encoding", "www-authenticate"})
_OWN = frozenset({"content-length", HEADER.lower()})  # of each response, so not in what is kept
_VARIES = frozenset({"accept", "accept-encoding"})
_UNKEPT = ("no-store", "no-cache", "private")  # Cache-Control of a response


@dataclass(frozen=True, slots=True)
class Question:
    """What of a request the registry's answer depends on; `accepted` holds the media types of all Accept lines.

    `client` is what the registry is told about who asks: it may go by addresses.
    """

    repository: str
    reference: str
    accepted: frozenset[str]
    client: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """The registry's answer: status line behind the version, headers but for the last ones; the body's digest and size."""

    head: bytes
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class _Asked:
    question: Question
    generation: int


_ASKED: web.RequestKey[_Asked] = web.RequestKey("asked", _Asked)


class AnswerCache:
    """A `Passthrough` with a memory."""

    def __init__(self, passthrough: Passthrough, *, seconds: float, most_bytes: int) -> None:
        """`most_bytes` bounds the manifests; `seconds` is how long an answer holds, 0 for no memory at all."""
        self._passthrough = passthrough
        self._seconds = seconds
        self._known: TTLCache[Question, _Known] = TTLCache(_MOST_QUESTIONS, seconds, time.monotonic)
        self._manifests: LRUCache[str, bytes] = LRUCache(most_bytes, len)
        self._generation = 0
        self._asking: dict[Question, asyncio.Event] = {}  # set when there is an answer, whatever it is
        # The question of a request that came in these very bytes: a client sends the same ones again and again.
        self._read: LRUCache[Hashable, Question] = LRUCache(_MOST_QUESTIONS)

    def recall(self, request: web.Request) -> web.StreamResponse | None:
        """What the registry answered to this question a moment ago, if that is known and meant for everybody."""
        question = self._question(request)
        if question is None:
            return None
        try:  # quicker than `get`, in each of these caches
            known = self._known[question]
            manifest = b"" if request.method == "HEAD" else self._manifests[known.digest]
        except KeyError:
            return None
        if manifest and len(manifest) != known.size:
            return None
        return _Verbatim(request, known, manifest)

    @asynccontextmanager
    async def send(self, request: web.Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """As `Passthrough.send`."""
        written = _written(request)
        if written is None and (question := self._question(request)) is not None:
            request[_ASKED] = _Asked(question, self._generation)
        async with AsyncExitStack() as stack:
            try:
                self._forget(written)
                answer = await stack.enter_async_context(self._passthrough.send(request))
            finally:
                self._forget(written)
            yield answer

    async def relay(
        self, request: web.Request, answer: aiohttp.ClientResponse, read: bytes = b""
    ) -> web.StreamResponse:
        """As `Passthrough.relay`; an answer that may be kept is read first. Raises `RegistryUnavailable` where it ends early."""
        asked = request.get(_ASKED)
        if asked is None or not _may_be_kept(answer):
            return await self._passthrough.relay(request, answer, read)
        known = _Known(_head(answer), answer.headers["Docker-Content-Digest"], answer.content_length or 0)
        manifest = b"" if request.method == "HEAD" else await _body(answer)
        if not manifest or digest_of(manifest) == known.digest:
            self._learn(asked, known, manifest)
        response = _Verbatim(request, known, manifest)
        if HEADER in answer.headers:
            response.headers[HEADER] = answer.headers[HEADER]
        return response

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """As `Passthrough.forward`; of many who ask the same at once, one asks the registry, and the others wait for that."""
        question = self._question(request)
        if question is None:
            return await self._forward(request)
        if (answered := self._asking.get(question)) is not None:
            await answered.wait()
            return self.recall(request) or await self._forward(request)
        self._asking[question] = answered = asyncio.Event()
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self.send(request))
                if request.get(_ASKED) is not None and _may_be_kept(answer):
                    return await self.relay(request, answer)
            finally:
                del self._asking[question]
                answered.set()
            return await self.relay(request, answer)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        async with self.send(request) as answer:
            return await self.relay(request, answer)

    def told(self, event: Event) -> None:
        """A sink: when a build has ended, what is known of its repository is over."""
        if isinstance(event, BuildEnded):
            self._forget(event.repository)

    def _question(self, request: web.Request) -> Question | None:
        """The question that a request asks, None where the registry has to answer it in any case."""
        if not self._seconds or request.method not in ("GET", "HEAD"):
            return None
        transport = request.transport
        if transport is None or transport.get_extra_info("peercert"):
            return None
        wire = (request.raw_path, request.raw_headers, request.remote, request.secure)
        try:
            return self._read[wire]
        except KeyError:
            question = self._parsed(request)
            if question is not None and sum(map(len, chain(*request.raw_headers))) <= _LONGEST:
                self._read[wire] = question
            return question

    def _parsed(self, request: web.Request) -> Question | None:
        # As it came over the wire: with a query, a host or an escape in it, it is no manifest's path.
        path = core_request.content(request.raw_path)
        if path is None or path.kind != "manifests":
            return None
        accepted: list[str] = []
        for name, value in request.headers.items():
            lower = name.lower()
            if lower == "accept":
                accepted += value.split(",")
            elif lower not in _IGNORED:
                return None
        return Question(
            path.repository,
            path.reference,
            frozenset(kind.strip() for kind in accepted),
            tuple(self._passthrough.client(request).headers()),
        )

    def _learn(self, asked: _Asked, known: _Known, manifest: bytes) -> None:
        """Keep the manifest, if it is there, and the answer, unless something was written since it was asked for."""
        if manifest and len(manifest) <= self._manifests.maxsize:
            self._manifests[known.digest] = manifest
        if asked.generation == self._generation and len(known.head) <= _LONGEST:
            self._known[asked.question] = known

    def _forget(self, repository: str | None) -> None:
        """End what is known of a repository (of all: `*`; of none: None), and what is being asked about any."""
        if repository is None:
            return
        self._generation += 1
        for question in [*self._known]:
            if repository in ("*", question.repository):
                self._known.pop(question, None)


class _Verbatim(web.StreamResponse):
    """A response that is there as bytes: sent in one write, with nothing of aiohttp's own.

    `headers` has only what is not in those bytes: what others add gets there too.
    """

    def __init__(self, request: web.Request, known: _Known, body: bytes) -> None:
        """The known answer to this request."""
        super().__init__(headers={"Content-Length": str(known.size)})
        self._known = known
        self._version = b"HTTP/1.1" if request.version >= HttpVersion11 else b"HTTP/1.0"
        self._stays = request.keep_alive
        self._sent = body

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
        # What is not the rule of its version has to be said.
        if self._stays == (self._version == b"HTTP/1.0"):
            self.headers["Connection"] = "keep-alive" if self._stays else "close"
        own = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        await self._to.write_eof(
            b"%b%b%b\r\n%b" % (self._version, self._known.head, own.encode("ascii"), self._sent)
        )


def _written(request: web.Request) -> str | None:
    """The repository whose manifests this request may change; `*` where that cannot be told, None for none."""
    if request.method in _SAFE:
        return None
    path = request.rel_url.raw_path
    if is_upload(path):
        return None
    content = core_request.content(path)
    if content is None:
        return "*"
    return content.repository if content.kind == "manifests" else None


def _may_be_kept(answer: aiohttp.ClientResponse) -> bool:
    """Whether this answer would be the same for everybody, and is small enough."""
    if answer.status != 200 or not _PERSONAL.isdisjoint(name.lower() for name in answer.headers):
        return False
    if any(word in answer.headers.get("Cache-Control", "").lower() for word in _UNKEPT):
        return False
    if not {kind.strip().lower() for kind in answer.headers.get("Vary", "accept").split(",")} <= _VARIES:
        return False
    told = answer.headers.get("Docker-Content-Digest", "")
    return told.startswith("sha256:") and 0 <= (answer.content_length or -1) <= _LARGEST


def _head(answer: aiohttp.ClientResponse) -> bytes:
    """Status line and headers as the client gets them, each with the end of its line."""
    lines = [f" {answer.status} {answer.reason}"]
    lines += [
        f"{name}: {value}" for name, value in backward(answer.headers.items()) if name.lower() not in _OWN
    ]
    # As aiohttp read them.
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """Raises `RegistryUnavailable`: nothing of the answer has been sent yet."""
    try:
        return await answer.content.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.warning("the registry broke off path=%s error=%r", answer.url.path, error)
        raise RegistryUnavailable(
            "the registry behind nixfront broke off in the middle of a manifest"
        ) from error
