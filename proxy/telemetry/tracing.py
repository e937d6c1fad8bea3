"""Traces for OpenTelemetry, if `traces.endpoint` is set.

Each client request has a span; so have each build, its stages, and each request to the registry, which gets the trace in
its headers. A client request with a `traceparent` header continues that trace. A thread sends the spans in batches; if the
collector does not answer, only spans are lost. OpenTelemetry is the extra `traces` and is loaded only with an endpoint.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from proxy import __version__
from proxy.core.errors import SettingsInvalid
from proxy.core.events import BuildEnded, BuildStarted, Event, LayersReady, NixBegun, Resolved
from proxy.core.request import CURRENT
from proxy.telemetry.requests import kind_of, path_of


@asynccontextmanager
async def tracing(endpoint: str, sample: float) -> AsyncIterator["Tracing | None"]:
    """The traces of one application; None without an endpoint. The end of the context sends all remaining spans.

    Raises `SettingsInvalid` if the extra is missing.
    """
    if not endpoint:
        yield None
        return
    provider = await asyncio.to_thread(_provider, endpoint, sample)  # it reads files
    try:
        yield Tracing(provider)
    finally:
        await asyncio.to_thread(provider.shutdown)


def _provider(endpoint: str, sample: float) -> Any:
    """The OpenTelemetry provider, which creates spans and sends them."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise SettingsInvalid(
            "traces.endpoint needs OpenTelemetry: pip install 'nixfront[traces]'"
        ) from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": "nixfront", "service.version": __version__}),
        sampler=ParentBasedTraceIdRatio(sample),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    return provider


class Tracing:
    """Creates the spans: as a middleware, as a `Sink`, and as a trace configuration for the client session."""

    def __init__(self, provider: Any) -> None:
        """`provider` is an OpenTelemetry `TracerProvider`."""
        from opentelemetry import propagate, trace

        self._trace, self._propagate = trace, propagate
        self._tracer = provider.get_tracer("nixfront", __version__)
        # By image: the span of the build, the span of its stage, and its content, which events of Nix name.
        self._builds: dict[tuple[str, str], list[Any]] = {}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's response, within a span. Raises what the handler raises."""
        kind = path_of(request).kind
        with self._tracer.start_as_current_span(
            f"{request.method} {kind}",
            context=self._propagate.extract(request.headers),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "http.request.method": request.method,
                "url.path": request.rel_url.raw_path,
                "nixfront.request_id": CURRENT.get(),
            },
        ) as span:
            response = await handler(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
            return response

    def see(self, event: Event) -> None:
        """Begin and end the spans of builds, as children of the request that started the build."""
        match event:
            case BuildStarted(repository, tag):
                span = self._tracer.start_span("build", attributes={"nixfront.image": f"{repository}:{tag}"})
                self._builds[repository, tag] = [span, None, set()]
                self._stage(self._builds[repository, tag], "resolving")
            case Resolved(repository, tag, content):
                if (build := self._builds.get((repository, tag))) is not None:
                    build[2].add(content)
                    self._stage(build, "waiting")
            case NixBegun(content, part):
                for build in self._builds.values():
                    if content in build[2]:
                        self._stage(build, part)
            case LayersReady(repository, tag, 0, _):
                if (build := self._builds.get((repository, tag))) is not None:
                    self._stage(build, "packing")
            case BuildEnded(repository, tag, digest, error, outcome=outcome):
                if (build := self._builds.pop((repository, tag), None)) is not None:
                    self._stage(build, "")
                    build[0].set_attributes({"nixfront.outcome": outcome, "nixfront.digest": digest})
                    if error:
                        build[0].set_status(self._trace.StatusCode.ERROR, error[:500])
                    build[0].end()
            case _:
                pass

    def registry_trace(self) -> aiohttp.TraceConfig:
        """For a client session: a span for each request to the registry, with the trace in its headers."""
        config = aiohttp.TraceConfig()

        async def start(
            _: aiohttp.ClientSession, context: SimpleNamespace, event: aiohttp.TraceRequestStartParams
        ) -> None:
            context.span = self._tracer.start_span(
                f"registry {event.method} {kind_of(context, event.url) or 'other'}",
                kind=self._trace.SpanKind.CLIENT,
                attributes={"http.request.method": event.method, "url.path": event.url.raw_path},
            )
            self._propagate.inject(event.headers, self._trace.set_span_in_context(context.span))

        async def end(
            _: aiohttp.ClientSession, context: SimpleNamespace, event: aiohttp.TraceRequestEndParams
        ) -> None:
            context.span.set_attribute("http.response.status_code", event.response.status)
            context.span.end()

        async def failed(
            _: aiohttp.ClientSession, context: SimpleNamespace, event: aiohttp.TraceRequestExceptionParams
        ) -> None:
            context.span.set_status(self._trace.StatusCode.ERROR, type(event.exception).__name__)
            context.span.end()

        config.on_request_start.append(start)
        config.on_request_end.append(end)
        config.on_request_exception.append(failed)
        return config

    def _stage(self, build: list[Any], name: str) -> None:
        """End the current stage, and begin this one unless its name is empty."""
        if build[1] is not None:
            build[1].end()
        context = self._trace.set_span_in_context(build[0])
        build[1] = self._tracer.start_span(name, context=context) if name else None
