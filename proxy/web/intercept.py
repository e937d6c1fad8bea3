"""`tags/list` of a name that can be built and has no tag yet: an empty list, where a registry knows no such name.

A registry's 404 would end `skopeo list-tags`, and tell a person who looks before a first pull that there is nothing to
pull. So where the registry said NAME_UNKNOWN to this client, and the name could be an image of ours, the answer is 200
with no tags. It starts no build and asks nobody anything; that it is empty keeps pages that read every tag's manifest
from starting one.

What is noted of every manifest that the registry gives out: that it was pulled, and whether its tag is due.

The product's only question: is this ours? All else passes through.

The client's request goes to the registry first, as it is, with the client's own credentials. Only where that says 404
to a GET or HEAD of a manifest by tag may a build start, if `access` has nothing against this client, and afterwards the
same request goes to the registry again: the reply is always the registry's own. What the registry told everybody a moment ago need not be asked again: `answers`.
"""

import contextlib
import json

from aiohttp import ClientError, ClientResponse, hdrs, web

from proxy.builds.moving_tags import MovingTags
from proxy.core import names
from proxy.core.errors import NameInvalid
from proxy.core.model import ImageRequest
from proxy.core.names import Vocabulary
from proxy.core.request import manifest_route, tags_route
from proxy.state.pulls import Pulls
from proxy.web.access import Access
from proxy.web.answer_cache import AnswerCache
from proxy.web.blobs import Blobs
from proxy.web.mirror import Mirror
from proxy.web.waiting import Waiting, as_asked

_LONGEST = 64 << 10  # bytes of a 404 that are read


def repository(request: web.Request, answer: ClientResponse, words: Vocabulary) -> str | None:
    """The repository whose tags were asked for, if this 404 may become an empty list."""
    if answer.status != 404 or request.method != hdrs.METH_GET:
        return None
    asked = tags_route(request.rel_url.raw_path)
    try:
        return asked if asked and names.parse(asked, "latest", words) else None
    except NameInvalid:
        return None


async def read(answer: ClientResponse) -> bytes:
    """The start of the answer's body: all of it if it is an error of a registry, and what came if it broke off."""
    said = b""
    with contextlib.suppress(ClientError):  # whoever reads on gets it again
        while len(said) < _LONGEST and (chunk := await answer.content.read(_LONGEST)):
            said += chunk
    return said


def unknown_name(said: bytes) -> bool:
    """Whether this is a registry's word that it knows no such repository."""
    try:
        errors = json.loads(said)["errors"]
        return [error["code"] for error in errors] == ["NAME_UNKNOWN"]
    except (ValueError, KeyError, TypeError):
        return False


def empty(name: str) -> web.Response:
    """No tags, as the stock registry writes it."""
    return web.Response(
        body=json.dumps({"name": name, "tags": []}, separators=(",", ":")).encode() + b"\n",
        content_type="application/json",
        charset="utf-8",
        headers={"Docker-Distribution-Api-Version": "registry/2.0"},
    )


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
        route = manifest_route(request.rel_url.raw_path)
        digest = answer.headers.get("Docker-Content-Digest")
        if route is None or digest is None:
            return False
        repository, reference = route
        self._pulls.pulled(repository, digest)
        return ":" not in reference and await self._moving.asked(repository, reference)


class Front:
    """The routes of one application."""

    def __init__(
        self,
        mirror: Mirror,
        answers: AnswerCache,
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
        hop, asked = as_asked(request)
        request = self._mirror.direct(asked)
        if (recalled := self._answers.recall(request)) is not None:
            return recalled
        if (served := await self._blobs.serve(request)) is not None:
            return served
        async with self._answers.send(request) as answer:
            name = repository(request, answer, self._words)
            if name is not None and self._access.makes(name):
                said = await read(answer)
                if unknown_name(said):
                    return empty(name)
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
    route = manifest_route(request.rel_url.raw_path)
    return names.parse(*route, words) if route else None
