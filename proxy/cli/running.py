"""Runs the coroutine of a subcommand, and ends it soon after Ctrl-C."""

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from proxy.cli.command import INTERRUPTED

_GRACE = 3.0  # seconds

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of the coroutine. Raises `KeyboardInterrupt` after Ctrl-C.

    After Ctrl-C the coroutine has some seconds to clean up. Then the process ends: a thread that waits for the network
    would hold it for half a minute.
    """
    # What a command fails with it says itself. Without a handler, the warnings of our modules would be lines beside that.
    logging.getLogger("proxy").addHandler(logging.NullHandler())
    return asyncio.run(_watched(coroutine))


async def _watched(coroutine: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        end = threading.Timer(_GRACE, os._exit, (INTERRUPTED,))
        end.daemon = True
        end.start()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
