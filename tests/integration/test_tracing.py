"""Traces reach a collector: a request, the build that it began with its stages, and the registry, all of one trace."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.front import Front
from tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
TRACE = "0af7651916cd43dd8448eb211c80319c"


@asynccontextmanager
async def collector(spans: list[Span]) -> AsyncIterator[str]:
    """The address of a collector that keeps what it gets."""

    async def take(request: web.Request) -> web.Response:
        got = ExportTraceServiceRequest.FromString(await request.read())
        spans.extend(span for r in got.resource_spans for scope in r.scope_spans for span in scope.spans)
        return web.Response()

    application = web.Application()
    application.router.add_post("/v1/traces", take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    await runner.cleanup()


async def test_a_pull_is_one_trace(start: Start, registry: Server) -> None:
    spans: list[Span] = []
    came_with = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    async with collector(spans) as endpoint, start(registry.url, traces={"endpoint": endpoint}) as front:
        await front.get("/v2/hello/manifests/latest", headers=came_with)
        await front.get("/v2/broken/manifests/latest")

    ours = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    assert {"GET manifest", "build", "evaluating", "building", "packing", "registry PUT manifest"} <= set(
        ours
    )
    assert ours["GET manifest"].parent_span_id.hex() == "b7ad6b7169203331"
    assert ours["build"].parent_span_id == ours["GET manifest"].span_id
    assert ours["building"].parent_span_id == ours["build"].span_id
    failed = [span for span in spans if span.name == "build" and span.status.message]
    assert [span.status.message.split(":")[0] for span in failed] == ["building broken failed"]
    assert failed[0].trace_id.hex() != TRACE


async def test_a_collector_that_is_away_is_not_noticed(start: Start, registry: Server) -> None:
    async with start(registry.url, traces={"endpoint": "http://127.0.0.1:1/v1/traces"}) as front:
        image = await front.pull("hello")

    assert image.digest
