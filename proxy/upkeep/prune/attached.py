"""Deletes what nixfront attached to an image that is gone: its documents, their lines in the list of referrers, its signatures.

Anybody who may push can write that list, and what stands under the tags of an image. So a line of it is only a claim, and a
registry deletes a manifest with every tag that names it. A document goes if its own manifest says that it is nixfront's and
about this image, and if nothing else names it. What somebody else attached stays, with its line.
"""

from proxy.core.errors import DigestMismatch, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import digest_of
from proxy.core.names import referrers_tag
from proxy.pipeline.attachments import referrers
from proxy.registry.client import Registry
from proxy.registry.management import Management
from proxy.state import State
from proxy.trust import kinds
from proxy.trust.signatures import Signatures, signature_tag
from proxy.upkeep.prune.contents import Contents


class AttachmentDeleter:
    """Deletes what nixfront attached to the images of one registry."""

    def __init__(self, registry: Registry, management: Management, state: State) -> None:
        self._registry = registry
        self._management = management
        self._state = state

    async def delete(self, repository: str, image: str, contents: Contents) -> None:
        """Delete what nixfront attached to the image with this digest. Raises `RegistryUnavailable`, `RegistryRefused`."""
        await self._delete_signatures(repository, image, contents)
        async with referrers.lease(self._state, repository, image):
            await self._delete_documents(repository, image, contents)

    async def _delete_signatures(self, repository: str, image: str, contents: Contents) -> None:
        tag = signature_tag(image)
        there = await self._registry.manifest(repository, tag)
        if there is None or contents.is_named(digest_of(there), but=tag):
            return
        try:
            are_ours = Signatures.read(there).are_ours_alone
        except DocumentInvalid:
            return
        if are_ours:
            await self._management.delete(repository, digest_of(there))

    async def _delete_documents(self, repository: str, image: str, contents: Contents) -> None:
        tag = referrers_tag(image)
        try:
            listed = await referrers.listed(self._registry, repository, image)
            there = await referrers.tagged(self._registry, repository, image)
        except DocumentInvalid:  # somebody wrote something else there
            return
        claimed = {str(entry["digest"]) for entry in (*listed, *there) if referrers.claims_ours(entry)}
        gone = {
            each
            for each in claimed
            if not contents.is_named(each, but=tag) and await self._is_ours(repository, each, image)
        }
        left = [entry for entry in there if entry["digest"] not in gone]
        if len(left) < len(there):
            index = await self._registry.manifest_digest(repository, tag)
            if left or index is None or contents.is_named(index, but=tag):
                await referrers.put(self._registry, repository, image, left)
            else:
                await self._management.delete(repository, index)
        for each in sorted(gone):
            await self._management.delete(repository, each)

    async def _is_ours(self, repository: str, digest: str, image: str) -> bool:
        """Whether this manifest is a document of nixfront's about the image."""
        try:
            return kinds.is_document(await self._registry.content(repository, "manifests", digest), image)
        except (RegistryRefused, DigestMismatch):
            return False
