"""The page at `/`, for people: what this host is, a composer, builds, images. Its markup is in `templates`.

Viewing the page never starts a build. Only the composer evaluates anything, within its own bounds. The composer's button
pulls from `/v2/` in the browser, so the same rules decide who may build. Templates escape every value, and the
content security policy forbids what comes from elsewhere. Only the live parts need JavaScript.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy import __version__
from proxy.nix.budget import StoreBudget
from proxy.web.client import NO_NETWORKS, Networks
from proxy.web.page import templating, views
from proxy.web.page.composer import Composer
from proxy.web.page.live import Changes, Live
from proxy.web.page.templating import StaticFile
from proxy.web.page.visitor import Visitor, Visitors

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_RECENT = 12
_MOST_LINES = 2000  # of a log, on the page of its build

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="the registry of this host", charset="UTF-8"'}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[web.Request, Visitor], Awaitable[web.StreamResponse]]


class Page:
    """Its routes."""

    def __init__(
        self,
        board: Changes,
        visitors: Visitors,
        composer: Composer,
        *,
        packages: str,
        trusted_proxies: Networks = NO_NETWORKS,
        budget: StoreBudget,
    ) -> None:
        """`packages` names the default package set; `trusted_proxies` may say who their client is."""
        self._visitors = visitors
        self._composer = composer
        self._packages = packages
        self._live = Live(board, _HEADERS, trusted_proxies)
        self._budget = budget
        self._files: Mapping[str, StaticFile] = {}

    async def add_to(self, application: web.Application) -> None:
        """Answer these paths. Reads templates and files once."""
        self._files = await templating.set_up(application)
        for path, answer in (
            ("/", self._overview),
            ("/events", self._builds_stream),
            ("/builds/{id}", self._build),
            ("/builds/{id}/log", self._log),
            ("/builds/{id}/events", self._build_stream),
            ("/images", self._all_images),
            ("/images/{digest}/{name:.+}", self._image),
            ("/compose", self._composer.compose),
            ("/suggest", self._composer.suggest),
            ("/login", self._login),
            ("/status.json", self._status),
            ("/static/{file}", self._static),
        ):
            application.router.add_get(path, self._guarded(answer))
        application.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        self._live.close()

    def _guarded(self, answer: Answer) -> Handler:
        """The answer with the page's headers, for its visitors alone."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            visitor = self._visitors.of(request)
            if visitor is None:
                text = "page.networks of this host does not hold your address\n"
                return web.Response(status=403, text=text, headers=_HEADERS)
            request[templating.VISITOR] = visitor
            response = await answer(request, visitor)
            if not response.prepared:
                for name, value in _HEADERS.items():
                    response.headers.setdefault(name, value)
            return response

        return guarded

    async def _overview(self, request: web.Request, visitor: Visitor) -> web.Response:
        images, trouble = await visitor.images()
        context = {
            **await _builds(request, visitor),
            **self._composer.choices,
            "images": images[:_RECENT],
            "more_images": max(0, len(images) - _RECENT),
            "trouble": trouble,
            "packages": self._packages,
            "words": "",
        }
        return templating.page(request, "overview.html", context)

    async def _builds_stream(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        return await self._live.builds(request, lambda: _builds(request, visitor))

    async def _build_stream(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        return await self._live.build(request, visitor, request.match_info["id"])

    async def _all_images(self, request: web.Request, visitor: Visitor) -> web.Response:
        images, trouble = await visitor.images()
        return templating.page(request, "images.html", {"images": images, "trouble": trouble})

    async def _image(self, request: web.Request, visitor: Visitor) -> web.Response:
        name, digest = request.match_info["name"], request.match_info["digest"]
        images, trouble = await visitor.images()
        image = next((image for image in images if (image.repository, image.digest) == (name, digest)), None)
        if image is None:
            return _missing(request, trouble or f"{name} has no image {views.short(digest)} here.")
        pull = views.pull_lines(request.host, image.name)
        return templating.page(request, "image.html", {"image": image, "pull": pull})

    async def _build(self, request: web.Request, visitor: Visitor) -> web.Response:
        build = await visitor.build(request.match_info["id"])
        if build is None:
            return _missing(request, f"There is no build {request.match_info['id']} here (any more).")
        lines = (await visitor.log(build)).splitlines()
        context = {
            "build": build,
            "logs": visitor.reads_logs,
            "here": visitor.is_here(build),
            "lines": lines[-_MOST_LINES:],
            "earlier": max(0, len(lines) - _MOST_LINES),
            "seen": build.lines,
            "pull": views.pull_lines(request.host, views.reference(build.repository, build.tag)),
        }
        return templating.page(request, "build.html", context)

    async def _log(self, request: web.Request, visitor: Visitor) -> web.Response:
        build = await visitor.build(request.match_info["id"])
        if build is None or not visitor.reads_logs:
            text = "no such log, or page.log_networks does not hold your address\n"
            return web.Response(status=404 if build is None else 403, text=text)
        if not visitor.is_here(build):
            return web.Response(status=404, text=f"the log is on {build.host}, which built this image\n")
        return web.Response(text=await visitor.log(build) or "the log is empty\n")

    async def _login(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Make a browser ask for user and password, until the registry accepts them."""
        if await visitor.is_accepted():
            return web.Response(status=303, headers={"Location": "/"})
        message = (
            f"The registry does not accept user {visitor.user!r} with this password, or it does not answer."
            if visitor.user
            else "Log in with your user and password of the registry, as for docker login."
        )
        response = _missing(request, message)
        response.set_status(401)
        response.headers.update(_CHALLENGE)
        return response

    async def _status(self, _: web.Request, visitor: Visitor) -> web.Response:
        builds = await visitor.builds()
        return web.json_response(
            {
                "version": __version__,
                "packages": self._packages,
                "running": len(builds.running),
                "store": asdict(self._budget.usage),
                "builds": [
                    {**asdict(build), "state": build.state}
                    for build in (*builds.running, *builds.ended[:_RECENT])
                ],
            }
        )

    async def _static(self, request: web.Request, _: Visitor) -> web.Response:
        file = self._files.get(request.match_info["file"])
        if file is None:
            return web.Response(status=404)
        return web.Response(
            body=file.data,
            content_type=file.content_type,
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )


async def _builds(request: web.Request, visitor: Visitor) -> dict[str, Any]:
    builds = await visitor.builds()
    return {
        "host": request.host,
        "running": builds.running,
        "ended": builds.ended[:_RECENT],
        "is_here": visitor.is_here,
    }


def _missing(request: web.Request, message: str) -> web.Response:
    return templating.page(request, "missing.html", {"message": message}, status=404)
