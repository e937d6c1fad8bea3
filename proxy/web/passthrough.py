"""A client's request to the registry and the registry's answer to the client, streamed both ways.

nixfront decompresses, follows and stores nothing here; backpressure is the sockets' own. Status, reason phrase and headers
stay as they are, except for two: hop-by-hop headers, and a `Location` that names the registry, which becomes a relative one. A
client that waits for a 100 before it sends a body gets it at once: a stock registry may keep it waiting for ever.
"""

import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit, urlunsplit

import aiohttp
from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict
from yarl import URL

from proxy.core.errors import BodyInvalid, RegistryUnavailable
from proxy.core.request import CURRENT, HEADER
from proxy.registry.no_answer import why, why_for_clients
from proxy.telemetry.requests import path_of
from proxy.web import client as web_client
from proxy.web.client import FORWARDING, Client, Networks
from proxy.web.replies import conditions

Pairs = Iterable[tuple[str, str]]

# RFC 9110, section 7.6.1, and the ones it names as historically sent hop by hop.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# aiohttp's client writes the registry's own `Host`.
_CLIENT_ONLY = frozenset({"host"}) | FORWARDING


def forward(pairs: Pairs) -> list[tuple[str, str]]:
    """The headers of a client's request that the registry gets, all lines of each (docker sends many `Accept`).

    The options of `Connection` that HTTP defines are `close`, `keep-alive` and `upgrade`. We ignore any other. So a client
    cannot take a header such as `Accept` or `Authorization` out of its own request on the way to the registry.
    """
    dropped = _HOP_BY_HOP | _CLIENT_ONLY
    return [pair for pair in pairs if pair[0].lower() not in dropped and not waits([pair])]


def waits(pairs: Pairs) -> bool:
    """Whether the client waits for a 100 before it sends its body."""
    return any(name.lower() == "expect" and value.lower() == "100-continue" for name, value in pairs)


def backward(pairs: Pairs) -> list[tuple[str, str]]:
    """The headers of the registry's response that the client gets.

    What the registry's `Connection` names stays here (RFC 9110, section 7.6.1).
    """
    remaining = list(pairs)
    options = [value.lower() for name, value in remaining if name.lower() == "connection"]
    dropped = _HOP_BY_HOP.union(option.strip() for value in options for option in value.split(","))
    return [(name, value) for name, value in remaining if name.lower() not in dropped]


def local_location(location: str, registry: str) -> str:
    """A `Location` of the registry as the client must see it, so that an upload comes back through us.

    One on the registry (an origin, `http://host:port`) becomes relative, which is right whatever name and scheme
    the client has for us. Relative ones, and those of other hosts, stay as they are.
    """
    try:
        parts = urlsplit(location)
        if not parts.netloc or _authority(parts) != _authority(urlsplit(registry)):
            return location
    except ValueError:  # no URL: the client gets it unchanged
        return location
    return urlunsplit(("", "", parts.path or "/", parts.query, parts.fragment))


def _authority(parts: SplitResult) -> tuple[str | None, int | None]:
    """Host and port, the scheme's own port where there is none. Raises `ValueError`."""
    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


_log = logging.getLogger(__name__)
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10)
# What aiohttp would add by itself to a request; a client that sent none of them shall send none through us.
_NOT_ADDED = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)
#: The names of the headers that the registry sent, lowercase.
_RELAYED: web.ResponseKey[frozenset[str]] = web.ResponseKey("relayed", frozenset)
_ADDED = (hdrs.SERVER, hdrs.CONTENT_TYPE, hdrs.DATE)  # by aiohttp, where they are missing


