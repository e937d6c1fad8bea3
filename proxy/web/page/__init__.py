"""The page at `/`, for people: what this host is, packages, a composer, builds, images. Its markup is in `templates`.

Viewing the page never starts a build. Only the composer and the page of a package evaluate anything, within bounds of their own.
The button that builds is a form, and the rules of a pull decide who may press it (`make`). Templates escape every value, and
the content security policy forbids what comes from elsewhere. Only the live parts need JavaScript.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict

from aiohttp import hdrs, web

from proxy import __version__
from proxy.nix.budget import StoreBudget
from proxy.telemetry.history import COLUMNS, History
from proxy.web.client import NO_NETWORKS, Networks
from proxy.web.page import builds, chart, images, templating, views
from proxy.web.page.composer import Composer
from proxy.web.page.composer.packages import PackagePages
from proxy.web.page.documents import KIND_NAMES, Documents
from proxy.web.page.live import Changes, Live
from proxy.web.page.make import Maker
from proxy.web.page.templating import StaticFile
from proxy.web.page.visitor import Visitor, Visitors
from proxy.web.passthrough import Passthrough

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

_OF_A_REGISTRY = re.compile(r"/v[12](?:/|$)")
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
        packages: PackagePages,
        maker: Maker,
        documents: Documents,
        history: History,
        *,
        default_set: str,
        trusted_proxies: Networks = NO_NETWORKS,
        budget: StoreBudget,
    ) -> None:
        """`default_set` names the default package set; `trusted_proxies` may say who their client is."""
        self._visitors = visitors
        self._composer = composer
        self._packages = packages
        self._maker = maker
        self._documents = documents
        self._history = history
        self._default_set = default_set
        self._live = Live(board, _HEADERS, trusted_proxies)
        self._budget = budget
        self._files: Mapping[str, StaticFile] = {}

    async def add_to(self, application: web.Application) -> None:
        """Answer these paths. Reads files."""
        self._files = await templating.set_up(application)
        for path, answer in (
            ("/", self._overview),
            ("/events", self._builds_stream),
            ("/builds", builds.all_builds),
            ("/builds/{id}", self._build),
            ("/builds/{id}/log", builds.log),
            ("/builds/{id}/events", self._build_stream),
            ("/images", images.all_images),
            (f"/images/{{kind:{KIND_NAMES}}}/{{digest}}/{{name:.+}}", self._download),
            ("/images/{digest}/{name:.+}", self._image),
            ("/packages", self._packages.search),
            ("/packages/{name:.+}", self._packages.package),
            ("/compose", self._composer.compose),
            ("/suggest", self._composer.suggest),
            ("/login", self._login),
            ("/status.json", self._status),
            ("/static/{file}", self._static),
            ("/favicon.ico", self._icon),  # of a log as text, for which no markup names another
        ):
            application.router.add_get(path, self._guarded(answer))
        application.router.add_post("/make", self._guarded(self._maker.make))
        application.on_shutdown.append(self._close)

    def before(self, registry: Handler, passthrough: Passthrough) -> Handler:
        """The handler of all other paths: a person who follows a link to nowhere gets a page, and a program the registry's answer."""

        async def answer(request: web.Request) -> web.StreamResponse:
            visitor = self._visitors.of(request) if _is_person(request) else None
            if visitor is None or not await _is_nowhere(request, passthrough):
                return await registry(request)
            request[templating.VISITOR] = visitor
            await templating.ready()
            return _with_headers(templating.missing(request, f"There is no page {request.path} here."))

        return answer

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
            await templating.ready()
            return _with_headers(await answer(request, visitor))

        return guarded

    async def _overview(self, request: web.Request, visitor: Visitor) -> web.Response:
        listing = await visitor.images()
        context = {
            **await builds.recent(request, visitor),
            **await self._composer.choices(visitor),
            "images": listing.counted(images.choose(listing.images, "", "", "age")[:_RECENT]),
            "more_images": max(0, len(listing.images) - _RECENT),
            "trouble": listing.trouble,
            "packages": self._default_set,
            "words": "",
            "package_set": "",
            "drawings": chart.drawings(self._history.columns()),
            "chart_width": self._history.width,
            "chart_columns": COLUMNS,
            "chart_size": (chart.WIDTH, chart.HEIGHT),
        }
        return templating.page(request, "overview.html", context)

    async def _builds_stream(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        return await self._live.builds(request, lambda: builds.recent(request, visitor))

    async def _build_stream(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        return await self._live.build(request, visitor, request.match_info["id"])

    async def _image(self, request: web.Request, visitor: Visitor) -> web.Response:
        return await images.one_image(
            request,
            visitor,
            self._documents,
            lambda image: self._composer.lines(request, image.name, platforms=image.platforms),
        )

    async def _download(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        return await self._documents.download(request, visitor, _HEADERS)

    async def _build(self, request: web.Request, visitor: Visitor) -> web.Response:
        build = await visitor.build(request.match_info["id"])
        if build is None:
            message = f"There is no build {request.match_info['id']} here (any more)."
            return templating.missing(request, message)
        name = views.reference(build.repository, build.tag)
        return await builds.one_build(
            request, visitor, build, {"lines_to_type": self._composer.lines(request, name)}
        )

    async def _login(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Make a browser ask for user and password, until the registry accepts them."""
        if await visitor.is_accepted():
            return web.Response(status=303, headers={"Location": "/"})
        message = (
            f"The registry does not accept user {visitor.user!r} with this password, or it does not answer."
            if visitor.user
            else "Log in with your user and password of the registry, as for docker login."
        )
        response = templating.missing(request, message, 401)
        response.headers.update(_CHALLENGE)
        return response

    async def _status(self, _: web.Request, visitor: Visitor) -> web.Response:
        seen = await visitor.builds()
        return web.json_response(
            {
                "version": __version__,
                "packages": self._default_set,
                "running": len(seen.running),
                "store": asdict(self._budget.usage),
                "builds": [
                    {**asdict(build), "state": build.state}
                    for build in (*seen.running, *seen.ended[:_RECENT])
                ],
            }
        )

    async def _icon(self, _: web.Request, __: Visitor) -> web.Response:
        return web.Response(status=302, headers={"Location": self._files["mark.svg"].path})

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


def _with_headers(response: web.StreamResponse) -> web.StreamResponse:
    """The answer with the headers of every page."""
    if not response.prepared:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
    return response


def _is_person(request: web.Request) -> bool:
    """Whether a browser wants to show this path, which is none of the registry's interface."""
    return (
        request.method == hdrs.METH_GET
        and not request.body_exists
        and any("text/html" in accept for accept in request.headers.getall(hdrs.ACCEPT, []))
        and not _OF_A_REGISTRY.match(request.path)
    )


async def _is_nowhere(request: web.Request, passthrough: Passthrough) -> bool:
    """Whether the registry has nothing at this path. Raises `RegistryUnavailable`."""
    async with passthrough.send(request) as reply:
        return reply.status == 404
