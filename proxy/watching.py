"""The addresses for machines that watch us: `/metrics`, `/healthz`, `/readyz`. None of them is ever passed on."""

import asyncio

from aiohttp import web

from proxy.health import Health
from proxy.metrics import CONTENT_TYPE, Metrics
from proxy.visitors import Visitors

PATHS = ("/metrics", "/healthz", "/readyz")


class Watching:
    """Their answers. Health is for everybody and says nothing that is not; counts are for `visitors`."""

    def __init__(self, metrics: Metrics | None, health: Health, visitors: Visitors) -> None:
        """`metrics`: None where the operator wants none."""
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
        if not self._visitors.may(request.remote, request.headers):
            return web.Response(status=403, text="status.networks of this host does not hold your address\n")
        text = await asyncio.to_thread(self._metrics.text)  # it reads /proc
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        """For those who may see the counts, with the reason; for others only which check it is."""
        problems = await self._health.problems()
        if not problems:
            return web.Response(text="ready\n")
        full = self._visitors.may(request.remote, request.headers)
        lines = [f"{name}: {problem}" if full else name for name, problem in sorted(problems.items())]
        return web.Response(status=503, text="\n".join(lines) + "\n")


async def elsewhere(_: web.Request) -> web.Response:
    """Where clients connect, when `status.addr` is another address: not for the registry either."""
    return web.Response(status=404, text="this answers at status.addr of this host\n")


def keep_off(application: web.Application) -> None:
    """Answer the paths here as not to be had."""
    for path in PATHS:
        application.router.add_route("*", path, elsewhere)
