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
from proxy.builds.board import BuildBoard
from proxy.web.client import Networks
from proxy.web.page import templating, views
from proxy.web.page.composer import Composer
from proxy.web.page.image_list import ImageList
from proxy.web.page.listed import ListedImage
from proxy.web.page.live import Live
from proxy.web.page.templating import StaticFile

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

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """Its routes."""

    def __init__(
        self,
        board: BuildBoard,
        images: ImageList,
        composer: Composer,
        *,
        packages: str,
        visitors: Networks,
        log_visitors: Networks,
    ) -> None:
        """`packages` names the default package set; only `log_visitors` may read the logs of builds."""
        self._board = board
        self._images = images
        self._composer = composer
        self._packages = packages
        self._visitors = visitors
        self._log_visitors = log_visitors
        self._live = Live(board, _HEADERS)
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
            ("/status.json", self._status),
            ("/static/{file}", self._static),
        ):
            application.router.add_get(path, self._guarded(answer))
        application.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        self._live.close()

    def _guarded(self, answer: Answer) -> Answer:
        """The answer with the page's headers, for its visitors alone."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._visitors.contain_every_hop(request.remote, request.headers):
                text = "page.networks of this host does not hold your address\n"
                return web.Response(status=403, text=text, headers=_HEADERS)
            response = await answer(request)
            if not response.prepared:
                for name, value in _HEADERS.items():
                    response.headers.setdefault(name, value)
            return response

        return guarded

    async def _overview(self, request: web.Request) -> web.Response:
        await self._board.refresh()
        images, trouble = await self._listing()
        context = {
            **self._builds(request),
            **self._composer.choices,
            "images": images[:_RECENT],
            "more_images": max(0, len(images) - _RECENT),
            "trouble": trouble,
            "packages": self._packages,
            "words": "",
        }
        return templating.page(request, "overview.html", context)

    async def _builds_stream(self, request: web.Request) -> web.StreamResponse:
        return await self._live.builds(request, lambda: self._builds(request))

    async def _build_stream(self, request: web.Request) -> web.StreamResponse:
        logs = self._may_read_logs(request)
        return await self._live.build(request, request.match_info["id"], logs=logs)

    async def _all_images(self, request: web.Request) -> web.Response:
        images, trouble = await self._listing()
        return templating.page(request, "images.html", {"images": images, "trouble": trouble})

    async def _image(self, request: web.Request) -> web.Response:
        name, digest = request.match_info["name"], request.match_info["digest"]
        images, trouble = await self._listing()
        image = next((image for image in images if (image.repository, image.digest) == (name, digest)), None)
        if image is None:
            return _missing(request, trouble or f"{name} has no image {views.short(digest)} here.")
        pull = views.pull_lines(request.host, image.name)
        return templating.page(request, "image.html", {"image": image, "pull": pull})

    async def _build(self, request: web.Request) -> web.Response:
        await self._board.refresh()
        build = self._board.get(request.match_info["id"])
        if build is None:
            return _missing(request, f"There is no build {request.match_info['id']} here (any more).")
        logs, here = self._may_read_logs(request), self._board.is_here(build)
        lines = (await self._board.log(build.id)).splitlines() if logs and here else []
        context = {
            "build": build,
            "logs": logs,
            "here": here,
            "lines": lines[-_MOST_LINES:],
            "earlier": max(0, len(lines) - _MOST_LINES),
            "seen": build.lines,
            "pull": views.pull_lines(request.host, views.reference(build.repository, build.tag)),
        }
        return templating.page(request, "build.html", context)

    async def _log(self, request: web.Request) -> web.Response:
        await self._board.refresh()
        build = self._board.get(request.match_info["id"])
        if build is None or not self._may_read_logs(request):
            text = "no such log, or page.log_networks does not hold your address\n"
            return web.Response(status=404 if build is None else 403, text=text)
        if not self._board.is_here(build):
            return web.Response(status=404, text=f"the log is on {build.host}, which built this image\n")
        return web.Response(text=await self._board.log(build.id) or "the log is empty\n")

    async def _status(self, request: web.Request) -> web.Response:
        await self._board.refresh()
        builds = [*self._board.running, *self._board.ended[:_RECENT]]
        hidden = {} if self._may_read_logs(request) else {"last_line": ""}
        return web.json_response(
            {
                "version": __version__,
                "packages": self._packages,
                "running": len(self._board.running),
                "builds": [{**asdict(build), "state": build.state, **hidden} for build in builds],
            }
        )

    async def _static(self, request: web.Request) -> web.Response:
        file = self._files.get(request.match_info["file"])
        if file is None:
            return web.Response(status=404)
        return web.Response(
            body=file.data,
            content_type=file.content_type,
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )

    async def _listing(self) -> tuple[list[ListedImage], str]:
        """The images by name, or why the registry cannot list them."""
        images, trouble = await self._images.listing(self._board.endings)
        return sorted(images, key=lambda image: image.name), trouble

    def _builds(self, request: web.Request) -> dict[str, Any]:
        return {
            "host": request.host,
            "running": self._board.running,
            "ended": self._board.ended[:_RECENT],
            "logs": self._may_read_logs(request),
            "is_here": self._board.is_here,
        }

    def _may_read_logs(self, request: web.Request) -> bool:
        return self._log_visitors.contain_every_hop(request.remote, request.headers)


def _missing(request: web.Request, message: str) -> web.Response:
    return templating.page(request, "missing.html", {"message": message}, status=404)
