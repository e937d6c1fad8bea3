"""What a repository holds as `prune` needs it: the digest of each tag, and the indexes that name each manifest.

Anybody who may push can push indexes in indexes, and documents that are none. Where nixfront cannot find out all that the
indexes of a repository need, `obscure` says why.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cachetools import LRUCache

from proxy.core.errors import DigestMismatch, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.image.documents import Child, Index, read_manifest
from proxy.registry.client import Registry
from proxy.registry.management import Management

#: Manifests of one repository that nixfront reads.
MOST_DOCUMENTS = 10_000
_MOST_LEVELS = 8  # of indexes in indexes; engines read one or two


@dataclass(slots=True)
class Contents:
    """The digest of each tag of a repository, and the indexes that name each manifest, by digest, with a name for people.

    `obscure`: why the indexes may need more manifests than these; empty if they do not.
    """

    tags: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)  # manifest -> index -> its tag or digest
    read: set[str] = field(default_factory=set)
    obscure: str = ""

    def is_named(self, digest: str, *, but: str) -> bool:
        """Whether another tag than `but` names this manifest, or another index than the one under `but`."""
        tags = {tag for tag, named in self.tags.items() if named == digest} - {but}
        indexes = set(self.indexes.get(digest, {}))
        own = self.tags.get(but, "")
        if own in indexes and not self.is_named(own, but=but):
            indexes.remove(own)
        return bool(tags or indexes)


class ContentsReader:
    """Reads the contents of repositories. A manifest is read once, because its digest names its bytes for ever."""

    def __init__(self, registry: Registry, management: Management) -> None:
        self._registry = registry
        self._management = management
        self._children: LRUCache[tuple[str, str], tuple[Child, ...]] = LRUCache(MOST_DOCUMENTS)

    async def read(self, repository: str, ours: Iterable[str]) -> Contents:
        """The tags of the repository, and what their indexes and those among our manifests `ours` need.

        Raises `RegistryUnavailable`.
        """
        contents = Contents()
        for tag in await self._management.tags(repository):
            try:
                digest = await self._registry.manifest_digest(repository, tag)
            except RegistryRefused as error:
                contents.obscure = contents.obscure or _unreadable(tag, error)
                continue
            if digest is not None:
                contents.tags[tag] = digest
                await self._add(repository, digest, tag, contents)
        for digest in set(ours) - contents.read:
            await self._add(repository, digest, digest[:19], contents)
        return contents

    async def _add(self, repository: str, digest: str, tag: str, contents: Contents) -> None:
        """Add the manifests that the index with this digest names, and those of the indexes in it.

        Adds nothing for another manifest. `tag` names the index for people.
        """
        if contents.obscure:
            return
        level = {digest}
        for _ in range(_MOST_LEVELS):
            below: set[str] = set()
            for each in level - contents.read:
                contents.read.add(each)
                if len(contents.read) > MOST_DOCUMENTS:
                    contents.obscure = f"nixfront reads at most {MOST_DOCUMENTS} manifests of a repository"
                    return
                try:
                    children = await self._children_of(repository, each)
                except (DocumentInvalid, DigestMismatch, RegistryRefused) as error:
                    contents.obscure = _unreadable(tag, error)
                    return
                for child in children:
                    contents.indexes.setdefault(child.digest, {}).setdefault(digest, tag)
                below |= {child.digest for child in children if child.is_index}
            if not below:
                return
            level = below
        contents.obscure = f"tag {tag} has more than {_MOST_LEVELS} levels of indexes"

    async def _children_of(self, repository: str, digest: str) -> tuple[Child, ...]:
        """The manifests that the index with this digest names; none for another manifest, and for one that is gone."""
        if (children := self._children.get((repository, digest))) is not None:
            return children
        try:
            manifest = read_manifest(await self._registry.content(repository, "manifests", digest))
        except RegistryRefused as error:
            if error.status == 404:
                return ()
            raise
        children = manifest.children if isinstance(manifest, Index) else ()
        self._children[repository, digest] = children
        return children


def _unreadable(tag: str, error: Exception) -> str:
    return f"nixfront cannot read what tag {tag} needs: {error}"
