"""The product's only question: is this ours? All else passes through.

The client's request goes to the registry first, as it is, with the client's own credentials. Only where that says 404
to a GET or HEAD of a manifest by tag may a build start, and afterwards the same request goes to the registry again:
the reply is always the registry's own.
"""

from aiohttp import ClientResponse, hdrs, web

from proxy import names
from proxy.model import ImageRequest
from proxy.names import Vocabulary
from proxy.passthrough import Passthrough
from proxy.pipeline import Pipeline


class Handlers:
    """The routes of one application."""

    def __init__(self, passthrough: Passthrough, pipeline: Pipeline, words: Vocabulary) -> None:
        """`pipeline` makes what `passthrough` did not find, if the name means something in these `words`."""
        self._words = words
        self._passthrough = passthrough
        self._pipeline = pipeline

    async def everything(self, request: web.Request) -> web.StreamResponse:
        """Any method, any path. Raises a `NixfrontError` if a build was wanted and failed."""
        async with self._passthrough.send(request) as answer:
            wanted = _wanted(request, answer, self._words)
            if wanted is None:
                return await self._passthrough.relay(request, answer)
        await self._pipeline.ensure(wanted)
        return await self._passthrough.forward(request)


def _wanted(request: web.Request, answer: ClientResponse, words: Vocabulary) -> ImageRequest | None:
    """What this request, answered so, asks us to build; None when the answer stands."""
    if answer.status != 404 or request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
        return None
    route = names.manifest_route(request.rel_url.raw_path)
    return names.parse(*route, words) if route else None
