"""The index of one request: an image for each platform that can be made, under one name.

The digest of an index is a function of request, set and settings, as that of an image is. So it lists the platforms in the
order of the settings. A platform that cannot be made is left out, and an annotation says why, without a word of any log.

A platform whose build failed may succeed later. So the key of such an index is no key of a request: when its tag is due,
nixfront builds again. Until then no tag that never moves names this index.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from proxy.core import platforms
from proxy.core.errors import NixfrontError
from proxy.core.events import Event, LayersReady, Sink
from proxy.core.model import (
    Document,
    Image,
    ImageRequest,
    canonical_json,
    contents_tag,
    revision_tag,
    sha256_hex,
)
from proxy.image.manifest import Format, assemble_index
from proxy.image.recipe import output_tag
from proxy.pipeline.platforms import missing


@dataclass(frozen=True, slots=True)
class Made:
    """An image that the destination has but for its manifest. `key` is the image's; the others are what its tags say."""

    image: Image
    key: str
    revision: str
    output_tag: str
    version_tag: str | None = None
    whole: str = ""


@dataclass(frozen=True, slots=True)
class Lacking:
    """A platform without an image: the error, and what stands for the key of the image in the key of the index."""

    error: NixfrontError
    key: str


#: What became of one platform.
Result: TypeAlias = Made | Lacking


@dataclass(frozen=True, slots=True)
class Joined:
    """A manifest or an index: the manifests that an index names, the revision of its set, its key, and all its tags.

    `longer`: for each short tag the whole hash, for a registry where another image has the short one.
    `may_change`: the same request may have another index later, so every tag of it moves.
    """

    document: Document
    children: tuple[Document, ...]
    revision: str
    key: str
    tags: tuple[str, ...]
    longer: Mapping[str, str]
    may_change: bool = False


def short_tags(output_tag: str, revision: str) -> dict[str, str]:
    """The tags of an image that never move, and for each the hash that it begins: of its outputs, and its revision."""
    return {contents_tag(output_tag): output_tag, revision_tag(revision): revision}


def all_tags(tag: str, fixed: Iterable[str], version_tag: str | None) -> tuple[str, ...]:
    """All tags of an image, `tag` last."""
    beside = dict.fromkeys((*fixed, version_tag))
    return (*(name for name in beside if name and name != tag), tag)


def for_system(request: ImageRequest, system: str) -> ImageRequest:
    """The same request for one Nix system, as if the client had named the platform."""
    return replace(request, preset=replace(request.preset, system=system))


def are_of_one_revision(results: Sequence[Result]) -> bool:
    """Whether the images are of one revision: a moving tag may move between two platforms."""
    return len({result.whole or result.revision for result in results if isinstance(result, Made)}) < 2


def single(tag: str, made: Made) -> Joined:
    """One image as it is, without an index."""
    longer = short_tags(made.output_tag, made.revision)
    tags = all_tags(tag, longer, made.version_tag)
    return Joined(made.image.document, (), made.revision, made.key, tags, longer)


def joined(tag: str, results: Mapping[str, Result], form: Format) -> Joined:
    """The index of these results, by Nix system. Raises the error of all platforms where no image was made."""
    made = {system: result for system, result in results.items() if isinstance(result, Made)}
    errors = {
        platforms.of_system(system).name: result.error
        for system, result in results.items()
        if isinstance(result, Lacking)
    }
    if not made:
        raise missing.joint_error(errors)
    reasons = {platform: missing.reason(error) for platform, error in errors.items()}
    children = [(system, result.image.manifest_descriptor) for system, result in made.items()]
    keys = {system: result.key for system, result in results.items()}
    outputs = [result.output_tag for result in made.values()]
    versions = {result.version_tag for result in made.values()}
    revision = next(iter(made.values())).revision
    may_change = any(map(missing.is_passing, errors.values()))
    longer = short_tags(outputs[0] if len(outputs) == 1 else output_tag(outputs), revision)
    tags = all_tags(tag, () if may_change else longer, versions.pop() if len(versions) == 1 else None)
    return Joined(
        assemble_index(children, reasons, form=form),
        tuple(result.image.document for result in made.values()),
        revision,
        index_key(keys, form),
        tags,
        longer,
        may_change,
    )


def index_key(keys: Mapping[str, str], form: Format) -> str:
    """The key of an index, by the keys of its images, which stand under their Nix systems."""
    return sha256_hex(canonical_json({"format": form, "platforms": list(keys.items())}))


class LayerSum:
    """Counts the layers of all platforms together, as one build, as soon as nixfront knows the layers of each."""

    def __init__(self, sink: Sink, systems: Sequence[str]) -> None:
        self._sink = sink
        self._counts: dict[str, LayersReady | None] = dict.fromkeys(systems)

    def sink(self, system: str) -> Sink:
        """The sink for the image of this system."""

        def send(event: Event) -> None:
            if isinstance(event, LayersReady):
                self._counts[system] = event
                self._tell()
            else:
                self._sink(event)

        return send

    def leave_out(self, system: str) -> None:
        """No image is made for this system."""
        del self._counts[system]
        self._tell()

    def _tell(self) -> None:
        counts = [event for event in self._counts.values() if event is not None]
        if counts and len(counts) == len(self._counts):
            ready, total = sum(event.ready for event in counts), sum(event.total for event in counts)
            self._sink(replace(counts[0], ready=ready, total=total))
