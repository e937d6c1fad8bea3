"""Waiting for what must come: no test depends on how fast this machine is."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

PATIENCE = 120.0  # seconds after which a test fails: much longer than anything takes on a busy machine
_POLL = 0.02  # seconds

#: What a builder's script says to wait for a `Gate`, which the sandbox sees here.
AT_THE_GATE = "until [ -e /gate/open ]; do sleep 0.05; done"


async def until(
    true: Callable[[], object | Awaitable[object]], patience: float = PATIENCE, *, pause: float = _POLL
) -> None:
    """Wait until this function, or what it returns to be awaited, is true; between two tries it pauses for so many seconds.

    Raises `AssertionError` after `patience` seconds.
    """
    try:
        async with asyncio.timeout(patience):
            while True:
                answer = true()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer:
                    return
                await asyncio.sleep(pause)
    except TimeoutError:
        raise AssertionError(f"it did not come within {patience} s") from None


def at_redirect(count: int, call: Callable[[], object]) -> aiohttp.TraceConfig:
    """Calls this when a session that is traced so has been redirected so often."""
    seen = 0

    async def redirected(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            call()

    traced = aiohttp.TraceConfig()
    traced.on_request_redirect.append(redirected)
    return traced


@dataclass(frozen=True, slots=True)
class Gate:
    """What the packages `gated` and `failsGated` wait for in the middle of their builds, and scripts with `AT_THE_GATE`."""

    folder: Path

    def open(self) -> None:
        """Let all builds go on, those that come later too."""
        (self.folder / "open").touch()
