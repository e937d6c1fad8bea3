"""An image in the registry that says that it is ours: how much of that can be believed, and what it says of its layers.

Pure. A label alone proves nothing: `docker build FROM` an image of ours inherits it, and anybody can tag a copy. So it
counts only while the seal is whole (nothing was added or changed) and where the labels name the very repository and tag
under which the image stands. And even that is a claim that whoever may push can make: what a layer holds is believed by
those alone who pack the same store paths themselves and get the same bytes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy import names
from proxy.manifest import unsealed
from proxy.model import ImageRequest, Layer, LayerPlan

# Nix's own: a word that is anything else could lead out of the store.
_STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[A-Za-z0-9+._?=-]+")


@dataclass(frozen=True, slots=True)
class Claim:
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
        asked = {_folded(".".join(names.attribute_path(name))) for name in request.attributes}
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


def read(manifest: bytes, config: bytes) -> Claim | None:
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
    return Claim({str(name): str(text) for name, text in labels.items()}, held)


def _plan(comment: str) -> LayerPlan:
    """The store paths that a line of history names, in order; none for the root layer."""
    words = tuple(comment.split())
    return LayerPlan(words if all(_STORE_PATH.fullmatch(word) for word in words) else ())


def _folded(attribute: str) -> str:
    """An attribute path as a repository path may spell it: case aside, without an underscore before a digit."""
    parts = [part.removeprefix("_") if part[1:2].isdigit() else part for part in attribute.lower().split(".")]
    return ".".join(parts)
