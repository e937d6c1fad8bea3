"""The page at `/`, for people: what this host is, a composer, builds, images. Its markup is in `templates`, its looks in `static`.

Rules of this file: reading it starts no build and no evaluation, but for the composer's lookup (`preview`), which is restricted and
bounded. A build is begun by pulling, here as anywhere: the button of the composer asks `/v2/` from the browser, so whoever may not
build may not build here. Everything that is shown is escaped, and nothing comes from elsewhere: the content security policy says
so. It works without JavaScript but for what is live.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web

from proxy import __version__
from proxy.builds.board import BuildBoard
from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.model import ImageRequest
from proxy.core.names import Vocabulary
from proxy.web.client import Visitors
from proxy.web.page import views
from proxy.web.page.composer import Preview, Previews
from proxy.web.page.image_list import ImageList, ListedImage

_HERE = Path(__file__).parent
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
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAUSE = 0.25  # seconds between two messages of a stream
_HEARTBEAT = 15.0  # seconds after which a silent stream says that it is there
_TICK = 2.0  # seconds after which it says what it said, while anything is being built: times go on
_MOST_STREAMS = 200
_MOST_SUGGESTED = 12
_PATIENCE = 4.0  # seconds for a list of names
_RECENT = 12
_MOST_SHOWN = 2000  # lines of a log
_SEPARATORS = re.compile(r"[\s,/]+")


class Page:
    """Its routes."""

    def __init__(
        self,
        builds: BuildBoard,
        images: ImageList,
        previews: Previews,
        words: Vocabulary,
        *,
        packages: str,
        visitors: Visitors,
        log_visitors: Visitors,
    ) -> None:
        """`packages`: what the default package set is; `log_visitors` may read the logs of builds too."""
        self._builds = builds
        self._images = images
        self._previews = previews
        self._words = words
        self._packages = packages
        self._visitors = visitors
        self._log_visitors = log_visitors
        self._streams = 0
        self._closing = asyncio.Event()
        self._files: dict[str, tuple[bytes, str]] = {}
        self._environment: jinja2.Environment | None = None

    async def add_to(self, application: web.Application) -> None:
        """Answer these paths. Reads templates and files once."""
        await asyncio.to_thread(self._read_files, application)
        for path, answer in (
            ("/", self._overview),
            ("/events", self._overview_stream),
            ("/builds/{id}", self._build),
            ("/builds/{id}/log", self._log),
            ("/builds/{id}/events", self._build_stream),
            ("/images", self._all_images),
            ("/images/{digest}/{name:.+}", self._image),
            ("/compose", self._compose),
            ("/suggest", self._suggest),
            ("/status.json", self._status),
            ("/static/{file}", self._static),
        ):
            application.router.add_get(path, self._guarded(answer))
        application.on_shutdown.append(self._close)

    def _read_files(self, application: web.Application) -> None:
        for file in sorted((_HERE / "static").iterdir()):
            if (kind := _KINDS.get(file.suffix)) is not None:
                self._files[file.name] = (file.read_bytes(), kind)
        environment = aiohttp_jinja2.setup(
            application,
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters |= {
            "size": views.size,
            "span": views.span,
            "iso": views.iso,
            "short": views.short,
            "contents": views.contents,
            "reference": lambda build: views.reference(build.repository, build.tag),
        }
        environment.globals |= {
            "picture": views.picture,
            "picture_width": views.WIDTH,
            "ago": lambda moment: views.ago(moment, time.time()),
            "now": time.time,
            "version": __version__,
            "asset": {
                name: f"/static/{name}?v={hashlib.sha256(data).hexdigest()[:12]}"
                for name, (data, _) in self._files.items()
            },
        }
        for name in environment.list_templates():  # compiled now: nothing is read from disk later
            environment.get_template(name)
        self._environment = environment

    async def _close(self, _: web.Application) -> None:
        self._closing.set()

    def _guarded(self, answer: Any) -> Any:
        """The answer with the page's headers, for its visitors alone."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._visitors.may(request.remote, request.headers):
                text = "page.networks of this host does not hold your address\n"
                return web.Response(status=403, text=text, headers=_HEADERS)
            response: web.StreamResponse = await answer(request)
            if not response.prepared:
                for name, value in _HEADERS.items():
                    response.headers.setdefault(name, value)
            return response

        return guarded

    # --- what is read --------------------------------------------------------------------------------------

    async def _overview(self, request: web.Request) -> web.Response:
        images, trouble = await self._listed()
        return self._render(
            request,
            "overview.html",
            {
                **self._live(request),
                "images": sorted(images, key=lambda image: image.name)[:_RECENT],
                "more_images": max(0, len(images) - _RECENT),
                "trouble": trouble,
                "packages": self._packages,
                "presets": sorted(self._words.presets),
                "sets": sorted(self._words.package_sets),
                "asked": "",
            },
        )

    async def _all_images(self, request: web.Request) -> web.Response:
        images, trouble = await self._listed()
        ordered = sorted(images, key=lambda image: image.name)
        return self._render(request, "images.html", {"images": ordered, "trouble": trouble})

    async def _image(self, request: web.Request) -> web.Response:
        name, digest = request.match_info["name"], request.match_info["digest"]
        image = None
        if not (trouble := (await self._listed())[1]):
            image = await self._images.one(name, digest)
        if image is None:
            return self._missing(request, trouble or f"{name} has no image {views.short(digest)} here.")
        return self._render(request, "image.html", {"image": image, "pull": self._pulls(request, image.name)})

    async def _build(self, request: web.Request) -> web.Response:
        build = self._builds.get(request.match_info["id"])
        if build is None:
            return self._missing(request, f"There is no build {request.match_info['id']} here (any more).")
        logs = self._may_read_logs(request)
        text = await self._builds.log(build.id) if logs else ""
        lines = text.splitlines()
        return self._render(
            request,
            "build.html",
            {
                "build": build,
                "logs": logs,
                "lines": lines[-_MOST_SHOWN:],
                "earlier": max(0, len(lines) - _MOST_SHOWN),
                "seen": build.lines,
                "pull": self._pulls(request, views.reference(build.repository, build.tag)),
            },
        )

    async def _log(self, request: web.Request) -> web.Response:
        build = self._builds.get(request.match_info["id"])
        if build is None or not self._may_read_logs(request):
            status = 404 if build is None else 403
            return web.Response(
                status=status, text="no such log, or page.log_networks does not hold your address\n"
            )
        return web.Response(text=await self._builds.log(build.id) or "the log is empty\n")

    async def _status(self, _: web.Request) -> web.Response:
        builds = [*self._builds.running, *self._builds.ended[:_RECENT]]
        return web.json_response(
            {
                "version": __version__,
                "packages": self._packages,
                "running": len(self._builds.running),
                "builds": [{**asdict(build), "state": build.state} for build in builds],
            }
        )

    async def _static(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["file"])
        if found is None:
            return web.Response(status=404)
        data, kind = found
        return web.Response(
            body=data,
            content_type=kind,
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )

    # --- the composer --------------------------------------------------------------------------------------

    async def _suggest(self, request: web.Request) -> web.Response:
        """Names for what was typed so far: at once, or `later` while the list is being made."""
        text, package_set = request.query.get("q", "").strip()[:100], request.query.get("set", "")
        if not text or (package_set and package_set not in self._words.package_sets):
            return web.json_response({"names": [], "later": False})
        try:
            known = await self._previews.attributes(package_set, _PATIENCE)
        except NixfrontError as error:
            return web.json_response({"names": [], "later": False, "error": str(error)})
        found = await asyncio.to_thread(names.search, text, known or ())
        named = [(name, names.spelled(name)) for name in found[: 4 * _MOST_SUGGESTED]]
        presets = (
            []
            if package_set
            else [name for name in sorted(self._words.presets) if name.startswith(text.lower())]
        )
        return web.json_response(
            {
                "names": [
                    *({"attribute": f"{name} (meta-package)", "pull": name} for name in presets),
                    *({"attribute": name, "pull": pull} for name, pull in named if pull),
                ][:_MOST_SUGGESTED],
                "later": known is None,
            }
        )

    async def _compose(self, request: web.Request) -> web.Response:
        """What the typed packages would be; with `part` the result alone, without it as a page."""
        typed = [word for word in _SEPARATORS.split(request.query.get("names", "").strip().lower()) if word]
        package_set = request.query.get("set", "")
        repository = "/".join([*([package_set] if package_set else []), *typed])[:255]
        context: dict[str, Any] = {"asked": " ".join(typed), "result": None}
        if typed:
            context["result"] = await self._composed(request, repository)
        if request.query.get("part"):
            return self._render(request, "_composed.html", context)
        context |= {"sets": sorted(self._words.package_sets), "presets": sorted(self._words.presets)}
        return self._render(request, "compose.html", context)

    async def _composed(self, request: web.Request, repository: str) -> Mapping[str, Any]:
        pull = self._pulls(request, repository)
        try:
            wanted = names.parse(repository, "latest", self._words)
            if wanted is None:
                return {"error": f"{repository!r} is no name of an image", "pull": None}
            preview = await self._preview(wanted)
        except NixfrontError as error:
            return {"error": str(error), "pull": None}
        latest = self._builds.latest(repository, "latest")
        there = next((i for i in (await self._listed())[0] if i.repository == repository), None)
        return {
            "error": "",
            "repository": repository,
            "pull": pull,
            "preview": preview,
            "named": wanted.image,
            "image": there,
            "build": latest,
        }

    async def _preview(self, wanted: ImageRequest) -> Preview | None:
        return None if wanted.image else await self._previews.of(wanted)

    # --- what is live --------------------------------------------------------------------------------------

    async def _overview_stream(self, request: web.Request) -> web.StreamResponse:
        """The list of builds, whenever it is another one."""

        async def messages() -> AsyncIterator[tuple[str, str]]:
            yield "builds", self._text("_builds.html", self._live(request))

        return await self._stream(request, messages)

    async def _build_stream(self, request: web.Request) -> web.StreamResponse:
        """A build's state whenever it is another one, and its further lines."""
        identity, logs = request.match_info["id"], self._may_read_logs(request)
        seen = int(request.query.get("seen", "0")) if request.query.get("seen", "0").isdecimal() else 0

        async def messages() -> AsyncIterator[tuple[str, str]]:
            nonlocal seen
            build = self._builds.get(identity)
            if build is None:
                return
            lines, seen = self._builds.lines_since(identity, seen)
            if lines and logs:
                yield "lines", json.dumps(list(lines))
            yield "state", self._text("_build.html", {"build": build})
            if build.ended:
                yield "ended", build.state

        return await self._stream(request, messages)

    async def _stream(
        self, request: web.Request, messages: Callable[[], AsyncIterator[tuple[str, str]]]
    ) -> web.StreamResponse:
        """Server-sent events: what `messages` yields at each version of the builds, the last one being `ended`."""
        if self._streams >= _MOST_STREAMS:
            return web.Response(status=503, text="too many watch already\n")
        response = web.StreamResponse(
            headers={
                **_HEADERS,
                "Content-Type": "text/event-stream; charset=utf-8",
                "X-Accel-Buffering": "no",
            }
        )
        async with self._counted():
            await response.prepare(request)
            while not self._closing.is_set():
                version = self._builds.version
                async for event, data in messages():
                    body = "".join(f"data: {line}\n" for line in data.splitlines())
                    await response.write(f"event: {event}\n{body}\n".encode())
                    if event == "ended":
                        return response
                if not await self._next(version):
                    await response.write(b": still here\n\n")
                await asyncio.sleep(_PAUSE)
        return response

    async def _next(self, version: int) -> bool:
        """Whether there is another version before it is time to say something all the same; also when we close."""
        timeout = _TICK if self._builds.running else _HEARTBEAT
        waits = [asyncio.create_task(self._builds.change(version)), asyncio.create_task(self._closing.wait())]
        try:
            done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return bool(done)

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    # --- parts ---------------------------------------------------------------------------------------------

    async def _listed(self) -> tuple[tuple[ListedImage, ...], str]:
        """The images, or why they cannot be listed."""
        try:
            return await self._images.all(), ""
        except (NixfrontError, ValueError) as error:
            return (), str(error)

    def _live(self, request: web.Request) -> dict[str, Any]:
        return {
            "host": request.host,
            "running": self._builds.running,
            "ended": self._builds.ended[:_RECENT],
            "logs": self._may_read_logs(request),
        }

    def _may_read_logs(self, request: web.Request) -> bool:
        return self._log_visitors.may(request.remote, request.headers)

    def _pulls(self, request: web.Request, name: str) -> dict[str, str]:
        """What to copy, by what it is for."""
        image = f"{request.host}/{name}"
        return {
            "Docker": f"docker pull {image}",
            "Run it": f"docker run --rm -it {image}",
            "Kubernetes": f"containers: [{{name: main, image: {json.dumps(image)}}}]",
            "Dockerfile": f"FROM {image}",
            "Its files in a Dockerfile": f"COPY --from={image} / /",
        }

    def _missing(self, request: web.Request, told: str) -> web.Response:
        response = self._render(request, "missing.html", {"told": told})
        response.set_status(404)
        return response

    def _render(self, request: web.Request, template: str, context: Mapping[str, Any]) -> web.Response:
        shown = {"host": request.host, "path": request.path, **context}
        return web.Response(text=self._text(template, shown), content_type="text/html", charset="utf-8")

    def _text(self, template: str, context: Mapping[str, Any]) -> str:
        if self._environment is None:
            raise RuntimeError("add_to comes first")
        return self._environment.get_template(template).render(context)
