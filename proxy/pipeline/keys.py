"""What is one image, and what is another: keys of all that an image depends on. No IO.

A content is the set of packages and the layers of their closure; an image is a content with the order of its names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from proxy.core.model import ImageRequest, PackageSet, Policy, canonical_json, sha256_hex
from proxy.image.layer_table import NO_TABLE, LayerTable
from proxy.image.manifest import Compression, Format
from proxy.pipeline.named import Defined
from proxy.pipeline.packing import CODECS

#: Part of every content key: another number when the same packages shall become another image.
BUILDER_VERSION = 2


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are made. `always`: attributes of every image where the set has them; `tables`: by package set."""

    system: str
    policy: Policy
    always: tuple[str, ...]
    most_layers: int
    form: Format
    compression: Compression
    tables: Mapping[str, LayerTable] = field(default_factory=dict)

    def table(self, package_set: str) -> LayerTable:
        """What the layers of this package set follow."""
        return self.tables.get(package_set, NO_TABLE)


def image_key(request: ImageRequest, content: str) -> str:
    """The key of an image: that of its content, and what of the request decides the rest, the order of names too."""
    preset = asdict(request.preset)
    return sha256_hex(canonical_json({"content": content, "names": request.attributes, "preset": preset}))


def content_key(request: ImageRequest, package_set: PackageSet, options: ImageOptions) -> str:
    """The key of a content: a hash of all that its packages and layers depend on, and of no order of names."""
    asked = {
        "attributes": sorted(request.attributes),
        "system": request.preset.system or options.system,
    }
    return _key(asked, package_set, options.table(request.package_set), options)


def definition_key(defined: Defined, options: ImageOptions) -> str:
    """The same for a named image: every field of its definition counts."""
    asked = {"definition": asdict(defined.definition), "system": options.system}
    return _key(asked, defined.package_set, options.table(defined.chosen), options)


def _key(
    asked: Mapping[str, object], package_set: PackageSet, table: LayerTable, options: ImageOptions
) -> str:
    return sha256_hex(
        canonical_json(
            {
                **asked,
                "always": list(options.always),
                "arguments": dict(package_set.arguments),
                "builder": BUILDER_VERSION,
                "codec": CODECS[options.compression],
                "format": options.form,
                "layers": options.most_layers,
                "policy": asdict(options.policy),
                "revision": package_set.revision,
                "set": package_set.name,
                "table": table.digest,
            }
        )
    )
