"""A relay before a real registry that breaks things on purpose, by rule, and counts what passes.

    async with shim(registry.url, Rule("PATCH", r"/blobs/uploads/", Status(500), nth=3)) as relay:
        ...  # point nixfront at relay.url
        assert relay.counts["PUT", "manifest"] == 1

It keeps the client's Host header, so the addresses that the registry hands out lead back through the relay.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

_CHUNK = 1 << 16
# RFC 9110, section 7.6.1: these belong to one connection and are not passed on.
_HOP_BY_HOP = (
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
_KINDS = (
    ("upload", re.compile(r"/v2/.+/blobs/uploads/")),
    ("blob", re.compile(r"/v2/.+/blobs/[^/]+")),
    ("manifest", re.compile(r"/v2/.+/manifests/[^/]+")),
    ("tags", re.compile(r"/v2/.+/tags/list")),
    ("catalog", re.compile(r"/v2/_catalog")),
    ("ping", re.compile(r"/v2/")),
)


@dataclass(frozen=True, slots=True)
class Status:
    """Answer this status with a registry's kind of error body; the registry never sees the request."""

    status: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection after `after` bytes of the request's body, or of the answer's if it has none."""

    after: int


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait this many seconds, then go on as usual."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WrongDigest:
    """Relay the answer, but with another `Docker-Content-Digest` than the registry said."""

    digest: str = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Wait until `go` is set, then go on as usual."""

    go: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True, eq=False)
class AnswerHeld:
    """Let the registry answer at once, and the client have the answer once `go` is set."""

    go: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True, eq=False)
class Says:
    """Answer 200 with this body and these headers; the registry never sees the request."""

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Fault = Status | Cut | Delay | WrongDigest | Held | AnswerHeld | Says


@dataclass(frozen=True, slots=True)
class Rule:
    """`fault` befalls the requests `nth` to `nth + times - 1` (from 1) whose method is this and whose path holds a
    match of `path`.
    """

    method: str
    path: str
    fault: Fault
    nth: int = 1
    times: int = 1


def kind_of(path: str) -> str:
    """What a path of the registry interface is about: manifest, blob, upload, tags, catalog, ping or other."""
    return next((kind for kind, pattern in _KINDS if pattern.match(path)), "other")


class Shim:
    """A running relay: its `url`, `counts` of the requests by (method, kind), the `most` of them at once, and how many
    are `held` now. `requests` are all of them as (method, path), in the order in which they came.
    """

    def __init__(self, upstream: str, rules: Sequence[Rule]) -> None:
        self.url = ""
        self.held = 0
        self.requests: list[tuple[str, str]] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.most: Counter[tuple[str, str]] = Counter()
        self._under_way: Counter[tuple[str, str]] = Counter()
        self._upstream = upstream
        self._rules = rules
        self._matched: Counter[Rule] = Counter()

    def break_by(self, *rules: Rule) -> None:
        """From now on these are the rules."""
        self._rules = rules

    def heal(self) -> None:
        """From now on nothing is broken."""
        self._rules = ()

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Count this request, and say what shall befall it."""
        self.requests.append((method, path))
        self.counts[method, kind_of(path)] += 1
        faults = []
        for rule in self._rules:
            if rule.method == method and re.search(rule.path, path):
                self._matched[rule] += 1
                if 0 <= self._matched[rule] - rule.nth < rule.times:
                    faults.append(rule.fault)
        return faults[0] if faults else None

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """The answer of the registry, or what a rule made of it."""
        kind = request.method, kind_of(request.rel_url.raw_path)
        self._under_way[kind] += 1
        self.most[kind] = max(self.most[kind], self._under_way[kind])
        try:
            return await self._relayed(request)
        finally:
            self._under_way[kind] -= 1

    async def _relayed(self, request: web.Request) -> web.StreamResponse:
        fault = self.fault_for(request.method, request.rel_url.raw_path)
        match fault:
            case Status(status):
                error = {"code": "UNKNOWN", "message": "broken on purpose"}
                return web.json_response({"errors": [error]}, status=status)
            case Says(body, headers):
                return web.Response(body=body, headers=headers)
            case Cut(after) if request.can_read_body:
                await _read(request.content, after)
                return _break(request)
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Held(go):
                await self._hold(go)
            case Cut() | WrongDigest() | AnswerHeld() | None:
                pass  # these befall the answer
        session = request.app[_SESSION]
        try:
            async with session.request(
                request.method,
                URL(self._upstream + request.raw_path, encoded=True),
                headers=_passed_on(request.headers),
                data=request.content if request.can_read_body else None,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as answer:
                if isinstance(fault, AnswerHeld):
                    await self._hold(fault.go)
                return await _answer(request, answer, fault)
        except aiohttp.ClientConnectionError:
            return _break(request)

    async def _hold(self, go: asyncio.Event) -> None:
        self.held += 1
        try:
            await go.wait()
        finally:
            self.held -= 1


_SESSION = web.AppKey("session", aiohttp.ClientSession)


@contextlib.asynccontextmanager
async def shim(upstream: str, *rules: Rule) -> AsyncIterator[Shim]:
    """A relay on a free port of 127.0.0.1 before the registry at `upstream`."""
    relay = Shim(upstream.rstrip("/"), rules)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay.relay)
    async with aiohttp.ClientSession(
        auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        app[_SESSION] = session
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            relay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield relay
        finally:
            await runner.cleanup()


async def _answer(
    request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None
) -> web.StreamResponse:
    headers = _passed_on(answer.headers)
    if isinstance(fault, WrongDigest):
        headers["Docker-Content-Digest"] = fault.digest
    relayed = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    await relayed.prepare(request)
    left = fault.after if isinstance(fault, Cut) else None
    async for chunk in answer.content.iter_chunked(_CHUNK):
        await relayed.write(chunk if left is None else chunk[:left])
        if left is not None and (left := left - len(chunk)) <= 0:
            return _break(request, relayed)
    await relayed.write_eof()
    return relayed


async def _read(stream: aiohttp.StreamReader, size: int) -> None:
    while size > 0 and (chunk := await stream.read(min(size, _CHUNK))):
        size -= len(chunk)


def _break(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Close the connection with no further word: the client sees it go in mid-body, or without any answer."""
    if request.transport is not None:
        request.transport.close() if response is not None else request.transport.abort()
    return response or web.Response(status=500)


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept
