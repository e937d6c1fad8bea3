"""The images of a list as values, reduced to what the page shows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """`shared_by` counts the images of the list that hold it; `what` says in a few words what is in it."""

    digest: str
    size: int
    what: str = ""
    shared_by: int = 1


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One manifest with all tags that name it; `platforms` where it is an index, and the platform of an image in one.

    An index has its images as `children`, and shows what its first one holds. `missing`: (platform, reason) pairs of an index
    of ours that lacks these platforms. `trouble`: why nixfront cannot read it, or empty.
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
