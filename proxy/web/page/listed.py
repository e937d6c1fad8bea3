"""The images of a list as values, reduced to what the page shows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from proxy.core.names import is_own_hash


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """`shared_by` counts the images of the list that hold it; `what` says in a few words what is in it."""

    digest: str
    size: int
    what: str = ""
    shared_by: int = 1


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One manifest with all tags that name it; `platforms`: of an index those that it names, of an image its own.

    An index has its images as `children`, and shows what its first one holds. `missing`: (platform, reason) pairs of an index
    of ours that lacks these platforms. `trouble`: why nixfront cannot read it, or empty. `made` and `pulled`, of an image of
    ours, are seconds since 1970, and 0 for never; `pulls` counts its fetches.
    """

    repository: str
    tags: tuple[str, ...]
    digest: str
    created: str = ""
    description: str = ""
    layers: tuple[ListedLayer, ...] = ()
    platforms: tuple[str, ...] = ()
    children: "tuple[ListedImage, ...]" = ()
    missing: tuple[tuple[str, str], ...] = ()
    trouble: str = ""
    is_ours: bool = False
    made: float = 0.0
    pulled: float = 0.0
    pulls: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The tags that somebody chooses: those that may move, and versions."""
        return tuple(tag for tag in self.tags if not is_own_hash(tag))

    @property
    def fixed(self) -> tuple[str, ...]:
        """The tags that nixfront gave, and that never move."""
        return tuple(tag for tag in self.tags if is_own_hash(tag))

    def has_manifest(self, digest: str) -> bool:
        """Whether this is the digest of it, or of an image in it."""
        return digest == self.digest or any(digest == child.digest for child in self.children)

    @property
    def size(self) -> int:
        """Bytes of all layers, as they are sent."""
        return sum(layer.size for layer in self.layers)

    @property
    def own(self) -> int:
        """Bytes of the layers that no other image of the list holds."""
        return sum(layer.size for layer in self.layers if layer.shared_by == 1)

    @property
    def name(self) -> str:
        """What to pull."""
        tag = next((tag for tag in self.tags if tag == "latest"), self.tags[0] if self.tags else "")
        return self.repository if tag == "latest" else f"{self.repository}:{tag}"


@dataclass(frozen=True, slots=True)
class Listing:
    """Images by name; or `trouble`: why the registry cannot list them."""

    images: tuple[ListedImage, ...] = ()
    trouble: str = ""

    def counted(self, images: Iterable[ListedImage]) -> list[ListedImage]:
        """These images with how many of the whole list hold each of their layers."""
        holders = Counter(
            digest for image in self.images for digest in {layer.digest for layer in image.layers}
        )
        return [
            replace(
                image, layers=tuple(replace(layer, shared_by=holders[layer.digest]) for layer in image.layers)
            )
            for image in images
        ]
