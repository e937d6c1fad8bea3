"""Around everything that answers a client: the request's id, one line of the log, the counts.

Rules of this file: it changes nothing but the one header that it adds, and costs microseconds, for answers from memory
cost little more. A registry's own `X-Request-Id` stays as it is, and the log has it beside nixfront's.
"""

import asyncio
import time
from types import SimpleNamespace

import aiohttp
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from proxy.core.request import CURRENT, HEADER, Kind, RegistryPath, choose, parse
from proxy.telemetry.metrics import Metrics

_GONE = 499  # what nginx calls a client that did not wait for its answer; nobody sees it but the log and the counts
#: Kept on the request by `path_of`.
PATH: web.RequestKey[RegistryPath] = web.RequestKey("path", RegistryPath)


def path_of(request: web.Request) -> RegistryPath:
    """What the request is about: parsed once, and kept on it."""
    path = request.get(PATH)
    if path is None:
        url = request.rel_url
        path = request[PATH] = parse(url.raw_path, url.raw_query_string, request.raw_path)
    return path


class Observer:
    """A middleware, the outermost one, and its signal handler."""

    def __init__(self, metrics: Metrics, *, log_requests: bool) -> None:
        """`log_requests`: whether there is a line for each."""
        self._metrics = metrics
        # Bound here, once, to the configuration of this moment.
        self._log = structlog.get_logger("nixfront.request").bind() if log_requests else None

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or what it raises."""
        started = time.perf_counter()
        token = CURRENT.set(choose(request.headers.get(HEADER)))
        response: web.StreamResponse | None = None
        status = 500
        try:
            response = await handler(request)
        except web.HTTPException as answer:
            status = answer.status
            raise
        except asyncio.CancelledError:
            status = _GONE
            raise
        except ConnectionError:  # there is nobody to answer; the server would log it with a trace
            status = _GONE
            return web.Response(status=500)
        else:
            status = response.status
            if not response.prepared:  # its signal comes when we are through
                await name_request(request, response)
            return response
        finally:
            self._count(request, response, status, time.perf_counter() - started)
            CURRENT.reset(token)

    def count_recalled(self, request: web.Request, response: web.StreamResponse, started: float) -> None:
        """The same for a manifest that a cache answered before the middleware ran; `started`: by `time.perf_counter`."""
        identity = choose(request.headers.get(HEADER))
        response.headers[HEADER] = identity
        self._metrics.remembered()
        seconds, size = time.perf_counter() - started, response.content_length or 0
        self._metrics.answered("manifest", request.method, response.status, seconds, size, 0)
        if self._log is not None:
            self._log.info(
                "request",
                method=request.method,
                path=request.raw_path,
                status=response.status,
                ms=round(seconds * 1000, 1),
                bytes=size,
                remote=request.remote,
                request_id=identity,
            )

    def _count(
        self, request: web.Request, response: web.StreamResponse | None, status: int, seconds: float
    ) -> None:
        path = path_of(request)
        sent = request.writer.output_size
        if not sent and response is not None:  # as it is small, it goes when we are through
            sent = response.content_length or 0
        received = request.content.total_bytes if request.body_exists else 0
        self._metrics.answered(path.kind, request.method, status, seconds, sent, received)
        if self._log is not None:
            identity = CURRENT.get()
            foreign = response.headers.get(HEADER) if response is not None else None
            more = {"registry_id": foreign} if foreign and foreign != identity else {}
            self._log.info(
                "request",
                method=request.method,
                path=path.path,
                status=status,
                ms=round(seconds * 1000, 1),
                bytes=sent,
                remote=request.remote,
                **more,
            )


async def name_request(_: web.Request, response: web.StreamResponse) -> None:
    """A signal handler for `on_response_prepare`: the answer says which request it is for."""
    identity = CURRENT.get()
    if identity and HEADER not in response.headers:
        response.headers[HEADER] = identity


def registry_trace(metrics: Metrics) -> aiohttp.TraceConfig:
    """For a client session: how long the registry takes to answer, by kind of path."""
    config = aiohttp.TraceConfig()

    async def start(
        _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestStartParams
    ) -> None:
        context.started = time.perf_counter()

    async def end(
        _: aiohttp.ClientSession, context: SimpleNamespace, request: aiohttp.TraceRequestEndParams
    ) -> None:
        if (kind := kind_of(context, request.url)) is not None:
            metrics.registry_answered(kind, request.method, time.perf_counter() - context.started)

    async def failed(
        _: aiohttp.ClientSession, context: SimpleNamespace, request: aiohttp.TraceRequestExceptionParams
    ) -> None:
        if (kind := kind_of(context, request.url)) is not None:
            metrics.registry_failed(kind)

    config.on_request_start.append(start)
    config.on_request_end.append(end)
    config.on_request_exception.append(failed)
    return config


def kind_of(context: SimpleNamespace, url: URL) -> Kind | None:
    """The kind of path at this URL of a registry; None for another server, such as one for tokens.

    A caller that has a `RegistryPath` passes it to the session as `trace_request_ctx`.
    """
    if not url.raw_path.startswith("/v2/"):
        return None
    path = context.trace_request_ctx
    return path.kind if isinstance(path, RegistryPath) else parse(url.raw_path).kind
