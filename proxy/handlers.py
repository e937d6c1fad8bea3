"""The product's only question: is this ours? All else passes through.

The client's request goes to the registry first, as it is, with the client's own credentials. Only where that says 404
to a GET or HEAD of a manifest by tag may a build start, if `access` has nothing against this client, and afterwards the
same request goes to the registry again: the reply is always the registry's own. What the registry told everybody a moment ago need not be asked again: `answers`.
"""

from aiohttp import ClientResponse, hdrs, web

from proxy import names, tag_list, waiting
from proxy.access import Access
from proxy.answers import Answers
from proxy.blobs import Blobs
from proxy.mirror import Mirror
from proxy.model import ImageRequest
from proxy.names import Vocabulary
from proxy.served import Served
from proxy.waiting import Waiting


class Handlers:
    """The routes of one application."""

    def __init__(
        self,
        mirror: Mirror,
        answers: Answers,
        blobs: Blobs,
        access: Access,
        waiting: Waiting,
        served: Served,
        words: Vocabulary,
    ) -> None:
        """`mirror` says what is asked for; `blobs` knows shorter ways for some of it; `waiting` has made what the registry
        behind `answers` did not have, if the name means something in these `words` and `access` lets the client have it
        made.
        """
        self._words = words
        self._mirror = mirror
        self._answers = answers
        self._blobs = blobs
        self._access = access
        self._waiting = waiting
        self._served = served

    async def everything(self, request: web.Request) -> web.StreamResponse:
        """Any method, any path. Raises a `NixfrontError` if a build was wanted and failed."""
        hop, asked = waiting.as_asked(request)
        request = self._mirror.direct(asked)
        if (recalled := self._answers.recall(request)) is not None:
            return recalled
        if (served := await self._blobs.serve(request)) is not None:
            return served
        async with self._answers.send(request) as answer:
            name = tag_list.repository(request, answer, self._words)
            if name is not None and self._access.makes(name):
                said = await tag_list.read(answer)
                if tag_list.unknown_name(said):
                    return tag_list.empty(name)
                return await self._answers.relay(request, answer, said)
            wanted = _wanted(request, answer, self._words)
            if wanted is None:
                stale = await self._waiting.unless_long(asked, hop, self._served.note(request, answer))
                if isinstance(stale, web.Response):
                    return stale
                if not stale:
                    return await self._answers.relay(request, answer)
        if wanted is not None:
            asker = await self._access.admit(request, wanted)
            not_yet = await self._waiting.ensure(asked, hop, wanted, asker)
            if not_yet is not None:
                return not_yet
        return await self._answers.forward(request)


def _wanted(request: web.Request, answer: ClientResponse, words: Vocabulary) -> ImageRequest | None:
    """What this request, answered so, asks us to build; None when the answer stands."""
    if answer.status != 404 or request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
        return None
    route = names.manifest_route(request.rel_url.raw_path)
    return names.parse(*route, words) if route else None
