"""Which manifest a client gets, by its `Accept`: an image of ours goes out in the type that it is stored in.

The stock registry converts. A client without `Accept`, with `*/*`, or with OCI types alone gets a manifest of schema 1, under a digest
that nobody can pull, or a 404. RFC 9110, section 12.5.1: no `Accept` means every type, and a server may disregard one that
fits nothing. nixfront knows which images are its own, so it asks for these with every type, and says `Vary: Accept`.

A tag of ours may name an index. A client that takes manifests alone, and no index, gets the one that the registry picks for
it; the stock registry picks linux/amd64. Where it picks none that the client takes, the index goes out as it is.

Images that others pushed stay the registry's affair, with the client's own `Accept`. Whether a tag is ours shows in the
digest of the answer. A digest names one document, and the registry never converts that. So there nixfront asks again only after a 404.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.core.model import DOCKER_MANIFEST, EVERY_MANIFEST_TYPE, OCI_MANIFEST
from proxy.core.request import RegistryPath
from proxy.image.documents import INDEX_TYPES
from proxy.state import State
from proxy.telemetry.requests import path_of
from proxy.web.passthrough import Passthrough
from proxy.web.replies import conditions

_MANIFESTS = frozenset({DOCKER_MANIFEST, OCI_MANIFEST})


class Negotiation:
    """A `Passthrough` that negotiates about images of ours."""

    def __init__(self, passthrough: Passthrough, state: State) -> None:
        """`state` says which tags are ours."""
        self._passthrough = passthrough
        self._state = state

    def outgoing(self, request: web.Request) -> CIMultiDict[str]:
        """As `Passthrough.outgoing`. The registry's answer depends on these headers, and on whether the image is ours."""
        return self._passthrough.outgoing(request)

    @asynccontextmanager
    async def send(self, request: web.Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """As `Passthrough.send`."""
        path = path_of(request)
        async with AsyncExitStack() as stack:
            if path.is_canonical and conditions.is_decided_here(request):
                answer = await self._ask(request, path, stack)
            else:
                answer = await stack.enter_async_context(self._passthrough.send(request))
            yield answer

    async def _ask(
        self, request: web.Request, path: RegistryPath, stack: AsyncExitStack
    ) -> aiohttp.ClientResponse:
        """The registry's answer about a manifest."""

        async def ask(accept: str = "") -> aiohttp.ClientResponse:
            return await stack.enter_async_context(self._passthrough.send(request, accept=accept))

        accepted = types(request.headers.getall(hdrs.ACCEPT, []))
        is_narrow = not accepted >= INDEX_TYPES | _MANIFESTS
        if path.is_digest:
            answer = await ask()
            if (
                is_narrow
                and answer.status == 404
                and await self._state.recall_image(path.repository, path.reference)
            ):
                answer = await ask(EVERY_MANIFEST_TYPE)
            return answer
        record = await self._state.recall_tag(path.repository, path.reference)
        if record is None:
            return await ask()
        answer = await ask(EVERY_MANIFEST_TYPE if is_narrow else "")
        if answer.status == 200:
            if answer.headers.get("Docker-Content-Digest") in {record.digest, record.replaced} - {""}:
                request[conditions.VARIES] = True
                if answer.content_type in INDEX_TYPES and takes_manifests_alone(accepted):
                    picked = await ask()
                    if picked.status == 200 and picked.content_type in accepted:
                        answer = picked
            elif is_narrow:  # somebody has pushed to this tag
                answer = await ask()
        return answer

    async def relay(
        self, request: web.Request, answer: aiohttp.ClientResponse, start: bytes = b""
    ) -> web.StreamResponse:
        """As `Passthrough.relay`."""
        return await self._passthrough.relay(request, answer, start)


def types(lines: Iterable[str]) -> frozenset[str]:
    """The media types and ranges (`*/*`) in these Accept lines, without parameters."""
    return frozenset(kind.partition(";")[0].strip().lower() for line in lines for kind in line.split(","))


def takes_manifests_alone(accepted: frozenset[str]) -> bool:
    """Whether a client that accepts these takes the manifest of one image, and neither an index nor any range."""
    ranges = {kind for kind in accepted if kind.endswith("/*")}
    return bool(accepted & _MANIFESTS) and not accepted & INDEX_TYPES and not ranges
