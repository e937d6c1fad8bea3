"""Rebuild nixfront's records from the images in the registry, after the state was lost or another nixfront built them.

What an image says about itself is only a claim. A label alone proves nothing: an image `FROM` one of ours inherits its
labels, and anybody can tag a copy. So nixfront takes a tag as its own only if the image's seal is whole (nobody added or
changed anything) and its labels name this very repository and tag. Moving tags count only if the settings give
them a meaning; nixfront checks such a tag again at its next pull.

An index has no seal. nixfront takes one as its own where each of its images is, and it has the bytes that nixfront writes.

Anybody with the right to push can make such claims. So a layer is recorded only if this host packs the same store paths to
the same bytes. Otherwise a layer with false contents would get into every later image.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.core import model, names
from proxy.core.errors import DigestMismatch, NixfrontError, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import DOCKER_LIST, Descriptor, ImageRequest, Layer, LayerPlan
from proxy.core.names import Vocabulary, attribute_path, is_store_path
from proxy.core.platforms import system_of
from proxy.image.documents import ImageManifest, Index, read_config, read_manifest
from proxy.image.manifest import Format, assemble_index, unsealed
from proxy.image.recipe import REVISION, VERSION, output_tag
from proxy.pipeline.platforms import missing
from proxy.registry.client import Registry
from proxy.state import ImageRecord, State, TagRecord, layer_key

_MOST_CHILDREN = 16  # of an index of ours


@dataclass(frozen=True, slots=True)
class SealedLabels:
    """What a sealed image claims: its labels, and its layers with the store paths of each."""

    labels: Mapping[str, str]
    layers: tuple[tuple[LayerPlan, Layer], ...]

    def names(self, request: ImageRequest, package_set: str, always: frozenset[str]) -> bool:
        """Whether the labels name the repository of this request.

        `package_set`: the name of the request's set in labels. `always`: the packages in every image.
        """
        if (
            request.image or "nixfront.image" in self.labels
        ):  # the definition of a named image chooses the set
            return self.labels.get("nixfront.image") == request.image
        if self.labels.get("nixfront.package-set") != package_set:
            return False
        contents = {_folded(name) for name in self.labels.get("nixfront.attributes", "").split()}
        wanted = {_folded(".".join(attribute_path(name))) for name in request.attributes}
        return wanted <= contents and contents - wanted <= {_folded(name) for name in always}

    def names_tag(self, tag: str) -> bool:
        """Whether the labels name this tag as one that never moves."""
        return _is_fixed(tag, self.labels.get(REVISION, ""), self.labels.get("nixfront.outputs", ""))

    def names_version(self, tag: str) -> bool:
        """Whether this tag is the version of the image: it moves like `latest` while the version stays."""
        return names.version_tag(self.labels.get(VERSION, "")) == tag


def _is_fixed(tag: str, revision: str, outputs: str) -> bool:
    """Whether this is a tag that never moves, short or in full, of an image of this revision and this hash of outputs."""
    of_revision = (revision, model.revision_tag(revision)) if revision else ()
    of_outputs = (outputs, model.contents_tag(outputs)) if outputs else ()
    return tag in (*of_revision, *of_outputs)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the manifest of a tag claims: about one image, or about the images of an index, whose digests are `children`.

    `may_change`: the index lacks a platform that may be made on another day.
    """

    images: tuple[SealedLabels, ...]
    children: tuple[str, ...] = ()
    may_change: bool = False

    def names(self, request: ImageRequest, package_set: str, always: frozenset[str]) -> bool:
        """As `SealedLabels.names`, for every image."""
        return all(image.names(request, package_set, always) for image in self.images)

    def names_tag(self, tag: str) -> bool:
        """As `SealedLabels.names_tag`; several images have one tag for the outputs of all."""
        if len(self.images) == 1:
            return self.images[0].names_tag(tag)
        revisions = {image.labels.get(REVISION, "") for image in self.images}
        outputs = output_tag([image.labels.get("nixfront.outputs", "") for image in self.images])
        return _is_fixed(tag, revisions.pop() if len(revisions) == 1 else "", outputs)

    def names_version(self, tag: str) -> bool:
        """As `SealedLabels.names_version`, for every image."""
        return all(image.names_version(tag) for image in self.images)


def read(manifest: ImageManifest, config: bytes) -> SealedLabels | None:
    """The claims of this image; None if it has no whole seal, or its parts do not fit together."""
    if unsealed(config) is None:
        return None
    try:
        parsed = read_config(config)
        layers = [
            (_plan(step.comment), Layer(blob.digest, blob.size, diff_id))
            for step, blob, diff_id in zip(parsed.steps, manifest.layers, parsed.diff_ids, strict=True)
        ]
    except ValueError:  # the document is wrong, or its lists differ in length
        return None
    return SealedLabels(parsed.labels, tuple((plan, layer) for plan, layer in layers if plan.paths))


