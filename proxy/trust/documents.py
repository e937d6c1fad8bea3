"""All documents of an image, from its facts."""

from collections.abc import Callable, Mapping

from proxy.trust import cyclonedx, provenance, spdx
from proxy.trust.facts import ImageFacts
from proxy.trust.kinds import CYCLONEDX, PROVENANCE, SPDX

_MAKERS: Mapping[str, Callable[[ImageFacts], bytes]] = {
    SPDX.name: spdx.document,
    CYCLONEDX.name: cyclonedx.document,
    PROVENANCE.name: provenance.document,
}


def documents(facts: ImageFacts) -> dict[str, bytes]:
    """The documents by the names of their kinds."""
    return {name: make(facts) for name, make in _MAKERS.items()}
