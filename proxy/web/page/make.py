"""The button of the page: it begins the build of an image as a pull does, and answers with the page of the build.

The same rules as for a pull decide who may build: the registry's answer to this visitor, `access`, the rate and the queue. A web
site cannot press the button in a visitor's browser, since `sites` refuses that.
"""

import asyncio

from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from proxy.builds.build import Build
from proxy.builds.coordinator import Coordinator
from proxy.core import names
from proxy.core.errors import BodyInvalid, NixfrontError, SiteDenied
from proxy.core.model import ImageRequest
from proxy.core.names import Vocabulary
from proxy.core.request import parse
from proxy.telemetry.requests import PATH
from proxy.web.access import Access
from proxy.web.page import templating
from proxy.web.page.visitor import Visitor
from proxy.web.sites import Sites

_PATIENCE = 20.0  # seconds until a build has its turn and its page
_LOOK = 0.1  # seconds between two looks whether it has
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

    async def make(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        """The page of the build, or of the image that is there already; else a page that says why there is none."""
        try:
            if reason := self._sites.build_refusal(request):
                raise SiteDenied(reason)
            blank = request.clone()  # a body that was read has no clone
            repository = await _repository(request)
            image = names.parse(repository, _LATEST, self._words)
            if image is None or not await visitor.pullable([repository]):
                return templating.missing(
                    request, "The registry does not let you pull an image of this name."
                )
            return await self._begin(request, _pull(blank, image, visitor), visitor, image)
        except NixfrontError as error:
            return templating.failure(request, error)

    async def _begin(
        self, request: web.Request, pull: web.Request, visitor: Visitor, image: ImageRequest
    ) -> web.StreamResponse:
        """The page of the build as soon as there is one. Raises what the build raises where it has no page."""
        client = await self._access.admit(pull, image)
        before = await visitor.newest(image.repository, _LATEST)
        with self._builds.visit(image, client) as visit:
            wait = asyncio.create_task(self._access.build(self._builds, image, client))
            try:
                async with asyncio.timeout(_PATIENCE):
                    while not wait.done():
                        build = await visitor.newest(image.repository, _LATEST)
                        if build is not None and (not build.ended or build != before):
                            return _see(f"/builds/{build.id}")
                        await asyncio.wait([wait], timeout=_LOOK)
                    return await self._ended(visitor, image, wait, before)
            except TimeoutError:
                visit.returns = True
            finally:
                wait.cancel()  # the visit keeps the place in the queue, and a build that has begun goes on
                await asyncio.gather(wait, return_exceptions=True)
        return templating.page(request, "waiting.html", {"repository": image.repository}, status=202)

    async def _ended(
        self, visitor: Visitor, image: ImageRequest, wait: asyncio.Task[None], before: Build | None
    ) -> web.StreamResponse:
        """The answer after a wait that ended at once. Raises what it raised where no build says it."""
        build = await visitor.newest(image.repository, _LATEST)
        error = wait.exception()
        if build is not None and _says(build, error, before):
            return _see(f"/builds/{build.id}")
        if error is not None:
            raise error
        listing = await visitor.images()
        there = next((each for each in listing.images if each.name == image.repository), None)
        return _see(f"/images/{there.digest}/{there.repository}" if there else "/images")


def _says(build: Build, error: BaseException | None, before: Build | None) -> bool:
    """Whether the newest build says how this wait ended. One of earlier counts if its failure is the recorded one."""
    if error is None:
        return not build.error
    is_recorded = isinstance(error, NixfrontError) and error.lasting
    return bool(build.error) and (is_recorded or build != before)


async def _repository(request: web.Request) -> str:
    """The name in the form. Raises `BodyInvalid`."""
    try:
        return str((await request.post()).get("repository", ""))
    except (ValueError, LookupError) as error:  # no form, or of a charset that does not exist
        raise BodyInvalid("this host cannot read the form in this request") from error


def _pull(blank: web.Request, image: ImageRequest, visitor: Visitor) -> web.Request:
    """The same client's pull of this image: without what belongs to the form.

    The registry has answered to the visitor's password, and to no token. So a token that came with the form proves nothing.
    """
    dropped = _OF_THE_FORM if visitor.user else _OF_THE_FORM | {"authorization"}
    headers = [(name, value) for name, value in blank.headers.items() if name.lower() not in dropped]
    path = f"/v2/{image.repository}/manifests/{_LATEST}"
    pull = blank.clone(method=hdrs.METH_GET, rel_url=URL(path, encoded=True), headers=CIMultiDict(headers))
    pull[PATH] = parse(path)
    return pull


def _see(path: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: path})
