"""What is attached to an image, for people: its bill of materials, its provenance, its signatures; and the files to download.

A pusher may have put any of these into the registry. Each read is bounded, the parser runs beside the event loop, and a wrong
document is a sentence on the page of its image. Views ask for images that their visitor may see, and for no other.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiohttp import hdrs, web
from cachetools import TTLCache

from proxy.core.errors import Busy, NixfrontError
from proxy.core.foreign import DocumentInvalid
from proxy.pipeline.attachments import reading, referrers
from proxy.pipeline.attachments.reading import Attached
from proxy.registry.client import LARGEST_DOCUMENT, Registry
from proxy.trust import readers
from proxy.trust.kinds import CYCLONEDX, KINDS, PROVENANCE, SPDX, Kind
from proxy.trust.readers import Materials, Origin
from proxy.trust.signatures import Signatures, Signer, signature_tag
from proxy.web.page import templating, views
from proxy.web.page.documents.section import Section, Signed
from proxy.web.page.visitor import Visitor

#: What the address of a download says: the names of the kinds.
KIND_NAMES = "|".join(KINDS)
_LARGEST_FILE = 16 << 20  # bytes of a download, which is in memory until it is sent
_MOST_SENT = 8  # downloads at a time
_LEAST_SPEED = 128 << 10  # bytes a second that the client of a download takes
_AT_ONCE = 2  # images whose documents are read at a time
_MOST_WAITING = 32
_PATIENCE = 20.0  # seconds for the documents of one image
_FRESH = 30.0  # seconds; documents come some time after their image
_MOST_CACHED = 16  # images; a hostile document fills some megabytes
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Documents:
    """Reads what is attached to the images of one registry."""

    def __init__(self, registry: Registry, signer: Signer | None) -> None:
        """`signer` says which signatures are this host's; None where it signs nothing."""
        self._registry = registry
        self._signer = signer
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = self._sending = 0
        self._sections: TTLCache[tuple[str, str], Section] = TTLCache(_MOST_CACHED, _FRESH)

    async def section(self, repository: str, image: str) -> Section:
        """What the page of the manifest `image` shows of it. It raises nothing: what fails is a sentence in it."""
        key = (repository, image)
        if (section := self._sections.get(key)) is None:
            try:
                async with self._turn():
                    # Somebody else may have read them meanwhile.
                    section = self._sections.get(key) or await self._section(repository, image)
                    self._sections[key] = section
            except Busy as error:
                section = Section(troubles=(str(error),))
            except (TimeoutError, NixfrontError, DocumentInvalid) as error:
                section = self._sections[key] = Section(troubles=(_sentence(error),))
        return section

    async def download(
        self, request: web.Request, visitor: Visitor, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """The document of the kind, image and repository in the address, as a file with these headers."""
        name, image = request.match_info["name"], request.match_info["digest"]
        kind = KINDS[request.match_info["kind"]]
        listing = await visitor.images()
        if not any(each.repository == name and each.has_manifest(image) for each in listing.images):
            return templating.missing(
                request, listing.trouble or f"{name} has no image {views.short(image)} here."
            )
        if self._sending >= _MOST_SENT:
            return templating.failure(request, Busy("too many people download documents at this moment", 5))
        self._sending += 1
        try:
            return await self._sent(request, name, image, kind, headers)
        finally:
            self._sending -= 1

    async def _sent(
        self, request: web.Request, name: str, image: str, kind: Kind, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        try:
            async with self._turn():
                entries = await referrers.listed(self._registry, name, image)
                attached = await reading.find(self._registry, name, image, entries, kind)
                if attached is None:
                    return templating.missing(request, f"{name} has no document of the kind {kind.name}.")
                data = await reading.read(self._registry, name, attached, _LARGEST_FILE)
        except Busy as error:
            return templating.failure(request, error)
        except (TimeoutError, NixfrontError, DocumentInvalid) as error:
            return templating.missing(request, f"There is no such document to download: {_sentence(error)}.")
        file = f"{_NO_NAME.sub('-', name)}-{views.short(image)}.{kind.file}"
        response = web.StreamResponse(
            headers={**headers, hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file}"'}
        )
        response.content_type, response.content_length = kind.media_type, len(data)
        try:
            async with asyncio.timeout(_PATIENCE + len(data) / _LEAST_SPEED):
                await response.prepare(request)
                if request.method != "HEAD":
                    await response.write(data)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of a few readers. Raises `Busy` and `TimeoutError`."""
        if self._waiting >= _MOST_WAITING:
            raise Busy("too many people look at documents of images at this moment", 5)
        self._waiting += 1
        try:
            async with asyncio.timeout(_PATIENCE), self._slots:
                yield
        finally:
            self._waiting -= 1

    async def _section(self, repository: str, image: str) -> Section:
        """Raises `DocumentInvalid` where nobody can say what is attached, and what the registry raises."""
        signed = await self._signed(repository, image)
        troubles: list[str] = []
        try:
            entries = await referrers.listed(self._registry, repository, image)
        except DocumentInvalid as error:
            entries, troubles = [], [f"The list of what is attached to it is broken: {error}."]
        attached_by_kind: dict[Kind, Attached] = {}
        for kind in KINDS.values():
            try:
                attached = await reading.find(self._registry, repository, image, entries, kind)
            except (DocumentInvalid, NixfrontError) as error:
                troubles.append(f"The document {kind.file} is broken: {_sentence(error)}.")
            else:
                if attached is not None:
                    attached_by_kind[kind] = attached
        materials, said = await self._materials(repository, attached_by_kind)
        origin, more = await self._origin(repository, image, attached_by_kind)
        return Section(tuple(attached_by_kind.values()), materials, origin, signed, (*troubles, *said, *more))

    async def _materials(
        self, repository: str, attached_by_kind: Mapping[Kind, Attached]
    ) -> tuple[Materials | None, Sequence[str]]:
        """The components by the first bill of materials that can be read, and why each one before it cannot."""
        troubles: list[str] = []
        for kind in (CYCLONEDX, SPDX):
            if kind in attached_by_kind:
                try:
                    data = await self._small(repository, attached_by_kind[kind])
                    return await asyncio.to_thread(readers.materials_of, kind, data), troubles
                except (DocumentInvalid, NixfrontError) as error:
                    troubles.append(_unreadable(kind, error))
        return None, troubles

    async def _origin(
        self, repository: str, image: str, attached_by_kind: Mapping[Kind, Attached]
    ) -> tuple[Origin | None, Sequence[str]]:
        if PROVENANCE not in attached_by_kind:
            return None, ()
        try:
            data = await self._small(repository, attached_by_kind[PROVENANCE])
            return await asyncio.to_thread(readers.origin_of, data, image), ()
        except (DocumentInvalid, NixfrontError) as error:
            return None, (_unreadable(PROVENANCE, error),)

    async def _small(self, repository: str, attached: Attached) -> bytes:
        """A document that is small enough to be parsed."""
        return await reading.read(self._registry, repository, attached, LARGEST_DOCUMENT)

    async def _signed(self, repository: str, image: str) -> Signed:
        """Who signed it. The signature itself decides whether it is ours, and no annotation: it is the same each time."""
        there = await self._registry.manifest(repository, signature_tag(image))
        if there is None:
            return Signed.NO
        try:
            if not (await asyncio.to_thread(Signatures.read, there)).layers:
                return Signed.NO
            if self._signer is None:
                return Signed.BY_OTHERS
            lacking = await asyncio.to_thread(self._signer.add, repository, image, there)
        except DocumentInvalid:
            return Signed.BROKEN
        return Signed.BY_OTHERS if lacking else Signed.BY_US


def _unreadable(kind: Kind, error: Exception) -> str:
    return f"The page cannot show {kind.file}: {_sentence(error)}."


def _sentence(error: Exception) -> str:
    return "the registry is too slow" if isinstance(error, TimeoutError) else str(error)
