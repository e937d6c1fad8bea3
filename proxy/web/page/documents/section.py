"""What the page of an image shows of its documents, as values. All functions are pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from proxy.pipeline.attachments.reading import Attached
from proxy.trust.readers import Materials, Origin
from proxy.web.page.listed import ListedLayer

_MOST_LICENCES = 12  # that are counted by name


class Signed(Enum):
    """Who signed an image, in the words of the page."""

    BY_US = "yes, with the key of this host"
    BY_OTHERS = "yes, but not with the key of this host"
    NO = "no"
    BROKEN = "nobody can say: its signatures are broken"
    UNCLEAR = "nobody can say at this moment"


@dataclass(frozen=True, slots=True)
class Section:
    """What is attached to one image. `troubles` are sentences about what cannot be shown."""

    documents: tuple[Attached, ...] = ()
    materials: Materials | None = None
    origin: Origin | None = None
    signed: Signed = Signed.UNCLEAR
    troubles: tuple[str, ...] = ()

    @property
    def is_of_others(self) -> bool:
        """Whether one of the documents does not even say that it is nixfront's."""
        return not all(document.claims_ours for document in self.documents)


@dataclass(frozen=True, slots=True)
class Row:
    """A component. `size`: bytes of the layer that holds it, 0 if nobody says which; `others` are in the same layer."""

    name: str
    version: str
    licences: tuple[str, ...]
    size: int
    others: int


def rows(materials: Materials, layers: Sequence[ListedLayer]) -> list[Row]:
    """The components, those in the largest layers first; those of one layer stand together."""
    sizes = {layer.digest: layer.size for layer in layers}
    count = Counter(part.layer for part in materials.parts if part.layer in sizes)
    ordered = sorted(
        materials.parts, key=lambda part: (-sizes.get(part.layer, -1), part.layer, part.name, part.version)
    )
    return [
        Row(part.name, part.version, part.licences, sizes.get(part.layer, 0), max(0, count[part.layer] - 1))
        for part in ordered
    ]


def licences(materials: Materials) -> list[tuple[str, int]]:
    """The licences that most components have, with their numbers; those of the others are one row."""
    count = Counter(name for part in materials.parts for name in part.licences)
    ordered = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[_MOST_LICENCES:]
    more = [(f"{len(rest)} other licences", sum(number for _, number in rest))] if rest else []
    without = sum(not part.licences for part in materials.parts)
    return [*ordered[:_MOST_LICENCES], *more, *([("not stated", without)] if without else [])]
