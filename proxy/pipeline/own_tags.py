"""The tags that are ours: which ones, and how they are put.

A tag is ours while it names the digest of our record. Labels would prove nothing, because an image that somebody builds
from ours inherits them. A tag that is not ours is never written. A registry has no conditional put, so the puts of an image come
right after one look at all its tags, and the last one after another look: a person's push could be lost only in the few milliseconds
between.

A record is written before its manifest is put, so that no tag of ours is forgotten if nixfront is killed in between.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from proxy.core.errors import DigestLost
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import Document, canonical_json
from proxy.core.names import is_own_hash
from proxy.image.documents import INDEX_TYPES
from proxy.pipeline.destination import Destination
from proxy.pipeline.keys import changed
from proxy.pipeline.tag_versions import TagVersions
from proxy.state import ImageRecord, State, TagRecord
from proxy.trust.signatures import Signer, signature_tag

_log = logging.getLogger(__name__)


class OwnTags:
    """Our tags in one registry."""

    def __init__(
        self,
        registry: Destination,
        state: State,
        now: Callable[[], float] = time.time,
        signer: Signer | None = None,
        *,
        attaches: bool = False,
    ) -> None:
        """`now` is in seconds since the epoch. With a `signer` each image has its signature before a tag names it.

        `attaches`: documents are due to each image from the moment in which it is put.
        """
        #: Grow with every tag that is put here.
        self.versions = TagVersions()
        self._registry = registry
        self._state = state
        self._now = now
        self._signer = signer
        self._attaches = attaches

    async def put(
        self,
        repository: str,
        document: Document,
        tags: Sequence[str],
        key: str,
        record: TagRecord | None = None,
        children: Sequence[Document] = (),
        *,
        longer: Mapping[str, str] | None = None,
        may_change: bool = False,
    ) -> None:
        """Put the manifest or index under these tags, the last one after the others.

        A tag that is there stays as it is, except the one of `record`, which moves if it is still ours. Where it names
        another manifest and `longer` has a tag for it, that one is put. `key` is of the image.
        `children`: the manifests that an index names; they come before it, because a registry refuses it without.
        `may_change`: whether each of these tags moves, even a revision.
        """
        digest = document.descriptor.digest

        async def claim(*names: str) -> list[str]:
            """Those of these tags that nobody has, and the longer ones of those that others have. They are recorded as ours."""
            looks = await asyncio.gather(
                *(self._registry.manifest_digest(repository, name) for name in names)
            )
            present = dict(zip(names, looks, strict=True))
            absent = [name for name in names if present[name] is None]
            await self._state.record_tag(
                *(
                    TagRecord(
                        repository, name, digest, key, self._now(), moving=may_change or not is_own_hash(name)
                    )
                    for name in absent
                )
            )
            other = [name for name in names if present[name] not in (None, digest)]
            if longer is not None and (taken := [longer[name] for name in other if name in longer]):
                absent += await claim(*taken)
            return absent

        for each in (*children, document):
            await self.sign(repository, each.descriptor.digest)
        await asyncio.gather(*(self._put(repository, each.descriptor.digest, each) for each in children))
        ours = await claim(*(name for name in tags if record is None or name != record.tag))
        is_free, *_ = await asyncio.gather(
            self._is_free(repository, tags[-1], digest, is_claimed=tags[-1] in ours),
            *(self._put(repository, name, document) for name in ours if name != tags[-1]),
        )
        if is_free:
            await self._put(repository, tags[-1], document)
        if record is not None and record.tag in tags:
            await self._move(record, document, key)

    async def _is_free(self, repository: str, tag: str, digest: str, *, is_claimed: bool) -> bool:
        """Whether still nobody has a tag that we claimed for this digest. What a person pushed meanwhile is no tag of ours."""
        if not is_claimed:
            return False
        present = await self._registry.manifest_digest(repository, tag)
        if present not in (None, digest):
            _log.info("somebody pushed the tag meanwhile image=%s:%s", repository, tag)
            await self._state.forget_tag(repository, tag)
        return present is None

    async def remember(
        self, repository: str, document: Document, revision: str, settings: Mapping[str, str | int]
    ) -> None:
        """Record how this image or index is made, before it is put. An index gets no documents."""
        words, now = canonical_json(settings).decode(), self._now()
        due = now if self._attaches and document.descriptor.media_type not in INDEX_TYPES else 0.0
        await self._state.record_image(
            ImageRecord(
                repository, document.descriptor.digest, now, revision=revision, settings=words, due=due
            )
        )

    async def heal(
        self,
        repository: str,
        digest: str,
        document: Document,
        revision: str,
        settings: Mapping[str, str | int],
        children: Sequence[Document] = (),
    ) -> None:
        """Put the manifest or index with this digest again, under no tag; an index after its `children`.

        Raises `DigestLost` if none of them has this digest.
        """
        documents = (*children, document)
        if digest != document.descriptor.digest:
            documents = tuple(each for each in children if each.descriptor.digest == digest)
        if not documents:
            record = await self._state.recall_image(repository, digest)
            reasons = changed(record.settings if record else "", settings)
            why = ": ".join(["this host makes another image of the same revision now", *reasons[:1]])
            raise DigestLost(lost(repository, digest, "; ".join([why, *reasons[1:]])))
        for each in documents:
            await self.remember(repository, each, revision, settings)
            await self.sign(repository, each.descriptor.digest)
            await self._put(repository, each.descriptor.digest, each)

    async def sign(self, repository: str, digest: str) -> bool:
        """Put the signature of this manifest beside it. False if it is there, if there is no key, or if it cannot be put.

        So who sees a tag sees its signature. Something else under the tag of signatures stays, and the log says so.
        """
        if self._signer is None:
            return False
        tag = signature_tag(digest)
        try:
            there = await self._registry.manifest(repository, tag)
            signed = self._signer.add(repository, digest, there)
        except DocumentInvalid as error:
            _log.warning("cannot sign image=%s@%s error=%s", repository, digest, error)
            return False
        if signed is None:
            return False
        for data in (signed.payload, signed.image.config):
            await self._registry.put_blob(repository, data)
        await self._put(repository, tag, signed.image.document)
        return True

    async def _move(self, record: TagRecord, document: Document, key: str) -> None:
        """Let a tag name this manifest, unless a person has pushed to it meanwhile."""
        present = await self.present(record)
        if present is None:
            return
        digest = document.descriptor.digest
        moved = replace(record, digest=digest, key=key, checked=self._now(), replaced="")
        if present != digest:
            await self._state.record_tag(replace(moved, replaced=present))
            await self._put(record.repository, record.tag, document)
        await self._state.record_tag(moved)

    async def present(self, record: TagRecord) -> str | None:
        """The digest that our tag names now. None if the tag is not ours any more; then its record is deleted."""
        present = await self._registry.manifest_digest(record.repository, record.tag)
        if present is not None and present in (record.digest, record.replaced):
            return present
        _log.info("tag is not ours any more image=%s:%s", record.repository, record.tag)
        await self._state.forget_tag(record.repository, record.tag)
        return None

    async def confirm(self, record: TagRecord) -> None:
        """Record that the tag names the right image now."""
        await self._state.record_tag(replace(record, checked=self._now()))

    async def _put(self, repository: str, reference: str, document: Document) -> None:
        media_type = document.descriptor.media_type
        with self.versions.write(repository):
            await self._registry.put_manifest(repository, reference, media_type, document.data)


def lost(repository: str, digest: str, reason: str) -> str:
    """The message for an image of ours that the registry lost and that this host cannot make again."""
    return f"the registry lost {repository}@{digest}, and this host cannot make it again: {reason}"
