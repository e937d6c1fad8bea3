"""Find and delete old images: those that nixfront built, that nobody pulled for long, and that nothing else needs.

A registry deletes a manifest by its digest, and with it every tag of the repository that names it. So an image stays if
somebody else's tag or an index names it. The registry's own garbage collection deletes the blobs that no manifest needs. The
documents of an image go with it, and signatures where nixfront made all of them.

An index of ours and the images of its platforms are one: a pull of one of them keeps all. The index goes first.

Anybody who may push can push indexes in indexes, and documents that are none. Where nixfront cannot find out all that the
indexes of a repository need, it deletes nothing there, and says why.
"""

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.core.errors import DigestMismatch, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import digest_of
from proxy.core.names import referrers_tag
from proxy.image.documents import Index, Manifest, read_manifest
from proxy.pipeline.attachments import referrers
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
    """The digest of each tag of a repository, and the indexes that name each manifest, by digest, with a name for people.

    `obscure`: why the indexes may need more manifests than these; empty if they do not.
    """

    tags: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)  # manifest -> index -> its tag or digest
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
        old = []
        async for repository, images in self._repositories():
            if any(max(image.made, image.pulled) < before for image in images):
                contents = await self._read(repository, images)
                ours = {record.tag: record.digest for record in await self._state.tags(repository)}
                old += _judge_all(images, contents, ours, before)
        return old

    async def _repositories(self) -> AsyncIterator[tuple[str, list[ImageRecord]]]:
        """The images of the state by repository."""
        repository, images = "", list[ImageRecord]()
        async for image in self._state.images():
            if image.repository != repository and images:
                yield repository, images
                images = []
            repository = image.repository
            images.append(image)
        if images:
            yield repository, images

    async def prune(self, old: Old, *, keep_record: bool = False) -> bool:
        """Delete the image, unless somebody has meanwhile pushed something that needs it. Returns whether it is gone.

        `keep_record`: who asks for its digest later gets it again.
        """
        records = await self._state.newest_images(old.repository, _MOST_DOCUMENTS)
        contents = await self._read(old.repository, records)
        ours = {record.tag: record.digest for record in await self._state.tags(old.repository)}
        if _judge(ImageRecord(old.repository, old.digest, old.used), contents, ours).kept:
            return False
        await self._management.delete(old.repository, old.digest)
        await self._delete_signatures(old.repository, old.digest)
        await self._delete_documents(old.repository, old.digest)
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

    async def _delete_documents(self, repository: str, digest: str) -> None:
        """Delete the documents of an image that is gone, and their lines in the list of its referrers.

        What somebody else attached stays, with its line.
        """
        try:
            own = referrers.ours(await referrers.listed(self._registry, repository, digest))
            there = await referrers.tagged(self._registry, repository, digest)
        except DocumentInvalid:  # somebody wrote something else there
            return
        gone = {str(entry["digest"]) for entry in own.values()}
        left = [entry for entry in there if entry["digest"] not in gone]
        tag = referrers_tag(digest)
        if left and len(left) < len(there):
            await referrers.put(self._registry, repository, digest, left)
        elif there and not left and (index := await self._registry.manifest_digest(repository, tag)):
            await self._management.delete(repository, index)
        for each in sorted(gone):
            await self._management.delete(repository, each)

    async def _read(self, repository: str, ours: Sequence[ImageRecord]) -> _Repository:
        """The tags of the repository, and what their indexes and those among our images need."""
        contents = _Repository()
        for tag in await self._management.tags(repository):
            digest = await self._registry.manifest_digest(repository, tag)
            if digest is not None:
                contents.tags[tag] = digest
                if not contents.obscure:
                    contents.obscure = await self._add_children(repository, digest, tag, contents)
        for digest in {record.digest for record in ours} - contents.read:
            if not contents.obscure:
                contents.obscure = await self._add_children(repository, digest, digest[:19], contents)
        return contents

    async def _add_children(self, repository: str, digest: str, tag: str, contents: _Repository) -> str:
        """Add the manifests that the index with this digest names, and those of the indexes in it.

        Adds nothing for another manifest. Returns why it did not read all of them, or an empty text. `tag` names the index.
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
                    contents.indexes.setdefault(child.digest, {}).setdefault(digest, tag)
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


def _judge_all(
    images: Sequence[ImageRecord], contents: _Repository, ours: Mapping[str, str], before: float
) -> list[Old]:
    """The images of ours that nobody used since `before`, each index before the images that it names."""
    used = {image.digest: max(image.made, image.pulled) for image in images}
    for manifest, indexes in contents.indexes.items():  # up to the index, then down again
        for index in indexes.keys() & used.keys():
            used[index] = max(used[index], used.get(manifest, 0.0))
    for manifest, indexes in contents.indexes.items():
        for index in indexes.keys() & used.keys():
            used[manifest] = max(used.get(manifest, 0.0), used[index])
    old: list[Old] = []
    for image in sorted(images, key=lambda image: (image.digest in contents.indexes, image.digest)):
        if used[image.digest] < before:
            record = ImageRecord(image.repository, image.digest, used[image.digest])
            going = {each.digest for each in old if not each.kept}
            old.append(_judge(record, contents, ours, going))
    return old


def _judge(
    image: ImageRecord, contents: _Repository, ours: Mapping[str, str], going: Collection[str] = ()
) -> Old:
    """The image, and why it stays; `going` are the indexes that are deleted before."""
    tags = tuple(tag for tag, digest in sorted(contents.tags.items()) if digest == image.digest)
    foreign = [tag for tag in tags if ours.get(tag) != image.digest]
    indexes = contents.indexes.get(image.digest, {})
    needing = [name for index, name in indexes.items() if index not in going]
    kept = ""
    if foreign:
        kept = f"tag {foreign[0]} is not ours"
    elif needing:
        kept = f"index {needing[0]} needs it"
    elif contents.obscure:
        kept = contents.obscure
    return Old(image.repository, image.digest, tags, max(image.made, image.pulled), kept)
