"""The pages of builds: all of them with filters, one of them with its log."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from proxy.builds.build import RUNNING, STATES, Build
from proxy.core.events import NOT_FOUND
from proxy.web.page import templating
from proxy.web.page.templating import Pages
from proxy.web.page.visitor import Visitor

_RECENT = 12
_OF_A_PAGE = 25
_MOST_LINES = 2000  # of a log, on the page of its build
_LONGEST_WORD = 100  # characters of what a person types


async def recent(request: web.Request, visitor: Visitor) -> dict[str, Any]:
    """What `parts/builds.html` shows on the overview."""
    builds = await visitor.builds()
    ended = [build for build in builds.ended if build.state != NOT_FOUND]
    return {
        "host": request.host,
        "running": builds.running,
        "ended": ended[:_RECENT],
        "is_here": visitor.is_here,
        "reads_logs": visitor.reads_logs,
    }


async def all_builds(request: web.Request, visitor: Visitor) -> web.Response:
    """The builds of one state, or of a name that holds a text, page by page."""
    state = request.query.get("state", "")
    word = request.query.get("q", "").strip().lower()[:_LONGEST_WORD]
    builds = await visitor.builds()
    named = [build for build in (*builds.running, *builds.ended) if word in build.image]
    counts = {each: sum(build.state == each for build in named) for each in STATES}
    chosen = _of_state(named, state)
    pages = Pages(request, len(chosen), _OF_A_PAGE)
    shown = pages.part(chosen)
    return templating.page(
        request,
        "builds.html",
        {
            "running": [build for build in shown if build.state == RUNNING],
            "ended": [build for build in shown if build.state != RUNNING],
            "is_here": visitor.is_here,
            "reads_logs": visitor.reads_logs,
            "counts": counts,
            "state": state,
            "word": word,
            "pages": pages,
        },
    )


def _of_state(builds: Sequence[Build], state: str) -> list[Build]:
    """The builds of this state; without a state all but mistakes."""
    if state:
        return [build for build in builds if build.state == state]
    return [build for build in builds if build.state != NOT_FOUND]


async def one_build(
    request: web.Request, visitor: Visitor, build: Build, extra: dict[str, Any]
) -> web.Response:
    """A build with its log; `extra` are further values of the template."""
    lines = (await visitor.log(build)).splitlines()
    context = {
        "build": build,
        "logs": visitor.reads_logs,
        "here": visitor.is_here(build),
        "lines": lines[-_MOST_LINES:],
        "earlier": max(0, len(lines) - _MOST_LINES),
        "seen": build.lines,
    }
    return templating.page(request, "build.html", {**context, **extra})


async def log(request: web.Request, visitor: Visitor) -> web.Response:
    """The whole log as text."""
    build = await visitor.build(request.match_info["id"])
    if build is None or not visitor.reads_logs:
        text = "no such log, or page.log_networks does not hold your address\n"
        return web.Response(status=404 if build is None else 403, text=text)
    if not visitor.is_here(build):
        return web.Response(status=404, text=f"the log is on {build.host}, which built this image\n")
    return web.Response(text=await visitor.log(build) or "the log is empty\n")
