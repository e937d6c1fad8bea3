"""Find and delete old images: those that nixfront built, that nobody pulled for long, and that nothing else needs.

A registry deletes a manifest by its digest, and with it every tag of the repository that names it. So an image stays if
somebody else's tag or an index names it. The registry's own garbage collection deletes the blobs that no manifest needs.
Signatures go with their image where nixfront made all of them.

Anybody who may push can push indexes in indexes, and documents that are none. Where nixfront cannot find out all that the
indexes of a repository need, it deletes nothing there, and says why.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from proxy.core.errors import DigestMismatch, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import digest_of
from proxy.image.documents import Index, Manifest, read_manifest
from proxy.registry.client import Registry
from proxy.registry.management import Management
from proxy.state import ImageRecord, State
from proxy.trust.signatures import Signatures, signature_tag
from proxy.upkeep.inventory import Inventory
from proxy.upkeep.reindex import remembered

_MOST_LEVELS = 8  # of indexes in indexes; engines read one or two
_MOST_DOCUMENTS = 10_000  # manifests of one repository that nixfront reads


@dataclass(frozen=True, slots=True)
class Old:
    """An image that nixfront built, last pulled or built at the time `used`. `kept`: why it must stay, or empty."""

    repository: str
    digest: str
    tags: tuple[str, ...]
    used: float
    kept: str = ""


@dataclass(slots=True)
class _Repository:
    """The digest of each tag of a repository, and the manifests that its indexes name.

    `obscure`: why the indexes may need more manifests than these; empty if they do not.
    """

    tags: dict[str, str] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)  # digest -> the tag of the index
    read: set[str] = field(default_factory=set)
    obscure: str = ""


class Pruner:
    """Compares one registry with the records of one state."""

    def __init__(self, registry: Registry, management: Management, state: State) -> None:
        self._registry = registry
        self._management = management
        self._state = state

    async def old(self, before: float) -> list[Old]:
        """Every image of the state that was last used before this time, including those that must stay.

        Raises `RegistryUnavailable`, `RegistryRefused`.
        """
        by_repository: dict[str, list[ImageRecord]] = {}
        async for image in self._state.images():
            if max(image.made, image.pulled) < before:
                by_repository.setdefault(image.repository, []).append(image)
        old = []
        for repository, images in sorted(by_repository.items()):
            contents = await self._read(repository)
            ours = {record.tag: record.digest for record in await self._state.tags(repository)}
            old += [self._judge(image, contents, ours) for image in images]
        return old

    async def prune(self, old: Old, *, keep_record: bool = False) -> bool:
        """Delete the image, unless somebody has meanwhile pushed something that needs it. Returns whether it is gone.

        `keep_record`: who asks for its digest later gets it again.
        """
        contents = await self._read(old.repository)
        ours = {record.tag: record.digest for record in await self._state.tags(old.repository)}
        if self._judge(ImageRecord(old.repository, old.digest, old.used), contents, ours).kept:
            return False
        await self._management.delete(old.repository, old.digest)
        await self._delete_signatures(old.repository, old.digest)
        for tag, digest in ours.items():
            if digest == old.digest:
                await self._state.forget_tag(old.repository, tag)
        if keep_record:
            await self._state.retire_image(old.repository, old.digest, time.time())
        else:
            await self._state.forget_image(old.repository, old.digest)
        return True

    async def _delete_signatures(self, repository: str, digest: str) -> None:
        """Delete the signatures of an image that is gone, if nixfront made all of them."""
        there = await self._registry.manifest(repository, signature_tag(digest))
        if there is None:
            return
        try:
            are_ours = Signatures.read(there).are_ours_alone
        except DocumentInvalid:
            return
        if are_ours:
            await self._management.delete(repository, digest_of(there))

    async def frees(self, gone: Collection[Old]) -> int:
        """The bytes of layers that the registry's garbage collection can delete once these images are gone."""
        management = self._management
        names = None if await management.has_catalog() else remembered(self._state)
        images = {(old.repository, old.digest) for old in gone}
        return await Inventory(self._registry, self._state).only_in(images, management.images(names))

    def _judge(self, image: ImageRecord, contents: _Repository, ours: Mapping[str, str]) -> Old:
        tags = tuple(tag for tag, digest in sorted(contents.tags.items()) if digest == image.digest)
        foreign = [tag for tag in tags if ours.get(tag) != image.digest]
        kept = ""
        if foreign:
            kept = f"tag {foreign[0]} is not ours"
        elif image.digest in contents.children:
            kept = f"index {contents.children[image.digest]} needs it"
        elif contents.obscure:
            kept = contents.obscure
        return Old(image.repository, image.digest, tags, max(image.made, image.pulled), kept)

    async def _read(self, repository: str) -> _Repository:
        contents = _Repository()
        for tag in await self._management.tags(repository):
            digest = await self._registry.manifest_digest(repository, tag)
            if digest is not None:
                contents.tags[tag] = digest
                if not contents.obscure:
                    contents.obscure = await self._add_children(repository, digest, tag, contents)
        return contents

    async def _add_children(self, repository: str, digest: str, tag: str, contents: _Repository) -> str:
        """Add the manifests that the index with this digest names, and those of the indexes in it.

        Adds nothing for another manifest. Returns why it did not read all of them, or an empty text.
        """
        level = {digest}
        for _ in range(_MOST_LEVELS):
            below: set[str] = set()
            for each in level - contents.read:
                contents.read.add(each)
                if len(contents.read) > _MOST_DOCUMENTS:
                    return f"nixfront reads at most {_MOST_DOCUMENTS} manifests of a repository"
                try:
                    manifest = await self._manifest(repository, each)
                except (DocumentInvalid, DigestMismatch, RegistryRefused) as error:
                    return f"nixfront cannot read what tag {tag} needs: {error}"
                if not isinstance(manifest, Index):
                    continue
                for child in manifest.children:
                    contents.children.setdefault(child.digest, tag)
                below |= {child.digest for child in manifest.children if child.is_index}
            if not below:
                return ""
            level = below
        return f"tag {tag} has more than {_MOST_LEVELS} levels of indexes"

    async def _manifest(self, repository: str, digest: str) -> Manifest | None:
        """The manifest with this digest; None if the repository no longer has it."""
        try:
            return read_manifest(await self._registry.content(repository, "manifests", digest))
        except RegistryRefused as error:
            if error.status == 404:
                return None
            raise
