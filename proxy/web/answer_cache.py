"""The registry's answers to anonymous questions about manifests, repeated for a few seconds. A layer around `passthrough`.

Rules of this file: the registry decides who sees what. So an answer to one client is repeated to another one only where
the registry could not tell them apart: no credentials, no certificate, no query, no body, and no header beyond
the ones listed here. A question consists of what the registry gets, and never of what the client sent. Only a 200 is stored,
and only if the client accepts its type, or the image is ours (`replies.negotiation`). A client whose condition names the
answer gets a 304 in its place. Manifests are stored by digest, as long as there is room, because their bytes never
change; which question they answer is stored for `seconds` only.

A write through nixfront, or by nixfront, makes every answer about its repository old: `TagVersions` counts the writes.
So no client gets the state before a push that somebody has seen succeed. A write that reaches the registry on another way
shows late, by `seconds` at most.

A repeated answer is the registry's, byte for byte, and so is its `Date`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain

import aiohttp
from aiohttp import hdrs, web
from cachetools import LRUCache, TTLCache

from proxy.core.model import digest_of
from proxy.core.request import HEADER
from proxy.pipeline.tag_versions import ALL, TagVersions
from proxy.telemetry.requests import path_of
from proxy.web import verbatim
from proxy.web.client import FORWARDING
from proxy.web.replies import conditions
from proxy.web.replies.negotiation import Negotiation
from proxy.web.verbatim import AnswerRecord, VerbatimResponse

_MOST_QUESTIONS = 4096
_LONGEST = 2048  # bytes of the headers of an answer or a request that is stored
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# Request headers that change nothing in the registry's answer about a manifest.
_IGNORED = frozenset({"user-agent", "accept-encoding", "docker-distribution-api-version", HEADER.lower()})
# The registry does not get these from the client: it gets nixfront's own, or none.
_ENDS_HERE = frozenset({"host", "connection"}) | FORWARDING
_NOT_DECISIVE = _IGNORED | _ENDS_HERE | {"accept", conditions.HEADER}
# The options of `Connection` that say nothing about the request itself.
_OPTIONS = frozenset({"close", "keep-alive", ""})


@dataclass(frozen=True, slots=True)
class Question:
    """Everything in a request to the registry on which the registry's answer depends.

    `accepted`: the media ranges of all Accept lines. `client`: what the registry reads about the client, as it may decide by
    addresses.
    """

    repository: str
    reference: str
    accepted: frozenset[str]
    client: tuple[tuple[str, str], ...]

    def accepts(self, content_type: str) -> bool:
        """Whether the client takes this type. Without Accept it takes every type (RFC 9110, section 12.5.1)."""
        media_type = content_type.partition(";")[0].strip().lower()
        ranges = {kind.partition(";")[0].strip().lower() for kind in self.accepted}
        return not ranges or not ranges.isdisjoint({media_type, f"{media_type.partition('/')[0]}/*", "*/*"})


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """A question on its way to the registry, with the version of the repository's tags when it left."""

    question: Question
    version: int


_INQUIRY: web.RequestKey[_Inquiry] = web.RequestKey("inquiry", _Inquiry)


