"""The records of nixfront, as values and one Protocol; `sqlite`, `redis` and `memory` implement it.

The state is a cache; losing it only costs time. A reader of a layer's record asks the registry before it uses the
record, and a tag is ours only while it names the digest of its record. No method raises when the store behind it is
gone: reads then return nothing, and writes wait for its return (see `outage`). Only `check` raises. Times are seconds
since the epoch, from the caller's clock.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from proxy.core.model import Layer, LayerPlan, canonical_json, sha256_hex

#: Other repositories that `recall` returns as sources of a mount.
MOST_ORIGINS = 3
#: Builds that have a record; the oldest records are deleted.
MOST_BUILDS = 1000
#: Moving references of package sets that have a record; those resolved first are deleted.
MOST_REVISIONS = 2000
#: Images that have a record although `prune` deleted them; those deleted first are forgotten.
MOST_DELETED = 100_000
#: The error of a build that was interrupted.
INTERRUPTED = "nixfront ended in the middle of it"


def layer_key(plan: LayerPlan, codec: str) -> str:
    """The key of a layer: a hash of all that its bytes depend on, which are its store paths and the codec."""
    return sha256_hex(canonical_json({"codec": codec, "paths": list(plan.paths)}))


@dataclass(frozen=True, slots=True)
class TagRecord:
    """A tag that we put: the `digest` of its manifest, and the `key` of all that the image depends on.

    `checked`: when the tag was last found to name the right image; `moving`: whether that can change. `replaced`: while a
    manifest is being put in place of another, the digest of the other; the tag may name either of them.
    """

    repository: str
    tag: str
    digest: str
    key: str
    checked: float
    moving: bool = False
    replaced: str = ""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A manifest that we put, with or without a tag today. `pulled`: when it was last pulled, 0 for never; `pulls`: how
    often somebody fetched it, but for what a crash took away.

    It can be made again: at `revision` of its package set, with the `settings` on which its bytes depend, as JSON. Both
    are empty if nobody recorded them. `deleted`: when `prune` deleted it and left its record, 0 for never. `due`: since when
    nixfront has to attach documents to it, 0 for an image that has them or gets none.
    """

    repository: str
    digest: str
    made: float
    pulled: float = 0.0
    revision: str = ""
    settings: str = ""
    deleted: float = 0.0
    due: float = 0.0
    pulls: int = 0


def renewed(before: ImageRecord | None, new: ImageRecord) -> ImageRecord:
    """The record of an image that is put: `new`, and what the record `before` says in addition."""
    if before is None:
        return replace(new, pulled=0.0, deleted=0.0, pulls=0)
    return replace(
        before,
        made=new.made if before.deleted else before.made,
        revision=new.revision or before.revision,
        settings=new.settings or before.settings,
        deleted=0.0,
        due=new.due or before.due,
    )


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One build: `ended` is 0 while it runs on `machine`; then there is a `digest`, or an `error`.

    `host` names the machine for people. The machine last `reported` the `phase` of the build, and how many layers of
    its `total` are `ready`; `outcome` is the class of the error.
    """

    id: str
    repository: str
    tag: str
    machine: str
    started: float
    ended: float = 0.0
    digest: str = ""
    error: str = ""
    host: str = ""
    phase: str = ""
    ready: int = 0
    total: int = 0
    outcome: str = ""
    reported: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that the same request would raise again: the name of its class, and its message."""

    kind: str
    message: str


class State(Protocol):
    """The records of one nixfront, or of several that share them."""

    # --- layers: the blob of a set of store paths, and the repositories that have it ------------------------

    async def recall(
        self, keys: Sequence[str], repository: str
    ) -> Mapping[str, tuple[Layer, tuple[str, ...]]]:
        """The recorded layers by key, and for each of them a few repositories that have its blob.

        `repository` comes first if it has the blob; the others are sorted.
        """

    async def record(self, key: str, plan: LayerPlan, layer: Layer, repository: str) -> None:
        """Write that this repository has this layer's blob."""

    async def seen(self, repository: str, *digests: str) -> None:
        """Write that a repository has these blobs."""

    async def forget(self, digest: str, repository: str) -> None:
        """Delete the record that this repository has this blob."""

    # --- tags and images that we put, and when each was last pulled -----------------------------------------

    async def recall_tag(self, repository: str, tag: str) -> TagRecord | None:
        """The record of this tag; None if the tag is not ours."""

    async def record_tag(self, *records: TagRecord) -> None:
        """Write the records of tags, all of them or none, and one of each image that has none."""

    async def forget_tag(self, repository: str, tag: str) -> None:
        """Delete the record of a tag, which then is not ours any more."""

    async def tags(self, repository: str) -> tuple[TagRecord, ...]:
        """Our tags of a repository, sorted."""

    def images(self) -> AsyncIterator[ImageRecord]:
        """Every image of ours that `prune` did not delete, sorted by repository and digest."""

    async def recall_image(self, repository: str, digest: str) -> ImageRecord | None:
        """The record of this image, also of one that `prune` deleted; None if it is not ours."""

    async def newest_images(self, repository: str, most: int) -> Sequence[ImageRecord]:
        """Images of a repository that `prune` did not delete, newest first."""

    async def record_image(self, record: ImageRecord) -> None:
        """Write how an image is made that we put now; see `renewed` for what stays of an earlier record."""

    async def retire_image(self, repository: str, digest: str, when: float) -> None:
        """Write that `prune` deleted this image; beyond `MOST_DELETED` the oldest such records are forgotten."""

    async def record_attached(self, repository: str, digest: str) -> None:
        """Write that no documents are due to this image any more; skip one that is not ours."""

    async def record_pulls(self, pulls: Mapping[tuple[str, str], tuple[float, int]]) -> None:
        """Write when the images at these (repository, digest) were last pulled, and how often in addition.

        It skips images that are not ours.
        """

    async def forget_image(self, repository: str, digest: str) -> None:
        """Delete the record of an image."""

    # --- revisions, failures, builds -------------------------------------------------------------------------

    async def recall_revision(self, package_set: str, reference: str) -> tuple[str, float] | None:
        """The revision of a moving reference, and when it was resolved."""

    async def record_revision(self, package_set: str, reference: str, revision: str, when: float) -> None:
        """Write the revision of a moving reference; beyond `MOST_REVISIONS` the oldest are forgotten."""

    async def recall_failure(self, key: str) -> Failure | None:
        """The recent error of this key, None if there is none."""

    async def record_failure(self, key: str, failure: Failure, seconds: float) -> None:
        """Write an error; after these seconds it is gone."""

    async def record_build(self, build: BuildRecord) -> bool:
        """Write what this build is now; beyond `MOST_BUILDS` the oldest are forgotten.

        False while the store is gone. The record is not kept for its return: the caller has a newer one then.
        """

    async def builds(self, most: int) -> Sequence[BuildRecord]:
        """The newest builds, newest first."""

    async def end_builds(self, machine: str, when: float) -> None:
        """Record that the builds of this machine that have no end were interrupted."""

    # --- leases: who builds -------------------------------------------------------------------------------

    async def take(self, key: str, holder: str, seconds: float) -> bool:
        """Take a lease for these seconds, or prolong it; whether `holder` has it now."""

    async def release(self, key: str, holder: str) -> None:
        """Give the lease back, if it is still this holder's."""

    # --- the store itself ---------------------------------------------------------------------------------

    async def check(self) -> None:
        """Raises `StateUnavailable` if the store does not answer."""
