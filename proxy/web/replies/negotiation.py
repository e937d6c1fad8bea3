"""Which manifest a client gets, by its `Accept`: an image of ours goes out in the type that it is stored in.

The stock registry converts. A client without `Accept`, with `*/*`, or with OCI types alone gets a manifest of schema 1, under a digest
that nobody can pull, or a 404. RFC 9110, section 12.5.1: no `Accept` means every type, and a server may disregard one that
fits nothing. nixfront knows which images are its own, so it asks for these with every type, and says `Vary: Accept`.

Images that others pushed stay the registry's affair, with the client's own `Accept`. Whether a tag is ours shows in the
digest of the answer. A digest names one document, and the registry never converts that. So there only a 404 is asked about again.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.core.model import DOCKER_MANIFEST, EVERY_MANIFEST_TYPE, OCI_MANIFEST
from proxy.core.request import RegistryPath
from proxy.state import State
from proxy.telemetry.requests import path_of
from proxy.web.passthrough import Passthrough
from proxy.web.replies import conditions

# The types in which images of ours are stored.
_OURS = frozenset({DOCKER_MANIFEST, OCI_MANIFEST})


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

        is_narrow = not names_every_type_of_ours(request.headers.getall(hdrs.ACCEPT, []))
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
            elif is_narrow:  # somebody has pushed to this tag
                answer = await ask()
        return answer

    async def relay(
        self, request: web.Request, answer: aiohttp.ClientResponse, start: bytes = b""
    ) -> web.StreamResponse:
        """As `Passthrough.relay`."""
        return await self._passthrough.relay(request, answer, start)


def names_every_type_of_ours(lines: Iterable[str]) -> bool:
    """Whether these Accept lines name each type in which an image of ours may be stored. Ranges (`*/*`) do not count."""
    types = {kind.partition(";")[0].strip().lower() for line in lines for kind in line.split(",")}
    return types >= _OURS
