"""What nixfront remembers, made again from what the registry holds: after the state was lost, or behind another's images.

What an image says is a claim (`own_images`). A layer is recorded only where this host packs the same store paths to the
same bytes: one layer that somebody pushed under a false name would else be in every image from then on. A tag is taken for
ours where the whole image is as we made it and its labels name this repository and tag; of those that move, only
the ones that the operator's settings give a meaning. It is looked at again at its next pull.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy import names, own_images
from proxy.errors import NixfrontError, RegistryRefused
from proxy.model import ImageRequest, Layer, LayerPlan
from proxy.names import Vocabulary
from proxy.own_images import Claim
from proxy.registry import Registry
from proxy.state import State, TagRecord, layer_key

#: The layer that this host makes of these store paths; None where it has not got them all.
Prove = Callable[[LayerPlan], Awaitable[Layer | None]]


@dataclass(frozen=True, slots=True)
class SetWords:
    """What labels and tags say of one package set: its name there, and its tags that move."""

    label: str
    moving: frozenset[str]


@dataclass(slots=True)
class Summary:
    """What was found: tags, those of them that are ours, layers that are known now, and those that nobody could prove."""

    tags: int = 0
    ours: int = 0
    layers: int = 0
    unproved: int = 0
    strangers: list[str] = field(default_factory=list)


class Reindexer:
    """Reads one registry into one state."""

    def __init__(
        self,
        registry: Registry,
        state: State,
        words: Vocabulary,
        sets: Mapping[str, SetWords],
        always: frozenset[str],
        prove: Prove,
        codec: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`sets` by the operator's names, the default one under the empty name; `codec` is that of `prove`."""
        self._registry = registry
        self._state = state
        self._words = words
        self._sets = sets
        self._always = always
        self._prove = prove
        self._codec = codec
        self._now = now
        self._own: dict[LayerPlan, Layer | None] = {}
        self._proved: set[Layer] = set()
        self._unproved: set[Layer] = set()

    async def read(self, listed: AsyncIterator[tuple[str, Sequence[str]]]) -> Summary:
        """Record what these tags are. Raises `RegistryUnavailable`."""
        summary = Summary()
        async for repository, tags in listed:
            for tag in tags:
                summary.tags += 1
                await self._tag(repository, tag, summary)
        summary.layers, summary.unproved = len(self._proved), len(self._unproved)
        return summary

    async def _tag(self, repository: str, tag: str, summary: Summary) -> None:
        digest = await self._registry.manifest_digest(repository, tag)
        claim = await self._claim(repository, digest) if digest is not None else None
        if digest is None or claim is None:
            return
        for plan, layer in claim.layers:
            await self._layer(repository, plan, layer)
        moving = self._moving(repository, tag, claim)
        if moving is None:
            summary.strangers.append(f"{repository}:{tag}")
            return
        summary.ours += 1
        record = TagRecord(repository, tag, digest, "", self._now(), moving=moving)
        await self._state.record_tag(record)  # the image is as new from now on: it is not pruned at once
        if moving:
            await self._state.record_tag(TagRecord(repository, tag, digest, "", 0.0, moving=True))

    async def _claim(self, repository: str, digest: str) -> Claim | None:
        """What an image says of itself; None for what is none of ours, or none at all."""
        try:
            manifest = await self._registry.content(repository, "manifests", digest)
            config = own_images.config_of(manifest)
            if config is None:
                return None
            return own_images.read(manifest, await self._registry.content(repository, "blobs", config))
        except RegistryRefused:  # somebody's image that lacks its config
            return None

    def _moving(self, repository: str, tag: str, claim: Claim) -> bool | None:
        """Whether this tag of ours moves; None where it is not ours."""
        try:
            request = names.parse(repository, tag, self._words)
        except NixfrontError:
            return None
        if request is None or not self._names(request, claim):
            return None
        if claim.names_tag(tag):
            return False
        return True if tag in self._sets[request.package_set].moving else None

    def _names(self, request: ImageRequest, claim: Claim) -> bool:
        chosen = self._sets.get(request.package_set)
        return chosen is not None and claim.names(request, chosen.label, self._always)

    async def _layer(self, repository: str, plan: LayerPlan, layer: Layer) -> None:
        if plan not in self._own:
            self._own[plan] = await self._prove(plan)
        if self._own[plan] == layer:
            self._proved.add(layer)
            await self._state.record(layer_key(plan, self._codec), plan, layer, repository)
        else:
            self._unproved.add(layer)
