"""What stands behind the HTTP interface of one nixfront: the registry, the state, the packages, and who builds when."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy.builds.board import BuildBoard
from proxy.builds.coordinator import Coordinator
from proxy.builds.late_documents import LateDocuments
from proxy.builds.logs import BuildLogs
from proxy.builds.machines import SharedBuilds
from proxy.builds.moving_tags import MovingTags
from proxy.core import events
from proxy.core.events import Sink
from proxy.image.layer_table import LayerTable
from proxy.pipeline.build import Pipeline
from proxy.pipeline.own_tags import OwnTags
from proxy.registry import embedded
from proxy.registry.client import Registry
from proxy.registry.endpoint import OpenEndpoint, client_session
from proxy.settings import Settings
from proxy.state import State
from proxy.state.open import open_state
from proxy.state.pulls import Pulls
from proxy.telemetry.metrics import Metrics
from proxy.tools.fair_queue import FairQueue
from proxy.trust.signatures import Signer
from proxy.web.access import Access, AccessRules
from proxy.web.answer_cache import AnswerCache
from proxy.web.blobs import Blobs
from proxy.web.client import Networks
from proxy.web.passthrough import Passthrough
from proxy.web.replies.negotiation import Negotiation
from proxy.wiring import files
from proxy.wiring.builder import Packages, build_pipeline, open_attachments, open_packages, read_tables
from proxy.wiring.registry import open_blobs, registry_endpoint
from proxy.wiring.signing import open_signer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What the HTTP interface calls."""

    builds: Coordinator
    board: BuildBoard
    moving: MovingTags
    late_documents: LateDocuments | None
    pulls: Pulls
    answers: AnswerCache
    blobs: Blobs
    access: Access
    passthrough: Passthrough
    connection: OpenEndpoint
    registry: Registry
    packages: Packages
    state: State
    signer: Signer | None
    tables: Mapping[str, LayerTable]
    metrics: Metrics


async def open_service(
    settings: Settings,
    stack: AsyncExitStack,
    metrics: Metrics,
    traces: Sequence[aiohttp.TraceConfig],
    sink: Sink,
) -> Service:
    """A service that stays open as long as the stack. Raises a `NixfrontError`."""
    data = settings.data_dir
    await _lock_data_folder(data, stack)
    machine = await asyncio.to_thread(files.machine, data)
    roots = await asyncio.to_thread(files.empty, data / "gcroots")
    tables = await asyncio.to_thread(read_tables, settings)

    url = settings.registry.url or await stack.enter_async_context(embedded.run(data / "registry"))
    session = await stack.enter_async_context(client_session(*traces))
    endpoint = await asyncio.to_thread(registry_endpoint, settings, url)
    connection = await stack.enter_async_context(endpoint.opened(*traces))
    registry = Registry(connection)
    relay = Passthrough(connection.session, url, Networks(settings.http.trusted_proxies))
    _log.info("registry url=%s", url)

    state = await stack.enter_async_context(open_state(settings.state.url, settings.state_file))
    await state.end_builds(machine, time.time())
    shared = SharedBuilds(state, time.time, report_seconds=settings.state.lease_seconds)
    board = BuildBoard(BuildLogs(data / "logs"), shared, time.time, machine=machine)
    await board.open()
    stack.push_async_callback(board.close)
    sink = events.fan_out(board.see, sink)

    packages = open_packages(settings, stack, session, sink, state)
    metrics.store(lambda: packages.budget.usage.store_bytes, lambda: packages.budget.usage.free_bytes)
    if settings.nix.most_store_bytes or settings.nix.keep_free_bytes:
        stack.push_async_callback(_cancel, asyncio.create_task(packages.budget.watch()))
    signer = await asyncio.to_thread(open_signer, settings)
    tags = OwnTags(registry, state, signer=signer, attaches=settings.trust.attach)
    answers = AnswerCache(
        Negotiation(relay, state),
        tags.versions,
        seconds=settings.answers.seconds,
        most_bytes=settings.answers.most_bytes,
    )
    attachments = await open_attachments(settings, stack, registry, tags, state, data / "attachments")
    pipeline = await build_pipeline(
        settings, stack, packages, registry, tags, state, roots, tables, sink, attachments
    )
    if attachments is not None:
        await attachments.resume()
    builds = _open_coordinator(settings, stack, pipeline, registry, state, metrics, machine)
    moving = MovingTags(
        state,
        tags,
        pipeline,
        builds,
        settings.vocabulary,
        sink,
        time_to_live=settings.packages.time_to_live,
        when=settings.packages.refresh,
    )
    stack.push_async_callback(moving.close)
    late = None
    if attachments is not None:
        patience = settings.state.lease_seconds
        late = LateDocuments(state, registry, builds, settings.vocabulary, patience=patience)
        stack.push_async_callback(late.close)
    pulls = Pulls(state)
    stack.push_async_callback(pulls.close)
    return Service(
        builds=builds,
        board=board,
        moving=moving,
        late_documents=late,
        pulls=pulls,
        answers=answers,
        blobs=open_blobs(settings, stack, relay, url, metrics),
        access=Access(_access_rules(settings), relay),
        passthrough=relay,
        connection=connection,
        registry=registry,
        packages=packages,
        state=state,
        signer=signer,
        tables=tables,
        metrics=metrics,
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _lock_data_folder(data: Path, stack: AsyncExitStack) -> None:
    """Hold the lock of the data folder as long as the stack; make the folder first. Raises `SettingsInvalid`."""
    for folder in (data, data / "sets"):
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    stack.callback((await asyncio.to_thread(files.lock, data)).close)


def _open_coordinator(
    settings: Settings,
    stack: AsyncExitStack,
    pipeline: Pipeline,
    registry: Registry,
    state: State,
    metrics: Metrics,
    machine: str,
) -> Coordinator:
    section = settings.builds
    queue = FairQueue(
        section.at_once, share=section.share, most_waiting=section.queue, waiting_share=section.queue_share
    )
    metrics.queue(lambda: queue.waiting)
    coordinator = Coordinator(
        pipeline,
        registry,
        state,
        queue,
        machine=machine,
        lease_seconds=settings.state.lease_seconds,
        failure_seconds=section.failure_seconds,
    )
    stack.push_async_callback(coordinator.close)
    return coordinator


def _access_rules(settings: Settings) -> AccessRules:
    section = settings.access
    return AccessRules(
        repositories=section.repositories,
        users=section.users,
        networks=Networks(section.networks),
        builds_per_minute=section.builds_per_minute,
        push=settings.push,
        is_embedded=not settings.registry.url,
    )
