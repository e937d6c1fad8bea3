"""The button of the page: it begins the build of an image as a pull does, and answers with the page of the build.

The same rules as for a pull decide who may build: the registry's answer to this visitor, `access`, the rate and the queue. A web
site cannot press the button in a visitor's browser, since `sites` refuses that.
"""

import asyncio
import contextlib

from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from proxy.builds.coordinator import Coordinator
from proxy.core import names
from proxy.core.errors import NixfrontError, SiteDenied
from proxy.core.model import ImageRequest
from proxy.core.names import Vocabulary
from proxy.web.access import Access
from proxy.web.error_responses import WIRE
from proxy.web.page import templating
from proxy.web.page.visitor import Visitor
from proxy.web.sites import Sites

_PATIENCE = 20.0  # seconds until a build has its turn and its page
_LOOK = 0.1  # seconds between two looks whether it has
_HOLD = 60.0  # seconds for which a visitor who went to another page keeps the place in the queue
_LATEST = "latest"
_OF_THE_FORM = frozenset({"content-length", "content-type", "transfer-encoding", "expect"})


class Maker:
    """What the button does."""

    def __init__(self, sites: Sites, access: Access, builds: Coordinator, words: Vocabulary) -> None:
        """All of these are those of a pull."""
        self._sites = sites
        self._access = access
        self._builds = builds
        self._words = words
        self._waits: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def make(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        """The page of the build, or of the image that is there already; else a page that says why there is none."""
        try:
            if reason := self._sites.build_refusal(request):
                raise SiteDenied(reason)
            pull = _pull(request)  # a body that was read has no clone
            repository = str((await request.post()).get("repository", ""))
            image = names.parse(repository, _LATEST, self._words)
            if image is None or not await visitor.pullable([repository]):
                return templating.missing(
                    request, "The registry does not let you pull an image of this name."
                )
            return await self._begin(request, pull, visitor, image)
        except NixfrontError as error:
            return templating.missing(request, str(error), WIRE[type(error)].status)

    async def close(self) -> None:
        """Wait for no build any more."""
        waits = list(self._waits.values())
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _begin(
        self, request: web.Request, pull: web.Request, visitor: Visitor, image: ImageRequest
    ) -> web.StreamResponse:
        path = URL(f"/v2/{image.repository}/manifests/{_LATEST}", encoded=True)
        client = await self._access.admit(pull.clone(rel_url=path), image)
        before = await visitor.newest(image.repository, _LATEST)
        wait = self._wait(image, client)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while not wait.done():
                    build = await visitor.newest(image.repository, _LATEST)
                    if build is not None and (not build.ended or build != before):
                        return _see(f"/builds/{build.id}")
                    await asyncio.wait([wait], timeout=_LOOK)
        if not wait.done():
            return templating.page(request, "waiting.html", {"repository": image.repository}, status=202)
        return await self._ended(visitor, image, wait)

    async def _ended(
        self, visitor: Visitor, image: ImageRequest, wait: asyncio.Task[None]
    ) -> web.StreamResponse:
        """The answer after a build that ended at once, or that was not needed. Raises what the build raised."""
        build = await visitor.newest(image.repository, _LATEST)
        error = wait.exception()
        if build is not None and (error is None or build.error):
            return _see(f"/builds/{build.id}")
        if error is not None:
            raise error
        images, _ = await visitor.images()
        there = next((each for each in images if each.name == image.repository), None)
        return _see(f"/images/{there.digest}/{there.repository}" if there else "/images")

    def _wait(self, image: ImageRequest, client: str) -> asyncio.Task[None]:
        """The wait of this client for this image. It ends after a while; a build that has begun goes on."""
        key = (image.repository, client)
        if (wait := self._waits.get(key)) is None:
            wait = self._waits[key] = asyncio.create_task(self._build(image, client))
            wait.add_done_callback(lambda _: self._waits.pop(key))
            wait.add_done_callback(_see_error)
        return wait

    async def _build(self, image: ImageRequest, client: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HOLD):
                await self._access.build(self._builds, image, client)


def _pull(request: web.Request) -> web.Request:
    """The same client's pull, of no image yet: without what belongs to the form."""
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _OF_THE_FORM]
    return request.clone(method=hdrs.METH_GET, headers=CIMultiDict(headers))


def _see(path: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: path})


def _see_error(wait: asyncio.Task[None]) -> None:
    """Nobody may be there any more who takes the error of a wait."""
    if not wait.cancelled():
        wait.exception()
