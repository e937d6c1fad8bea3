"""What a strategy comes to over a workload: in the registry, and in one dockerd that pulls all of it in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from proxy.core.model import canonical_json, sha256_hex
from tests.bench.layering.facts import Image
from tests.bench.layering.strategies import Strategy

SMALL = 100_000  # bytes


@dataclass(slots=True)
class Outcome:
    """All in bytes of NARs. `distinct`: of the paths themselves; `stored`: of the layers that the registry keeps.

    `pulled`: by a dockerd, which knows a layer by the chain of all layers before it and itself, and by nothing else.
    `layers`, `small`: of each image.
    """

    distinct: int = 0
    stored: int = 0
    pulled: int = 0
    layers: list[int] = field(default_factory=list)
    small: list[int] = field(default_factory=list)
    _paths: set[str] = field(default_factory=set)
    _blobs: set[str] = field(default_factory=set)
    _chains: set[str] = field(default_factory=set)

    @property
    def repulled(self) -> int:
        """Bytes of paths that the dockerd had pulled before."""
        return self.pulled - self.distinct

    @property
    def median(self) -> float:
        return median(self.layers)

    def pull(self, image: Image, strategy: Strategy) -> None:
        """The image is built, pushed and pulled."""
        layers = strategy(image)
        sizes = {info.path: info.nar_size for info in image.paths}
        held = [path for layer in layers for path in layer]
        if sorted(held) != sorted(sizes):
            raise AssertionError("a layer for each path, and for each path one")
        self.distinct += sum(size for path, size in sizes.items() if path not in self._paths)
        self._paths |= sizes.keys()
        self.layers.append(len(layers))
        self.small.append(sum(sum(sizes[path] for path in layer) < SMALL for layer in layers))
        chain = ""
        for layer in layers:
            size = sum(sizes[path] for path in layer)
            blob = sha256_hex(canonical_json(sorted(layer)))
            chain = sha256_hex((chain + blob).encode())
            if blob not in self._blobs:
                self._blobs.add(blob)
                self.stored += size
            if chain not in self._chains:
                self._chains.add(chain)
                self.pulled += size


def outcome(images: Sequence[Image], strategy: Strategy) -> Outcome:
    """What it comes to when these images are asked for in this order."""
    found = Outcome()
    for image in images:
        found.pull(image, strategy)
    return found
