"""Whether nixfront lives, and whether it can do its work now.

`/healthz` says that the event loop turns, and asks nobody. `/readyz` asks the registry and Nix, at most once in a few
seconds however often it is asked, and is no while we are stopping, so that a balancer sends nobody here any more.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from proxy.errors import NixfrontError

Check = Callable[[], Awaitable[None]]
_KEPT = 3.0  # seconds for which an answer holds
_PATIENCE = 5.0  # seconds for one check


class Health:
    """The checks of one application."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """`checks` by name; each raises a `NixfrontError` that says what is wrong."""
        self._checks = checks
        self._stopping = False
        self._asking: asyncio.Task[dict[str, str]] | None = None
        self._until = 0.0

    def stop(self) -> None:
        """From now on it is not ready."""
        self._stopping = True

    async def problems(self) -> dict[str, str]:
        """What is wrong, by the name of the check; empty when it is ready."""
        if self._stopping:
            return {"shutdown": "nixfront is stopping"}
        if self._asking is None or (self._asking.done() and time.monotonic() > self._until):
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """End what is being asked."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> dict[str, str]:
        names = list(self._checks)
        found = await asyncio.gather(*(self._one(self._checks[name]) for name in names))
        self._until = time.monotonic() + _KEPT
        return {name: problem for name, problem in zip(names, found, strict=True) if problem}

    @staticmethod
    async def _one(check: Check) -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                await check()
        except NixfrontError as error:
            return str(error)
        except TimeoutError:
            return f"no answer within {_PATIENCE:.0f} s"
        return ""
