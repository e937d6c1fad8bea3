"""Which tags are ours, and putting them.

A tag is ours while the registry names the digest that our record names. Labels would prove nothing: an image that
somebody builds from ours inherits them. What is not ours is never written to. A registry knows no conditional put: between
our last look and the put there is one request's time in which a person's push could be lost, and no more.

A record is written before its manifest is put, so that no tag of ours is forgotten when we are killed in between.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from proxy.core.model import Image
from proxy.core.names import is_revision
from proxy.pipeline.destination import Destination
from proxy.pipeline.tag_versions import TagVersions
from proxy.state import State, TagRecord

_log = logging.getLogger(__name__)
_HASH_OF_OUTPUTS = re.compile(r"[0-9a-f]{32}")


class OwnTags:
    """The tags of one registry that we put there."""

    def __init__(self, registry: Destination, state: State, now: Callable[[], float] = time.time) -> None:
        """`now` is in seconds since the epoch."""
        #: Grow with every tag that is put here.
        self.versions = TagVersions()
        self._registry = registry
        self._state = state
        self._now = now

    async def put(
        self,
        repository: str,
        image: Image,
        tags: Sequence[str],
        key: str,
        renewed: TagRecord | None = None,
    ) -> None:
        """Put the manifest under these tags, the last one after the others; none that is there is touched, but the
        one that is `renewed`.

        `key`: of what the image was made from.
        """

        async def one(tag: str) -> None:
            if renewed is not None and tag == renewed.tag:
                await self._move(renewed, image, key)
            elif await self._registry.manifest_digest(repository, tag) is None:
                digest = image.manifest_descriptor.digest
                moving = not (is_revision(tag) or _HASH_OF_OUTPUTS.fullmatch(tag))
                record = TagRecord(repository, tag, digest, key, self._now(), moving=moving)
                await self._state.record_tag(record)
                await self._put(repository, tag, image)

        *others, last = tags
        await asyncio.gather(*map(one, others))
        await one(last)

    async def _move(self, record: TagRecord, image: Image, key: str) -> None:
        """Let a tag name this manifest from now on, unless it is not ours any more: a person may have pushed meanwhile."""
        present = await self.present(record)
        if present is None:
            return
        digest = image.manifest_descriptor.digest
        moved = replace(record, digest=digest, key=key, checked=self._now(), replaced="")
        if present != digest:
            await self._state.record_tag(replace(moved, replaced=present))
            await self._put(record.repository, record.tag, image)
        await self._state.record_tag(moved)

    async def present(self, record: TagRecord) -> str | None:
        """The digest that a tag of ours names now; None if the tag is not ours (any more), and then forgotten."""
        present = await self._registry.manifest_digest(record.repository, record.tag)
        if present is not None and present in (record.digest, record.replaced):
            return present
        _log.info("tag is not ours any more image=%s:%s", record.repository, record.tag)
        await self._state.forget_tag(record.repository, record.tag)
        return None

    async def checked(self, record: TagRecord) -> None:
        """The tag still means what it names."""
        await self._state.record_tag(replace(record, checked=self._now()))

    async def _put(self, repository: str, tag: str, image: Image) -> None:
        media_type = image.manifest_descriptor.media_type
        with self.versions.write(repository):
            await self._registry.put_manifest(repository, tag, media_type, image.manifest)
