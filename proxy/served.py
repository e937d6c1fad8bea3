"""What is noted of every manifest that the registry gives out: that it was pulled, and whether its tag is due."""

from aiohttp import ClientResponse, hdrs, web

from proxy import names
from proxy.moving_tags import MovingTags
from proxy.pulls import Pulls


class Served:
    """The notes of one application."""

    def __init__(self, pulls: Pulls, moving: MovingTags) -> None:
        """Who keeps them."""
        self._pulls = pulls
        self._moving = moving

    async def note(self, request: web.Request, answer: ClientResponse) -> bool:
        """Note this answer; whether it is out of date by now, so that the registry has to be asked again."""
        if answer.status != 200 or request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return False
        route = names.manifest_route(request.rel_url.raw_path)
        digest = answer.headers.get("Docker-Content-Digest")
        if route is None or digest is None:
            return False
        repository, reference = route
        self._pulls.pulled(repository, digest)
        return ":" not in reference and await self._moving.asked(repository, reference)
