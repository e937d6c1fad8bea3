"""The wiring: every object is made here, once, from the settings, and closed in the opposite order."""

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO

import aiohttp
from aiohttp import web

from proxy import handlers, local_registry, oci_errors, packing, passthrough, resources
from proxy.errors import SettingsInvalid
from proxy.events import BuildEnded, BuildStarted, Collided, Event, LogLine, Sink
from proxy.ledger import open_ledger
from proxy.nix import Nix
from proxy.package_sets import Choice, PackageSets
from proxy.pipeline import Options, Pipeline
from proxy.publish import Publisher
from proxy.registry import Registry
from proxy.settings import Settings

_log = logging.getLogger("nixfront")
_log_build = logging.getLogger("nixfront.build")
_READ_BUFFER = 1 << 18  # bytes that aiohttp reads ahead from the registry


@asynccontextmanager
async def serve(settings: Settings, sink: Sink | None = None) -> AsyncIterator[str]:
    """The origin at which nixfront answers, for as long as the context lasts; events go to `sink`, or to the log.

    Raises a `NixfrontError`, or `OSError` where the address cannot be had.
    """
    async with AsyncExitStack() as stack:
        pipeline, relay = await _assemble(settings, stack, sink or log_event)
        application = web.Application(middlewares=[oci_errors.middleware])
        application.router.add_route("*", "/{path:.*}", handlers.Handlers(relay, pipeline).everything)
        application.on_response_prepare.append(passthrough.drop_added_headers)
        # Bodies are relayed as they come; a handler ends with its client, a build does not (see `flight`).
        runner = web.AppRunner(
            application, handler_cancellation=True, auto_decompress=False, access_log=None, shutdown_timeout=5
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        host, _, port = settings.http.addr.rpartition(":")
        site = web.TCPSite(runner, host.strip("[]"), int(port), backlog=1024)
        await site.start()
        address = runner.addresses[0]
        yield f"http://{host}:{address[1]}"


async def _assemble(
    settings: Settings, stack: AsyncExitStack, sink: Sink
) -> tuple[Pipeline, passthrough.Passthrough]:
    """The objects of one application, from the registry up to the pipeline."""
    data = settings.data_dir
    for folder in (data, data / "sets"):
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    stack.callback((await asyncio.to_thread(_lock, data)).close)
    url = settings.registry.url or await stack.enter_async_context(local_registry.run(data / "registry"))
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER,
        )
    )
    ledger = await stack.enter_async_context(open_ledger(data / "ledger.sqlite"))
    executor = ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="packing")
    stack.push_async_callback(asyncio.to_thread, executor.shutdown)
    nix = Nix(
        resources.EXPRESSIONS,
        store=settings.nix_store,
        evaluation_deadline=settings.nix.evaluation_deadline,
        build_deadline=settings.nix.build_deadline,
    )
    sets = PackageSets(
        Choice(
            kind=settings.packages.kind,
            url=settings.source_url,
            ref=settings.packages.ref,
            revision=settings.packages.revision,
            path=settings.packages.path,
            date=settings.packages.date,
            archive=settings.packages.archive,
        ),
        nix,
        resources.EXPRESSIONS,
        data / "sets",
        settings.nix.build_deadline,
    )
    stack.push_async_callback(sets.close)
    registry = Registry(session, url)
    publisher = Publisher(
        registry,
        ledger,
        executor,
        partial(packing.store_entries, prefix=nix.prefix),
        compression=settings.layers.compression,
        concurrency=settings.layers.concurrency,
    )
    pipeline = Pipeline(
        sets=sets,
        nix=nix,
        registry=registry,
        publisher=publisher,
        listing=packing.StoreListing(nix.prefix),
        options=Options(
            system=settings.system,
            always=settings.packages.always,
            most_layers=settings.layers.most,
            form=settings.image.format,
            compression=settings.layers.compression,
        ),
        roots=await asyncio.to_thread(_empty_folder, data / "gcroots"),
        failure_seconds=settings.builds.failure_seconds,
        sink=sink,
    )
    stack.push_async_callback(pipeline.close)
    _log.info("registry url=%s", url)
    return pipeline, passthrough.Passthrough(session, url)


def _lock(data: Path) -> IO[bytes]:
    """The lock of a data folder, held while the file is open: two of us would clear each other's roots.

    Raises `SettingsInvalid` if it is taken.
    """
    lock = (data / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise SettingsInvalid(f"data.dir: {data} is in use by another nixfront") from error
    return lock


def _empty_folder(folder: Path) -> Path:
    """The folder, without the garbage-collector roots that a killed predecessor may have left."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def log_event(event: Event) -> None:
    """Write an event of a build into the log: one line each."""
    match event:
        case BuildStarted(repository, tag):
            _log_build.info("start image=%s:%s", repository, tag)
        case LogLine(attributes, line):
            _log_build.debug("log packages=%s | %s", "/".join(attributes), line)
        case Collided(repository, path, winner, loser):
            _log_build.warning(
                "collision image=%s path=/%s kept=%s dropped=%s", repository, path, winner, loser
            )
        case BuildEnded(repository, tag, digest, error):
            if error:
                _log_build.warning("failed image=%s:%s error=%s", repository, tag, error)
            else:
                _log_build.info("done image=%s:%s digest=%s", repository, tag, digest)
