"""Whether nixfront lives, and whether it can work now.

`/healthz` answers while the event loop runs, and asks nobody. `/readyz` asks the registry and Nix, once in a few seconds at most.
It says no while nixfront stops, so that a balancer sends no more clients.

`/metrics`, `/healthz` and `/readyz` are for machines that watch nixfront. None of them passes on to the registry.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from proxy.core.errors import NixfrontError
from proxy.telemetry.metrics import CONTENT_TYPE, Metrics
from proxy.web.client import Networks
from proxy.web.sites import Sites

Check = Callable[[], Awaitable[None]]
_VALID = 3.0  # seconds for which an answer holds
_PATIENCE = 5.0  # seconds for one check


class Health:
    """The checks of one application."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """`checks` by name; each raises a `NixfrontError` that says what is wrong."""
        self._checks = checks
        self._stopping = False
        self._checking: asyncio.Task[dict[str, str]] | None = None
        self._until = 0.0

    def stop(self) -> None:
        """Answer from now on that nixfront is not ready."""
        self._stopping = True

    async def problems(self) -> dict[str, str]:
        """What is wrong, by the name of the check; empty when it is ready."""
        if self._stopping:
            return {"shutdown": "nixfront is stopping"}
        if self._checking is None or (self._checking.done() and time.monotonic() > self._until):
            self._checking = asyncio.create_task(self._check_all())
        return await asyncio.shield(self._checking)

    async def close(self) -> None:
        """Cancel the checks that are running."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)

    async def _check_all(self) -> dict[str, str]:
        names = list(self._checks)
        problems = await asyncio.gather(*(self._one(self._checks[name]) for name in names))
        self._until = time.monotonic() + _VALID
        return {name: problem for name, problem in zip(names, problems, strict=True) if problem}

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


PATHS = ("/metrics", "/healthz", "/readyz")


class Watching:
    """Their answers. Health is for everybody and says nothing that is not; counts are for `visitors`."""

    def __init__(self, metrics: Metrics | None, health: Health, visitors: Networks, sites: Sites) -> None:
        """`metrics`: None where the operator wants none."""
        self._sites = sites
        self._metrics = metrics
        self._health = health
        self._visitors = visitors

    def add_to(self, application: web.Application) -> None:
        """Answer these paths."""
        for path, answer in zip(PATHS, (self._counts, self._alive, self._ready), strict=True):
            application.router.add_route("*", path, answer)

    async def _counts(self, request: web.Request) -> web.Response:
        if self._metrics is None:
            return web.Response(status=404, text="status.metrics of this host is off\n")
        if not self._visitors.contain_every_hop(request.remote, request.headers):
            return web.Response(status=403, text="status.networks of this host does not hold your address\n")
        if reason := self._sites.page_refusal(request):
            return web.Response(status=403, text=f"{reason}\n")
        text = await asyncio.to_thread(self._metrics.text)  # it reads /proc
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        """For those who may see the counts, with the reason; for others only which check it is."""
        problems = await self._health.problems()
        if not problems:
            return web.Response(text="ready\n")
        is_visitor = self._visitors.contain_every_hop(request.remote, request.headers)
        full = is_visitor and not self._sites.page_refusal(request)
        lines = [f"{name}: {problem}" if full else name for name, problem in sorted(problems.items())]
        return web.Response(status=503, text="\n".join(lines) + "\n")


async def elsewhere(_: web.Request) -> web.Response:
    """Where clients connect, when `status.addr` is another address: not for the registry either."""
    return web.Response(status=404, text="this answers at status.addr of this host\n")


def keep_off(application: web.Application) -> None:
    """Answer the paths here as not to be had."""
    for path in PATHS:
        application.router.add_route("*", path, elsewhere)