def _is_whole(index: Index, data: bytes) -> bool:
    """Whether these bytes are those that nixfront writes for such an index of manifests: nobody added anything."""
    if not index.children or len(index.children) > _MOST_CHILDREN or any(c.is_index for c in index.children):
        return False
    form: Format = "docker" if index.media_type == DOCKER_LIST else "oci"
    try:
        children = [
            (system_of(child.platform), Descriptor(child.media_type, child.size, child.digest))
            for child in index.children
        ]
    except ValueError:
        return False
    return assemble_index(children, dict(index.missing), form=form).data == data


def _plan(comment: str) -> LayerPlan:
    """The store paths in a comment of the history, in order; none for the root layer."""
    words = tuple(comment.split())
    return LayerPlan(words if all(map(is_store_path, words)) else ())


def _folded(attribute: str) -> str:
    """An attribute path as a repository path may spell it: lowercase, without an underscore before a leading digit."""
    parts = [part.removeprefix("_") if part[1:2].isdigit() else part for part in attribute.lower().split(".")]
    return ".".join(parts)


#: Packs these store paths on this host; None if the host lacks one of them.
Prove = Callable[[LayerPlan], Awaitable[Layer | None]]


@dataclass(frozen=True, slots=True)
class SetWords:
    """The words of one package set: its name in labels, and its moving tags."""

    label: str
    moving: frozenset[str]


@dataclass(slots=True)
class Summary:
    """Counts: all tags, our tags, recorded layers, and layers that this host could not prove.

    `strangers`: images with a whole seal whose labels do not name their repository and tag. `is_whole`: whether nothing else
    is in the registry, as far as its catalog tells.
    """

    tags: int = 0
    ours: int = 0
    layers: int = 0
    unproved: int = 0
    strangers: list[str] = field(default_factory=list)
    is_whole: bool = True


async def remembered(state: State) -> AsyncIterator[str]:
    """The repositories of the images in this state, sorted."""
    last = ""
    async for image in state.images():
        if image.repository != last:
            last = image.repository
            yield last


class Reindexer:
    """Records the images of one registry in one state."""

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
        """`sets`: by the operator's names; the default set has the empty name. `codec`: the one that `prove` uses."""
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

    async def read(
        self, images: AsyncIterator[tuple[str, Sequence[str]]], *, is_whole: bool = True
    ) -> Summary:
        """Record these images, which come as repositories with their tags. Raises `RegistryUnavailable`.

        `is_whole`: whether they are all that the registry has.
        """
        summary = Summary(is_whole=is_whole)
        async for repository, tags in images:
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
        for image in claim.images:
            for plan, layer in image.layers:
                await self._layer(repository, plan, layer)
        moving = self._moving(repository, tag, claim)
        if moving is None:
            summary.strangers.append(f"{repository}:{tag}")
            return
        summary.ours += 1
        revision = claim.images[0].labels.get(REVISION, "")
        for each in (*claim.children, digest):
            await self._state.record_image(ImageRecord(repository, each, self._now(), revision=revision))
        record = TagRecord(repository, tag, digest, "", self._now(), moving=moving)
        await self._state.record_tag(
            record
        )  # the image counts as new, so that prune does not delete it at once
        if moving:
            await self._state.record_tag(TagRecord(repository, tag, digest, "", 0.0, moving=True))

    async def _claim(self, repository: str, digest: str) -> Claim | None:
        """The claims of an image or of an index; None for one that is not all ours."""
        try:
            data = await self._registry.content(repository, "manifests", digest)
            manifest = read_manifest(data)
            if isinstance(manifest, ImageManifest):
                image = await self._image(repository, manifest)
                return Claim((image,)) if image is not None else None
            if not isinstance(manifest, Index) or not _is_whole(manifest, data):
                return None
            children = tuple(child.digest for child in manifest.children)
            claims = [await self._claim(repository, child) for child in children]
        except (
            RegistryRefused,
            DigestMismatch,
            DocumentInvalid,
        ):  # no image, or one without its config: not ours
            return None
        images = [claim.images[0] for claim in claims if claim is not None and not claim.children]
        if len(images) != len(children):
            return None
        may_change = any(missing.is_passing_reason(reason) for _, reason in manifest.missing)
        return Claim(tuple(images), children, may_change)

    async def _image(self, repository: str, manifest: ImageManifest) -> SealedLabels | None:
        return read(manifest, await self._registry.content(repository, "blobs", manifest.config.digest))

    def _moving(self, repository: str, tag: str, claim: Claim) -> bool | None:
        """Whether this tag moves; None if it is not ours."""
        try:
            request = names.parse(repository, tag, self._words)
        except NixfrontError:
            return None
        if request is None or not self._names(request, claim):
            return None
        if claim.names_tag(tag):
            return claim.may_change
        if claim.names_version(tag):
            return True
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
