"""The state in memory, for one process whose records need not outlive it.

`OneProcess` has the records that concern a single process alone; a state in a file has them in memory too.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from cachetools import TLRUCache

from proxy.core.model import Layer, LayerPlan
from proxy.state import (
    INTERRUPTED,
    MOST_BUILDS,
    MOST_DELETED,
    MOST_ORIGINS,
    MOST_REVISIONS,
    BuildRecord,
    Failure,
    ImageRecord,
    TagRecord,
    renewed,
)

_MOST_FAILURES = 1024


class OneProcess:
    """Leases and failures of a single process; after a crash no lease is left over. See `State` for the methods."""

    def __init__(self) -> None:
        self._leases: dict[str, tuple[str, float]] = {}
        self._failures: TLRUCache[str, tuple[Failure, float]] = TLRUCache(
            _MOST_FAILURES, lambda _, value, now: now + value[1]
        )

    async def recall_failure(self, key: str) -> Failure | None:
        value = self._failures.get(key)
        return value[0] if value else None

    async def record_failure(self, key: str, failure: Failure, seconds: float) -> None:
        self._failures[key] = (failure, seconds)

    async def take(self, key: str, holder: str, seconds: float) -> bool:
        other, until = self._leases.get(key, ("", 0.0))
        now = time.monotonic()
        if other not in ("", holder) and until > now:
            return False
        self._leases[key] = (holder, now + seconds)
        return True

    async def release(self, key: str, holder: str) -> None:
        if self._leases.get(key, ("", 0.0))[0] == holder:
            del self._leases[key]


class MemoryState(OneProcess):
    """A state that ends with its object; the methods are described in `State`."""

    def __init__(self) -> None:
        super().__init__()
        self._layers: dict[str, Layer] = {}
        self._blobs: dict[str, set[str]] = {}
        self._tags: dict[tuple[str, str], TagRecord] = {}
        self._images: dict[tuple[str, str], ImageRecord] = {}
        self._revisions: dict[tuple[str, str], tuple[str, float]] = {}
        self._builds: dict[str, BuildRecord] = {}

    async def recall(
        self, keys: Sequence[str], repository: str
    ) -> Mapping[str, tuple[Layer, tuple[str, ...]]]:
        return {
            key: (self._layers[key], self._origins(key, repository)) for key in keys if key in self._layers
        }

    def _origins(self, key: str, repository: str) -> tuple[str, ...]:
        repositories = self._blobs.get(self._layers[key].digest, set())
        here = (repository,) if repository in repositories else ()
        return (*here, *sorted(repositories - {repository})[:MOST_ORIGINS])

    async def record(self, key: str, _plan: LayerPlan, layer: Layer, repository: str) -> None:
        self._layers[key] = layer
        await self.seen(repository, layer.digest)

    async def seen(self, repository: str, *digests: str) -> None:
        for digest in digests:
            self._blobs.setdefault(digest, set()).add(repository)

    async def forget(self, digest: str, repository: str) -> None:
        self._blobs.get(digest, set()).discard(repository)

    async def recall_tag(self, repository: str, tag: str) -> TagRecord | None:
        return self._tags.get((repository, tag))

    async def record_tag(self, *records: TagRecord) -> None:
        for record in records:
            image = ImageRecord(record.repository, record.digest, record.checked)
            self._images.setdefault((record.repository, record.digest), image)
            self._tags[record.repository, record.tag] = record

    async def forget_tag(self, repository: str, tag: str) -> None:
        self._tags.pop((repository, tag), None)

    async def tags(self, repository: str) -> tuple[TagRecord, ...]:
        return tuple(self._tags[key] for key in sorted(self._tags) if key[0] == repository)

    async def images(self) -> AsyncIterator[ImageRecord]:
        for key in sorted(self._images):
            if not self._images[key].deleted:
                yield self._images[key]

    async def recall_image(self, repository: str, digest: str) -> ImageRecord | None:
        return self._images.get((repository, digest))

    async def newest_images(self, repository: str, most: int) -> Sequence[ImageRecord]:
        images = [image for image in self._images.values() if image.repository == repository]
        present = [image for image in images if not image.deleted]
        return sorted(present, key=lambda image: (-image.made, image.digest))[:most]

    async def record_image(self, record: ImageRecord) -> None:
        self._images[record.repository, record.digest] = renewed(
            self._images.get((record.repository, record.digest)), record
        )

    async def retire_image(self, repository: str, digest: str, when: float) -> None:
        if (image := self._images.get((repository, digest))) is not None:
            self._images[repository, digest] = replace(image, deleted=when)
        deleted = sorted(
            (key for key, image in self._images.items() if image.deleted),
            key=lambda key: self._images[key].deleted,
        )
        for key in deleted[: max(0, len(deleted) - MOST_DELETED)]:
            del self._images[key]

    async def record_attached(self, repository: str, digest: str) -> None:
        if (image := self._images.get((repository, digest))) is not None:
            self._images[repository, digest] = replace(image, due=0.0)

    async def record_pulls(self, pulls: Mapping[tuple[str, str], tuple[float, int]]) -> None:
        for key, (when, times) in pulls.items():
            if (image := self._images.get(key)) is not None:
                self._images[key] = replace(image, pulled=max(image.pulled, when), pulls=image.pulls + times)

    async def forget_image(self, repository: str, digest: str) -> None:
        self._images.pop((repository, digest), None)

    async def recall_revision(self, package_set: str, reference: str) -> tuple[str, float] | None:
        return self._revisions.get((package_set, reference))

    async def record_revision(self, package_set: str, reference: str, revision: str, when: float) -> None:
        self._revisions[package_set, reference] = (revision, when)
        if len(self._revisions) > MOST_REVISIONS:
            del self._revisions[min(self._revisions, key=lambda key: self._revisions[key][1])]

    async def record_build(self, build: BuildRecord) -> bool:
        self._builds[build.id] = build
        self._builds = {newest.id: newest for newest in await self.builds(MOST_BUILDS)}
        return True

    async def builds(self, most: int) -> Sequence[BuildRecord]:
        newest = sorted(self._builds.values(), key=lambda build: (build.started, build.id), reverse=True)
        return newest[:most]

    async def end_builds(self, machine: str, when: float) -> None:
        for build in list(self._builds.values()):
            if build.machine == machine and not build.ended:
                self._builds[build.id] = replace(build, ended=when, error=INTERRUPTED)

    async def check(self) -> None:
        """Never raises: memory is always there."""
