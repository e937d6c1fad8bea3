"""The subcommand `serve`."""

import asyncio
import logging
import signal

from proxy.cli.host import allocation, loop_pauses
from proxy.core.errors import NixfrontError
from proxy.registry.client import Registry
from proxy.settings import Settings
from proxy.telemetry import log
from proxy.wiring import server
from proxy.wiring.registry import registry_endpoint

_PATIENCE = 5.0  # seconds in which a registry answers


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
        check = asyncio.create_task(_check_registry(settings))
        await stop.wait()
        check.cancel()
        await asyncio.gather(check, return_exceptions=True)
        logging.getLogger("nixfront").info("stopping")


async def _check_registry(settings: Settings) -> None:
    """Warn where the operator's registry does not answer. nixfront serves all the same: the registry may start later."""
    url = settings.registry.url
    if not url:
        return
    endpoint = await asyncio.to_thread(registry_endpoint, settings, url)
    async with endpoint.opened() as connection:
        try:
            async with asyncio.timeout(_PATIENCE):
                await Registry(connection).ping()
        except TimeoutError:
            reason = f"no answer within {_PATIENCE:.0f} s"
        except NixfrontError as error:
            reason = str(error)
        else:
            return
    logging.getLogger("nixfront").warning(
        "no image can be pulled until registry.url works: %s: %s", url, reason
    )
