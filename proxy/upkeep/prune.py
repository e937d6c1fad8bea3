"""Find and delete old images: those that nixfront built, that nobody pulled for long, and that nothing else needs.

A registry deletes a manifest by its digest, and with it every tag of the repository that names it. So an image stays if
somebody else's tag or an index names it. The registry's own garbage collection deletes the blobs that no manifest needs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.core.model import DOCKER_LIST, OCI_INDEX
from proxy.registry.client import Registry
from proxy.registry.management import Management
from proxy.state import ImageRecord, State

_INDEXES = (DOCKER_LIST, OCI_INDEX)


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
    """The digest of each tag of a repository, and the manifests that its indexes name."""

    tags: dict[str, str] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)  # digest -> the tag of the index


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

    async def prune(self, old: Old) -> bool:
        """Delete the image, unless somebody has meanwhile pushed something that needs it. Returns whether it is gone."""
        contents = await self._read(old.repository)
        ours = {record.tag: record.digest for record in await self._state.tags(old.repository)}
        if self._judge(ImageRecord(old.repository, old.digest, old.used), contents, ours).kept:
            return False
        await self._management.delete(old.repository, old.digest)
        for tag, digest in ours.items():
            if digest == old.digest:
                await self._state.forget_tag(old.repository, tag)
        await self._state.forget_image(old.repository, old.digest)
        return True

    def _judge(self, image: ImageRecord, contents: _Repository, ours: Mapping[str, str]) -> Old:
        tags = tuple(tag for tag, digest in sorted(contents.tags.items()) if digest == image.digest)
        foreign = [tag for tag in tags if ours.get(tag) != image.digest]
        kept = ""
        if foreign:
            kept = f"tag {foreign[0]} is not ours"
        elif image.digest in contents.children:
            kept = f"index {contents.children[image.digest]} needs it"
        return Old(image.repository, image.digest, tags, max(image.made, image.pulled), kept)

    async def _read(self, repository: str) -> _Repository:
        contents = _Repository()
        for tag in await self._management.tags(repository):
            digest = await self._registry.manifest_digest(repository, tag)
            if digest is not None:
                contents.tags[tag] = digest
                await self._add_children(repository, digest, tag, contents)
        return contents

    async def _add_children(self, repository: str, digest: str, tag: str, contents: _Repository) -> None:
        """Add the manifests that an index names, and those of the indexes in it. Adds nothing for another manifest."""
        if digest in contents.children.values():
            return
        document = json.loads(await self._registry.content(repository, "manifests", digest))
        if document.get("mediaType") not in _INDEXES and "manifests" not in document:
            return
        for child in document.get("manifests", ()):
            if child["digest"] not in contents.children:
                contents.children[child["digest"]] = tag
                if child.get("mediaType") in _INDEXES:
                    await self._add_children(repository, child["digest"], tag, contents)
