"""Keys that tell one image from another: hashes of all that an image depends on. No IO.

A content is a set of packages and the layers of their closure; an image is a content and the order of its names.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from proxy.core.model import ImageRequest, PackageSet, Policy, canonical_json, sha256_hex
from proxy.image.layer_table import NO_TABLE, LayerTable
from proxy.image.manifest import Compression, Format
from proxy.pipeline.named import NamedImage
from proxy.pipeline.packing import CODECS

#: Part of every content key. Another number makes other images of the same packages.
BUILDER_VERSION = 5


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The options of all images. `always`: attributes that every image has, if its set has them; `tables`: by package set.

    `platforms`: the Nix systems of an index, in its order; without any, each image is a plain manifest.
    """

    system: str
    policy: Policy
    always: tuple[str, ...]
    most_layers: int
    form: Format
    compression: Compression
    tables: Mapping[str, LayerTable] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()

    def systems(self, request: ImageRequest) -> tuple[str, ...]:
        """The systems of the index that this request means; none where it means the image of one platform alone."""
        return () if request.preset.system else self.platforms

    def table(self, package_set: str) -> LayerTable:
        """The layer table of this package set; `NO_TABLE` if it has none."""
        return self.tables.get(package_set, NO_TABLE)


def byte_settings(options: ImageOptions, package_set: str) -> dict[str, str | int]:
    """The settings on which the bytes of an image depend, beside its request and its revision; by their names."""
    return {
        "image.format": options.form,
        "image.platforms": " ".join(options.platforms),
        "layers.compression": CODECS[options.compression],
        "layers.most": options.most_layers,
        "layers.table": options.table(package_set).digest,
        "packages.always": " ".join(options.always),
        "packages.system": options.system,
        "builder": BUILDER_VERSION,
    }


def changed(before: str, now: Mapping[str, str | int]) -> list[str]:
    """How the settings of a record differ from those of `now`, in words; a record without settings says nothing."""
    try:
        then = json.loads(before or "{}")
    except (ValueError, RecursionError):
        return []
    if not isinstance(then, dict):
        return []
    names = sorted(name for name in now if name in then and then[name] != now[name])
    if "builder" in names:
        return ["another version of nixfront made it"]
    return [f"{name} was {then[name] or 'empty'} and is {now[name] or 'empty'}" for name in names]


def image_key(request: ImageRequest, content: str) -> str:
    """The key of an image: a hash of its content's key and of the rest of the request, with the order of names."""
    preset = asdict(request.preset)
    fields = {"content": content, "first": request.first, "names": request.attributes, "preset": preset}
    return sha256_hex(canonical_json(fields))


def content_key(request: ImageRequest, package_set: PackageSet, options: ImageOptions) -> str:
    """The key of a content: a hash of all that its packages and layers depend on, without the order of names."""
    fields = {
        "attributes": sorted(request.attributes),
        "system": request.preset.system or options.system,
    }
    return _key(fields, package_set, options.table(request.package_set), options)


def definition_key(image: NamedImage, options: ImageOptions) -> str:
    """The key of a named image's content: every field of its definition counts."""
    fields = {"definition": asdict(image.definition), "system": image.system}
    return _key(fields, image.package_set, options.table(image.set_name), options)


def _key(
    fields: Mapping[str, object], package_set: PackageSet, table: LayerTable, options: ImageOptions
) -> str:
    return sha256_hex(
        canonical_json(
            {
                **fields,
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
