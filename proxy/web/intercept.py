"""The product's only question: does nixfront build this image? Everything else passes through.

The client's request goes to the registry first, unchanged, with the client's own credentials. Only where the registry
answers 404 to a GET or HEAD of a manifest by tag may a build start, if `access` allows it to this client; also to one by
digest, or to a GET of a blob, where `healing` knows it as part of an image of ours. Afterwards the same request goes to the
registry again: the reply is always the registry's own. `answer_cache` repeats the registry's public answers of the last seconds.
"""

import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from aiohttp import ClientResponse, hdrs, web
from aiohttp.web_request import BaseRequest
from yarl import URL

from proxy.builds.coordinator import Coordinator
from proxy.builds.late_documents import LateDocuments
from proxy.builds.moving_tags import MovingTags
from proxy.core import names
from proxy.core.errors import NameInvalid, NixfrontError, SiteDenied
from proxy.core.model import ImageRequest, accepts_every_manifest
from proxy.core.names import Vocabulary
from proxy.core.request import RegistryPath
from proxy.state.pulls import Pulls
from proxy.telemetry.requests import PATH, Observer, path_of
from proxy.web import error_responses, verbatim
from proxy.web.access import Access
from proxy.web.answer_cache import AnswerCache
from proxy.web.blobs import Blobs
from proxy.web.error_responses.ways_out import WaysOut
from proxy.web.healing import Healing
from proxy.web.mirror import Mirror
from proxy.web.replies.tag_list import TagLists
from proxy.web.sites import Sites
from proxy.web.waiting import Outcome, Waiting

RequestHandler = Callable[[BaseRequest], Awaitable[web.StreamResponse]]
_READS = (hdrs.METH_GET, hdrs.METH_HEAD)


