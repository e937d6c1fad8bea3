"""Which images may go: ours alone, not pulled for long, and needed by nothing else.

An image goes as a whole: a registry deletes a manifest by its digest, and every tag in the repository that names it with
it. So one that a single tag names which is not ours stays, and so does one that an index names. Blobs are the
registry's own garbage collection's; it knows what the manifests that are left need.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.core.model import DOCKER_LIST, OCI_INDEX
from proxy.registry.client import Registry
from proxy.state import ImageRecord, State

_INDEXES = (DOCKER_LIST, OCI_INDEX)

#: The tags of a repository.
Tags = Callable[[str], Awaitable[Sequence[str]]]
#: Deletes a manifest, and every tag that names it; False if it was not there.
Delete = Callable[[str, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Old:
    """An image of ours that was last pulled (or made) at `used`, with its `tags`; `kept` says why it stays, if it does."""

    repository: str
    digest: str
    tags: tuple[str, ...]
    used: float
    kept: str = ""


@dataclass(slots=True)
class _Repository:
    """Which digest each tag names, and what the indexes of a repository name."""

    tags: dict[str, str] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)  # digest -> the tag of the index


class Pruner:
    """Looks at one registry with what one state remembers."""

    def __init__(self, registry: Registry, state: State, tags: Tags, delete: Delete) -> None:
        """`tags` and `delete` are the registry's management side."""
        self._registry = registry
        self._state = state
        self._tags = tags
        self._delete = delete

    async def old(self, before: float) -> list[Old]:
        """Every image of ours that was last used before this, those that have to stay too.

        Raises `RegistryUnavailable`, `RegistryRefused`.
        """
        by_repository: dict[str, list[ImageRecord]] = {}
        async for image in self._state.images():
            if max(image.made, image.pulled) < before:
                by_repository.setdefault(image.repository, []).append(image)
        found = []
        for repository, images in sorted(by_repository.items()):
            there = await self._look(repository)
            ours = {record.tag: record.digest for record in await self._state.tags(repository)}
            found += [self._judge(image, there, ours) for image in images]
        return found

    async def prune(self, old: Old) -> bool:
        """Delete it, unless somebody has pushed something since that needs it; whether it is gone."""
        there = await self._look(old.repository)
        ours = {record.tag: record.digest for record in await self._state.tags(old.repository)}
        if self._judge(ImageRecord(old.repository, old.digest, old.used), there, ours).kept:
            return False
        await self._delete(old.repository, old.digest)
        for tag, digest in ours.items():
            if digest == old.digest:
                await self._state.forget_tag(old.repository, tag)
        await self._state.forget_image(old.repository, old.digest)
        return True

    def _judge(self, image: ImageRecord, there: _Repository, ours: Mapping[str, str]) -> Old:
        tags = tuple(tag for tag, digest in sorted(there.tags.items()) if digest == image.digest)
        foreign = [tag for tag in tags if ours.get(tag) != image.digest]
        kept = ""
        if foreign:
            kept = f"tag {foreign[0]} is not ours"
        elif image.digest in there.children:
            kept = f"index {there.children[image.digest]} needs it"
        return Old(image.repository, image.digest, tags, max(image.made, image.pulled), kept)

    async def _look(self, repository: str) -> _Repository:
        found = _Repository()
        for tag in await self._tags(repository):
            digest = await self._registry.manifest_digest(repository, tag)
            if digest is not None:
                found.tags[tag] = digest
                await self._children(repository, digest, tag, found)
        return found

    async def _children(self, repository: str, digest: str, tag: str, found: _Repository) -> None:
        """Note what an index names, and the indexes that it names; nothing for a manifest of another kind."""
        if digest in found.children.values():
            return
        document = json.loads(await self._registry.content(repository, "manifests", digest))
        if document.get("mediaType") not in _INDEXES and "manifests" not in document:
            return
        for child in document.get("manifests", ()):
            if child["digest"] not in found.children:
                found.children[child["digest"]] = tag
                if child.get("mediaType") in _INDEXES:
                    await self._children(repository, child["digest"], tag, found)
