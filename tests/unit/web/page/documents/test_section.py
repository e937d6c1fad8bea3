"""What the page of an image shows of its documents: components in order, licences with their numbers."""

from proxy.core.model import OCI_MANIFEST
from proxy.image.documents import Blob
from proxy.pipeline.attachments.reading import Attached
from proxy.trust.kinds import SPDX
from proxy.trust.readers import Materials, Part
from proxy.web.page.documents import section
from proxy.web.page.documents.section import Row, Section
from proxy.web.page.listed import ListedLayer

LAYERS = (ListedLayer("sha256:1", 10), ListedLayer("sha256:2", 100))
PARTS = (
    Part("small", "1", ("MIT",), "sha256:1"),
    Part("stray", "", (), "sha256:of-no-layer"),
    Part("pair-b", "2", ("MIT", "ISC"), "sha256:2"),
    Part("pair-a", "2", ("ISC",), "sha256:2"),
    Part("nowhere", "", ("ISC",)),
)


def test_components_of_large_layers_come_first_and_those_of_one_layer_together() -> None:
    assert section.rows(Materials(PARTS, 5), LAYERS) == [
        Row("pair-a", "2", ("ISC",), 100, 1),
        Row("pair-b", "2", ("MIT", "ISC"), 100, 1),
        Row("small", "1", ("MIT",), 10, 0),
        Row("nowhere", "", ("ISC",), 0, 0),
        Row("stray", "", (), 0, 0),
    ]


def test_licences_are_counted_and_few_are_named() -> None:
    many = tuple(Part(str(number), licences=(f"licence {number:02}",)) for number in range(30))

    assert section.licences(Materials(PARTS, 5)) == [("ISC", 3), ("MIT", 2), ("not stated", 1)]
    assert section.licences(Materials((*PARTS, *many), 35))[-2:] == [
        ("20 other licences", 20),
        ("not stated", 1),
    ]


def test_one_document_of_somebody_else_is_said() -> None:
    ours, other = (Attached(SPDX, Blob("sha256:1", 1, OCI_MANIFEST), claims) for claims in (True, False))

    assert not Section().is_of_others
    assert not Section((ours,)).is_of_others
    assert Section((ours, other)).is_of_others
