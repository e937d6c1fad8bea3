"""What nixfront remembers, as values and one Protocol; `state_sqlite` and `state_redis` keep it.

A memory, not a truth: whoever recalls a layer asks the registry before believing it, and a tag is ours only while the
registry names the digest that is written here. So whatever is lost costs time, never a wrong image. No method
raises when the store behind it is gone: then nothing is known, and what was to be written is kept for its return
(see `state_border`). `check` alone says so. Times are seconds since the epoch, given by the caller.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.core.model import Layer, LayerPlan, canonical_json, sha256_hex

#: Further repositories that are tried as the source of a mount.
MOST_ORIGINS = 3
#: Builds that are remembered, newest first.
MOST_BUILDS = 1000
#: The error of a build that was interrupted.
INTERRUPTED = "nixfront ended in the middle of it"


def layer_key(plan: LayerPlan, codec: str) -> str:
    """The key of a layer: a hash of everything its bytes depend on, which is its store paths and the codec."""
    return sha256_hex(canonical_json({"codec": codec, "paths": list(plan.paths)}))


@dataclass(frozen=True, slots=True)
class TagRecord:
    """A tag that we put: `digest` of its manifest, and a `key` of all that the image was made from.

    `checked`: when that was last what the tag means; `moving`: whether that can change. `replaced`: while a manifest
    is being put in place of another, the digest of the other: the tag may name either.
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
    """A manifest that we put, with or without a tag today. `pulled`: 0 for never."""

    repository: str
    digest: str
    made: float
    pulled: float = 0.0


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
    """An error that the same request would meet again: the name of its class, and its message."""

    kind: str
    message: str


class State(Protocol):
    """The memory of one nixfront, or of several that share it."""

    # --- layers: what a set of store paths became, and which repositories were seen to have the blob --------

    async def recall(
        self, keys: Sequence[str], repository: str
    ) -> Mapping[str, tuple[Layer, tuple[str, ...]]]:
        """The layers that these keys became, as far as they are known, and a few repositories that had each blob.

        `repository` comes first where it is one of them; the others are sorted.
        """

    async def record(self, key: str, plan: LayerPlan, layer: Layer, repository: str) -> None:
        """Remember that the registry has this layer's blob in this repository."""

    async def seen(self, repository: str, *digests: str) -> None:
        """Remember that a repository has these blobs."""

    async def forget(self, digest: str, repository: str) -> None:
        """The registry says that this repository has no such blob (any more)."""

    # --- tags and images: what we put, and when it was last asked for ---------------------------------------

    async def recall_tag(self, repository: str, tag: str) -> TagRecord | None:
        """What we put under this tag; None if we did not."""

    async def record_tag(self, record: TagRecord) -> None:
        """Remember that we put this; its image is known from now on too."""

    async def forget_tag(self, repository: str, tag: str) -> None:
        """The tag is not ours (any more)."""

    async def tags(self, repository: str) -> tuple[TagRecord, ...]:
        """Our tags of a repository, sorted."""

    def images(self) -> AsyncIterator[ImageRecord]:
        """Every image of ours, sorted by repository and digest."""

    async def record_pulls(self, pulls: Mapping[tuple[str, str], float]) -> None:
        """When the images at these (repository, digest) were last pulled; those that are not ours are passed over."""

    async def forget_image(self, repository: str, digest: str) -> None:
        """The registry has this image no more."""

    # --- revisions, failures, builds -------------------------------------------------------------------------

    async def recall_revision(self, package_set: str, reference: str) -> tuple[str, float] | None:
        """The revision that a moving reference was resolved to, and when."""

    async def record_revision(self, package_set: str, reference: str, revision: str, when: float) -> None:
        """Remember it."""

    async def recall_failure(self, key: str) -> Failure | None:
        """The error that was met a short while ago."""

    async def record_failure(self, key: str, failure: Failure, seconds: float) -> None:
        """Remember an error for so long."""

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
        """Whether `holder` has this lease now, for so long; who has it already takes it anew for longer."""

    async def release(self, key: str, holder: str) -> None:
        """Give the lease back, if it is still this holder's."""

    # --- the store itself ---------------------------------------------------------------------------------

    async def check(self) -> None:
        """Raises `StateUnavailable` if the store does not answer."""