class AnswerCache:
    """A `Negotiation` with a cache; losing it only costs time."""

    def __init__(
        self, negotiation: Negotiation, versions: TagVersions, *, seconds: float, most_bytes: int
    ) -> None:
        """`most_bytes` bounds the manifests; `seconds` is how long an answer holds, and 0 turns the cache off."""
        self._negotiation = negotiation
        self._versions = versions
        self._seconds = seconds
        self._answers: TTLCache[Question, AnswerRecord] = TTLCache(_MOST_QUESTIONS, seconds, time.monotonic)
        self._manifests: LRUCache[str, bytes] = LRUCache(most_bytes, len)
        self._inquiries: dict[Question, asyncio.Event] = {}  # set when there is an answer, whatever it is
        # The question of a request that came in these very bytes: a client sends the same ones again and again.
        self._questions: LRUCache[Hashable, Question] = LRUCache(_MOST_QUESTIONS)

    def recall(self, request: web.Request) -> VerbatimResponse | None:
        """The registry's answer of a moment ago to this question, if it is in the cache."""
        question = self._question(request)
        if question is None:
            return None
        try:  # quicker than `get`, in each of these caches
            answer = self._answers[question]
            manifest = b"" if request.method == "HEAD" else self._manifests[answer.digest]
        except KeyError:
            return None
        if answer.version != self._versions.of(question.repository):
            return None
        if manifest and len(manifest) != answer.size:
            return None
        return VerbatimResponse(request, answer, manifest, question.repository)

    @asynccontextmanager
    async def send(self, request: web.Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """As `Passthrough.send`; a write is counted before the registry gets it, and again when it has answered."""
        async with AsyncExitStack() as stack:
            if (repository := _changes(request)) is not None:
                with self._versions.write(repository):
                    answer = await stack.enter_async_context(self._negotiation.send(request))
            else:
                if (question := self._question(request)) is not None:
                    request[_INQUIRY] = _Inquiry(question, self._versions.of(question.repository))
                answer = await stack.enter_async_context(self._negotiation.send(request))
            yield answer

    async def relay(
        self, request: web.Request, answer: aiohttp.ClientResponse, start: bytes = b""
    ) -> web.StreamResponse:
        """As `Passthrough.relay`; an answer that may be stored is read first.

        Raises `RegistryUnavailable` where such an answer ends early.
        """
        inquiry = request.get(_INQUIRY)
        if inquiry is None or not _is_for_all(request, inquiry.question, answer):
            return await self._negotiation.relay(request, answer, start)
        record = verbatim.record(request, answer, inquiry.version)
        manifest = b"" if request.method == "HEAD" else await verbatim.body(answer)
        if not manifest or digest_of(manifest) == record.digest:
            self._store(inquiry.question, record, manifest)
        response = VerbatimResponse(request, record, manifest, inquiry.question.repository)
        if HEADER in answer.headers:
            response.headers[HEADER] = answer.headers[HEADER]
        return response

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """As `Passthrough.forward`; of many clients with one question, one asks the registry and the others wait for it."""
        question = self._question(request)
        if question is None:
            return await self._forward(request)
        if (answered := self._inquiries.get(question)) is not None:
            await answered.wait()
            return self.recall(request) or await self._forward(request)
        self._inquiries[question] = answered = asyncio.Event()
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self.send(request))
                if request.get(_INQUIRY) is not None and _is_for_all(request, question, answer):
                    return await self.relay(request, answer)
            finally:
                del self._inquiries[question]
                answered.set()
            return await self.relay(request, answer)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        async with self.send(request) as answer:
            return await self.relay(request, answer)

    def _question(self, request: web.Request) -> Question | None:
        """The question that a request asks, None where the registry has to answer it in any case."""
        if not self._seconds or request.method not in ("GET", "HEAD"):
            return None
        transport = request.transport
        if transport is None or transport.get_extra_info("peercert"):
            return None
        wire = (request.raw_path, request.raw_headers, request.remote, request.secure)
        try:
            return self._questions[wire]
        except KeyError:
            question = self._read(request)
            if question is not None and sum(map(len, chain(*request.raw_headers))) <= _LONGEST:
                self._questions[wire] = question
            return question

    def _read(self, request: web.Request) -> Question | None:
        path = path_of(request)
        if path.kind != "manifest" or not (path.is_canonical and path.is_alone) or request.body_exists:
            return None
        if not _OPTIONS.issuperset(
            option.lower() for option in _listed(request.headers.getall(hdrs.CONNECTION, []))
        ):
            return None
        outgoing = self._negotiation.outgoing(request)
        others = {name.lower() for name in (*request.headers, *outgoing)} - _NOT_DECISIVE
        if others:
            return None
        return Question(
            path.repository,
            path.reference,
            frozenset(_listed(outgoing.getall(hdrs.ACCEPT, []))),
            tuple((name, value) for name, value in outgoing.items() if name.lower() in FORWARDING),
        )

    def _store(self, question: Question, answer: AnswerRecord, manifest: bytes) -> None:
        """Store the manifest, if it is there, and the answer, unless a write came between question and answer."""
        if manifest and len(manifest) <= self._manifests.maxsize:
            self._manifests[answer.digest] = manifest
        if answer.version == self._versions.of(question.repository) and len(answer.head) <= _LONGEST:
            self._answers[question] = answer


def _is_for_all(request: web.Request, question: Question, answer: aiohttp.ClientResponse) -> bool:
    """Whether others who ask this question may get this answer, which came for this request."""
    return verbatim.is_public(answer) and (
        bool(request.get(conditions.VARIES)) or question.accepts(answer.headers.get(hdrs.CONTENT_TYPE, ""))
    )


def _listed(lines: Iterable[str]) -> list[str]:
    """The parts of a header that is a list, from all its lines."""
    return [part.strip() for line in lines for part in line.split(",")]


def _changes(request: web.Request) -> str | None:
    """The repository whose manifests this request may change; `ALL` where its path does not tell, None for none."""
    if request.method in _SAFE:
        return None
    path = path_of(request)
    if not path.is_canonical or path.kind not in ("manifest", "blob", "upload"):
        return ALL
    return path.repository if path.kind == "manifest" else None