def recall_first(
    application: RequestHandler, answers: AnswerCache, observer: Observer, pulls: Pulls
) -> RequestHandler:
    """What a server calls for each request instead of `application`, which gets what `answers` does not know.

    An answer from the cache skips the routes and the middlewares, which saves a third of its time. `observer` names, counts
    and logs it like any other; `pulls` counts it as a pull.
    """

    async def handle(request: BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        if isinstance(request, web.Request) and (response := answers.recall(request)) is not None:
            pulls.pulled(response.repository, response.digest, _fetches(request))
            observer.count_recalled(request, response, started)
            return response
        return await application(request)

    return handle


class Front:
    """The registry's interface at one address."""

    def __init__(
        self,
        sites: Sites,
        mirror: Mirror,
        answers: AnswerCache,
        tag_lists: TagLists,
        blobs: Blobs,
        access: Access,
        builds: Coordinator,
        waiting: Waiting,
        ways_out: WaysOut,
        moving: MovingTags,
        late_documents: LateDocuments | None,
        pulls: Pulls,
        healing: Healing,
        words: Vocabulary,
        *,
        is_anonymous: bool,
    ) -> None:
        """`words`: the names that mean something to this host. `is_anonymous`: nixfront has no login at the registry."""
        self._sites = sites
        self._mirror = mirror
        self._answers = answers
        self._tag_lists = tag_lists
        self._blobs = blobs
        self._access = access
        self._builds = builds
        self._waiting = waiting
        self._ways_out = ways_out
        self._moving = moving
        self._late_documents = late_documents
        self._pulls = pulls
        self._healing = healing
        self._words = words
        self._is_anonymous = is_anonymous

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The reply to any method and any path. Raises a `NixfrontError`, such as the one that ended a build."""
        if reason := self._sites.registry_refusal(request):
            raise SiteDenied(reason)
        sent = path_of(request)
        if self._mirror.serves(sent):
            error_responses.note_mirror(request)
        path = self._mirror.direct(sent, request.method)
        _check_length(path.repository)
        await self._access.admit_write(request)
        if path is not sent or sent.hop is not None:
            request = request.clone(rel_url=URL(path.target, encoded=True))
            request[PATH] = path
        if (recalled := self._answers.recall(request)) is not None:
            self._pulls.pulled(recalled.repository, recalled.digest, _fetches(request))
            return recalled
        if (response := await self._blobs.serve(request)) is not None:
            return response
        async with self._answers.send(request) as answer:
            if self._mirror.serves(sent):
                challenges = answer.headers.getall(hdrs.WWW_AUTHENTICATE, [])
                has_login = hdrs.AUTHORIZATION in request.headers
                self._mirror.check(path, answer.status, challenges, has_login=has_login)
            if path.kind == "tags":
                return await self._tag_lists.reply(request, sent, path, answer)
            image = await self._image(path, request.method, answer.status)
            if image is None:
                stale = await self._is_stale(request, sent, path, answer)
                if isinstance(stale, web.Response):
                    return stale
                if stale is not True:  # `Overdue` too: an old image is better than none
                    return await self._answers.relay(request, answer)
        if image is None:
            return await self._answers.forward(request)
        if reason := self._sites.build_refusal(request):
            raise SiteDenied(reason)
        client = await self._access.admit(request, image)
        with self._builds.visit(image, client) as visit:
            try:
                outcome = await self._waiting.hold(request, sent, self._build(request, image, client))
            except NixfrontError as error:
                raise self._ways_out.add(error, request, image) from error
            visit.returns = outcome is not None
        if isinstance(outcome, web.Response):
            return outcome
        if outcome is not None:
            return await self._waiting.still_building(request, image, outcome)
        response = await self._answers.forward(request)
        self._note_pull(request, path, image.digest or verbatim.manifest_digest(response))
        return response

    def _note_pull(self, request: web.Request, path: RegistryPath, digest: str | None) -> None:
        """A client got the manifest of this digest."""
        if digest:
            self._pulls.pulled(path.repository, digest, _fetches(request))

    async def _image(self, path: RegistryPath, method: str, status: int) -> ImageRequest | None:
        """The image to build after an answer of this status; None when the answer stands.

        Raises `NameInvalid`, `DigestLost`.
        """
        if status != 404 or method not in _READS or path.kind not in ("manifest", "blob"):
            return None
        if path.kind == "manifest" and not path.is_digest:
            return names.parse(path.repository, path.reference, self._words)
        # Who pushes asks by HEAD which blobs are there.
        is_pull = path.kind == "manifest" or method == hdrs.METH_GET
        return await self._healing.image(path) if is_pull else None

    async def _build(self, request: web.Request, image: ImageRequest, client: str) -> None:
        """The registry has the image when this returns; a build that begins for this client counts against its rate."""
        # A 404 to one who accepts every type is an answer to nixfront too, unless its login sees more than the client's.
        accepts_all = bool(image.blob) or accepts_every_manifest(request.headers.getall(hdrs.ACCEPT, []))
        is_absent = self._is_anonymous and accepts_all
        await self._access.build(self._builds, image, client, is_absent=is_absent)

    async def _is_stale(
        self, request: web.Request, sent: RegistryPath, path: RegistryPath, answer: ClientResponse
    ) -> Outcome[bool]:
        """Whether the tag names another image by now than in this answer. Records the pull, and may wait for a build."""
        if path.kind != "manifest" or answer.status != 200 or request.method not in _READS:
            return False
        digest = answer.headers.get("Docker-Content-Digest")
        if digest is None:
            return False
        self._note_pull(request, path, digest)
        if self._late_documents is not None:
            self._late_documents.pulled(path.repository, digest)
        if path.is_digest or self._sites.build_refusal(request):
            return False
        return await self._waiting.hold(
            request, sent, self._moving.refresh_if_due(path.repository, path.reference)
        )


def _fetches(request: web.Request) -> int:
    """1 for a fetch, and 0 for a HEAD, by which engines ask before they fetch."""
    return int(request.method == hdrs.METH_GET)


def _check_length(repository: str) -> None:
    """The stock registry answers 500 to a name that is too long. Raises `NameInvalid`."""
    # No character of the grammar needs an escape, so one that is written so counts as one.
    length = len(unquote(repository))
    if length > names.LONGEST_REPOSITORY:
        raise NameInvalid(
            f"the name of this repository has {length} characters; the limit of registries is {names.LONGEST_REPOSITORY}"
        )
