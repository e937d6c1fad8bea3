"""An image in the registry that says that it is ours: how much of that can be believed, and what it says of its layers.

Pure. A label alone proves nothing: `docker build FROM` an image of ours inherits it, and anybody can tag a copy. So it
counts only while the seal is whole (nothing was added or changed) and where the labels name the very repository and tag
under which the image stands. And even that is a claim that whoever may push can make: what a layer holds is believed by
those alone who pack the same store paths themselves and get the same bytes.

What nixfront remembers, made again from what the registry holds: after the state was lost, or behind another's images.

What an image says is a claim (`own_images`). A layer is recorded only where this host packs the same store paths to the
same bytes: one layer that somebody pushed under a false name would else be in every image from then on. A tag is taken for
ours where the whole image is as we made it and its labels name this repository and tag; of those that move, only
the ones that the operator's settings give a meaning. It is looked at again at its next pull.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.core import names
from proxy.core.errors import NixfrontError, RegistryRefused
from proxy.core.model import ImageRequest, Layer, LayerPlan
from proxy.core.names import Vocabulary, attribute_path, is_store_path
from proxy.image.manifest import unsealed
from proxy.registry.client import Registry
from proxy.state import State, TagRecord, layer_key

# Nix's own: a word that is anything else could lead out of the store.


@dataclass(frozen=True, slots=True)
class SealedLabels:
    """What a sealed image says of itself: its labels, and its layers with the store paths that each is to hold."""

    labels: Mapping[str, str]
    layers: tuple[tuple[LayerPlan, Layer], ...]

    def names(self, request: ImageRequest, package_set: str, always: frozenset[str]) -> bool:
        """Whether the labels name this repository; `package_set` is its set's name, `always` is in every image."""
        if request.image or "nixfront.image" in self.labels:  # whose file says which set it is of
            return self.labels.get("nixfront.image") == request.image
        if self.labels.get("nixfront.package-set") != package_set:
            return False
        said = {_folded(name) for name in self.labels.get("nixfront.attributes", "").split()}
        asked = {_folded(".".join(attribute_path(name))) for name in request.attributes}
        return asked <= said and said - asked <= {_folded(name) for name in always}

    def names_tag(self, tag: str) -> bool:
        """Whether the labels name this tag, one that never moves."""
        return tag in (self.labels.get("nixfront.revision"), self.labels.get("nixfront.outputs"))


def config_of(manifest: bytes) -> str | None:
    """The digest of an image's config; None for a manifest that has none."""
    try:
        return str(json.loads(manifest)["config"]["digest"])
    except (ValueError, KeyError, TypeError):
        return None


def read(manifest: bytes, config: bytes) -> SealedLabels | None:
    """What this image says; None for one that is not sealed, or is no image of layers at all."""
    value = unsealed(config)
    try:
        described = json.loads(manifest)["layers"]
        if value is None:
            return None
        diff_ids = value["rootfs"]["diff_ids"]
        layers = [
            (_plan(entry["comment"]), Layer(blob["digest"], int(blob["size"]), diff_id))
            for entry, blob, diff_id in zip(value["history"], described, diff_ids, strict=True)
        ]
        labels: dict[str, Any] = value["config"]["Labels"]
    except (ValueError, KeyError, TypeError):
        return None
    held = tuple((plan, layer) for plan, layer in layers if plan.paths)
    return SealedLabels({str(name): str(text) for name, text in labels.items()}, held)


def _plan(comment: str) -> LayerPlan:
    """The store paths that a line of history names, in order; none for the root layer."""
    words = tuple(comment.split())
    return LayerPlan(words if all(map(is_store_path, words)) else ())


def _folded(attribute: str) -> str:
    """An attribute path as a repository path may spell it: case aside, without an underscore before a digit."""
    parts = [part.removeprefix("_") if part[1:2].isdigit() else part for part in attribute.lower().split(".")]
    return ".".join(parts)


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

    async def _claim(self, repository: str, digest: str) -> SealedLabels | None:
        """What an image says of itself; None for what is none of ours, or none at all."""
        try:
            manifest = await self._registry.content(repository, "manifests", digest)
            config = config_of(manifest)
            if config is None:
                return None
            return read(manifest, await self._registry.content(repository, "blobs", config))
        except RegistryRefused:  # somebody's image that lacks its config
            return None

    def _moving(self, repository: str, tag: str, claim: SealedLabels) -> bool | None:
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

    def _names(self, request: ImageRequest, claim: SealedLabels) -> bool:
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
