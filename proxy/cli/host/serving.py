"""The subcommand `serve`."""

import asyncio
import logging
import signal

from proxy.cli.host import allocation, loop_pauses
from proxy.settings import Settings
from proxy.telemetry import log
from proxy.wiring import server


def serve(settings: Settings, *, as_json: bool) -> int:
    """Answer pulls until SIGTERM or SIGINT."""
    allocation.bound()
    log.configure(settings.log.level, "json" if as_json else settings.log.format)
    asyncio.run(_serve_until_signal(settings))
    return 0


async def _serve_until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    async with server.serve(settings) as origin:
        loop_pauses.shorten()
        logging.getLogger("nixfront").info("listening url=%s packages=%s", origin, settings.packages.kind)
        await stop.wait()
        logging.getLogger("nixfront").info("stopping")
