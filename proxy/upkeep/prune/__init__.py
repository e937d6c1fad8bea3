"""Find and delete old images: those that nixfront built, that nobody pulled for long, and that nothing else needs.

A registry deletes a manifest by its digest, and with it every tag of the repository that names it. So an image stays if
somebody else's tag or an index names it. The registry's own garbage collection deletes the blobs that no manifest needs. The
documents of an image go with it, and signatures where nixfront made all of them.

An index of ours and the images of its platforms are one: a pull of one of them keeps all. The index goes first.

Anybody who may push can push indexes in indexes, and documents that are none. Where nixfront cannot find out all that the
indexes of a repository need, it deletes nothing there, and says why.
"""

import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass

from proxy.core.errors import RegistryRefused
from proxy.registry.client import Registry
from proxy.registry.management import Management
from proxy.state import ImageRecord, State
from proxy.upkeep.inventory import Inventory
from proxy.upkeep.prune.attached import AttachmentDeleter
from proxy.upkeep.prune.contents import MOST_DOCUMENTS, Contents, ContentsReader
from proxy.upkeep.reindex import remembered

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Old:
    """An image that nixfront built, last pulled or built at the time `used`. `kept`: why it must stay, or empty."""

    repository: str
    digest: str
    tags: tuple[str, ...]
    used: float
    kept: str = ""


class Pruner:
    """Compares one registry with the records of one state."""

    def __init__(self, registry: Registry, management: Management, state: State) -> None:
        self._registry = registry
        self._management = management
        self._state = state
        self._contents = ContentsReader(registry, management)
        self._attached = AttachmentDeleter(registry, management, state)

    async def old(self, before: float) -> list[Old]:
        """Every image of the state that was last used before this time, including those that must stay.

        Raises `RegistryUnavailable`, `RegistryRefused`.
        """
        old = []
        async for repository, images in self._repositories():
            if any(max(image.made, image.pulled) < before for image in images):
                contents = await self._contents.read(repository, [image.digest for image in images])
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

    async def prune(self, old: Old, *, keep_record: bool = False) -> Old:
        """Delete the image, unless somebody has meanwhile pushed something that needs it: then `kept` of the result says so.

        `keep_record`: who asks for its digest later gets it again. Raises `RegistryUnavailable`.
        """
        repository, digest = old.repository, old.digest
        records = await self._state.newest_images(repository, MOST_DOCUMENTS)
        contents = await self._contents.read(repository, [record.digest for record in records])
        ours = {record.tag: record.digest for record in await self._state.tags(repository)}
        judged = _judge(ImageRecord(repository, digest, old.used), contents, ours)
        if judged.kept:
            return judged
        await self._management.delete(repository, digest)
        # At once, so that no record names what is gone if nixfront is killed now.
        for tag, named in ours.items():
            if named == digest:
                await self._state.forget_tag(repository, tag)
        if keep_record:
            await self._state.retire_image(repository, digest, time.time())
        else:
            await self._state.forget_image(repository, digest)
        try:
            await self._attached.delete(repository, digest, contents)
        except RegistryRefused as error:
            _log.warning("what is attached to an image stays image=%s@%s error=%s", repository, digest, error)
        return judged

    async def frees(self, gone: Collection[Old]) -> int | None:
        """The bytes of layers that the registry's garbage collection can delete once these images are gone; None: nobody knows."""
        management = self._management
        names = None if await management.has_catalog() else remembered(self._state)
        images = {(old.repository, old.digest) for old in gone}
        return await Inventory(self._registry, self._state).only_in(images, management.images(names))


def _judge_all(
    images: Sequence[ImageRecord], contents: Contents, ours: Mapping[str, str], before: float
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
    image: ImageRecord, contents: Contents, ours: Mapping[str, str], going: Collection[str] = ()
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