class Passthrough:
    """Relays to the registry at `registry`, an origin (`http://127.0.0.1:5000`)."""

    def __init__(self, session: aiohttp.ClientSession, registry: str, trusted: Networks) -> None:
        """`session` must not decompress: its bodies are relayed byte for byte. `trusted`: of web servers in front."""
        self._session = session
        self._registry = registry.rstrip("/")
        self._trusted = trusted

    def client(self, request: web.Request) -> Client:
        """Who sent this request."""
        return web_client.client(
            request.headers.items(),
            request.remote or "",
            "https" if request.secure else "http",
            self._trusted,
            "" if request.raw_path.startswith("/") else urlsplit(request.raw_path).netloc.rpartition("@")[2],
        )

    def outgoing(self, request: web.Request) -> CIMultiDict[str]:
        """The headers that the registry gets, but for its own name. What decides its answer is here and nowhere else."""
        remaining = forward(request.headers.items())
        if hdrs.IF_NONE_MATCH in request.headers and conditions.is_decided_here(request):
            remaining = [pair for pair in remaining if pair[0].lower() != conditions.HEADER]
        return self._registry_headers(request, remaining)

    @asynccontextmanager
    async def send(
        self, request: web.Request, method: str = "", accept: str = "", path: str = ""
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The registry's answer to the client's own request, headers read, body not yet.

        `method`, `accept`, `path`: what to ask with and for, if not as the client did.

        Raises `RegistryUnavailable` as long as nothing was answered, and `BodyInvalid` for the client's body.
        """
        body = request.content.iter_any() if request.body_exists else None
        headers = self.outgoing(request)
        if accept:
            headers[hdrs.ACCEPT] = accept
        response = await self._ask(request, headers, body, method, path)
        try:
            yield response
        finally:
            response.release()

    async def refuses_anonymous(self, request: web.Request) -> bool:
        """Whether the registry refuses this request, a GET or HEAD, where it says nothing of a user.

        Raises `RegistryUnavailable`.
        """
        remaining = forward(request.headers.items())
        anonymous = [(name, value) for name, value in remaining if name.lower() != "authorization"]
        response = await self._ask(request, self._registry_headers(request, anonymous), None)
        response.release()
        return response.status in (401, 403)

    async def asks_for_login(self, request: web.Request) -> bool:
        """Whether the registry refuses this client as long as it does not log in. Raises `RegistryUnavailable`."""
        response = await self._ask(request, self._registry_headers(request, ()), None, hdrs.METH_GET, "/v2/")
        response.release()
        return response.status in (401, 403)

    def _registry_headers(self, request: web.Request, remaining: Pairs) -> CIMultiDict[str]:
        headers = CIMultiDict([*remaining, *self.client(request).headers()])
        if identity := CURRENT.get():
            headers[HEADER] = identity
        return headers

    async def _ask(
        self,
        request: web.Request,
        headers: CIMultiDict[str],
        body: AsyncIterator[bytes] | None,
        method: str = "",
        path: str = "",
    ) -> aiohttp.ClientResponse:
        try:
            answer = await self._session.request(
                method or request.method,
                URL(self._registry + (path or target(request)), encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=_NOT_ADDED,
                timeout=_TIMEOUT,
                trace_request_ctx=path_of(request),
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            if body is not None and (reason := request.content.exception()) is not None:
                raise BodyInvalid(f"the body of this request has no end: {reason}") from error
            _log.warning("the registry does not answer path=%s error=%s", request.path, why(error))
            words = why_for_clients(error)
            raise RegistryUnavailable(f"the registry behind nixfront does not answer ({words})") from error
        if answer.status < 200:  # another protocol, which no request of ours asks for
            answer.close()
            _log.warning("the registry answers %d path=%s", answer.status, request.path)
            raise RegistryUnavailable(f"the registry behind nixfront answered {answer.status}")
        return answer

    async def relay(
        self, request: web.Request, answer: aiohttp.ClientResponse, start: bytes = b""
    ) -> web.StreamResponse:
        """Send the answer on to the client; `start` is the part of its body that was read before.

        A body that breaks off breaks the client's connection too. Raises `ConnectionResetError` for that, and where the client
        is gone.
        """
        pairs = conditions.headers_for(request, answer.headers)
        if conditions.is_unchanged(request, answer.status, answer.headers):
            response = self.response(304, None, conditions.without_body(pairs))
            await response.prepare(request)
            await response.write_eof()
            return response
        response = self.response(answer.status, answer.reason, pairs)
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD and answer.status not in (204, 304):
            try:
                await response.write(start)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientConnectionResetError:
                raise  # the client is gone: the registry's end is another error
            except aiohttp.ClientError as error:
                broken_off(request, response, error)
        await response.write_eof()
        return response

    def response(
        self, status: int, reason: str | None, pairs: Sequence[tuple[str, str]]
    ) -> web.StreamResponse:
        """The head of an answer of the registry, as the client gets it."""
        response = web.StreamResponse(status=status, reason=reason)
        response.headers.extend(backward(pairs))
        if hdrs.LOCATION in response.headers:
            response.headers[hdrs.LOCATION] = local_location(response.headers[hdrs.LOCATION], self._registry)
        response[_RELAYED] = frozenset(name.lower() for name, _ in pairs)
        return response

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Both of the above: the plain case."""
        async with self.send(request) as answer:
            return await self.relay(request, answer)


def target(request: web.Request) -> str:
    """Path and query as they came, alone: a request line may hold a whole URL (RFC 9112, section 3.2.2)."""
    path = request.rel_url.raw_path_qs
    fragment = request.rel_url.raw_fragment
    # No request has a fragment: for a server that is a sign like any other.
    return f"{path}%23{fragment}" if fragment else path


async def expect(request: web.Request) -> None:
    """An `expect_handler`: a 100 for who waits for one; any other expectation is for the registry to judge."""
    if waits(request.headers.items()) and request.version >= HttpVersion11 and request.body_exists:
        with contextlib.suppress(ConnectionError):  # the client is gone, and its request ends as any other's
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer, nothing is written yet


def broken_off(request: web.Request, response: web.StreamResponse, error: Exception) -> NoReturn:
    """The registry ended in the middle of a body of which the client has a part: break its connection too."""
    _log.warning("the registry broke off path=%s error=%s", request.path, error)
    _break(request, response)
    raise ConnectionResetError("the registry broke off in the middle of a body") from error


def _break(request: web.Request, response: web.StreamResponse) -> None:
    """End the client's connection so that it is seen to be broken, after all that was sent."""
    transport = request.transport
    if transport is None:
        return
    if hdrs.TRANSFER_ENCODING not in response.headers and response.content_length is None:
        # The end of the connection would be the end of the body, and all well: it has to be reset.
        if (raw := transport.get_extra_info("socket")) is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


async def drop_added_headers(_: web.Request, response: web.StreamResponse) -> None:
    """A signal handler for `on_response_prepare`: what aiohttp added to a relayed answer goes again.

    Of our own answers goes the name of the program: it says more than anybody needs to know.
    """
    sent = response.get(_RELAYED)
    if sent is None:
        response.headers.popall(hdrs.SERVER, None)
        return
    for name in _ADDED:
        if name.lower() not in sent:
            response.headers.popall(name, None)
