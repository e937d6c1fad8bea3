"""The builder of `nix/build-registry-image.nix`: the image that the proxy pushes, made inside a Nix build.

Runs under a bare python3 of the package set, so it and all that it imports needs the standard library alone. Every decision
is made by the modules that the proxy makes it with; here they are only fed with what Nix says of the closure
(`exportReferencesGraph`), and what they make is written down. The arguments come as Nix's structured attributes: `step`
(`tree` or `image`), `asked` (the head comment of the expression), `graph`, `outputs`, and `changed`, the store path of the
root as extraCommands left it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from proxy.core.model import Closure, Image, Layer, LayerPlan, Package, PackageSet, PathInfo
from proxy.image import layer_table, layering, manifest, store_tree, tar
from proxy.image import recipe as image_recipe
from proxy.image.recipe import Definition, Recipe, TextPaths, command, comments, output_tag, owned, tag
from proxy.image.tar import Entry

#: What `skopeo copy dir:FOLDER` wants to find in the folder.
_DIR_VERSION = "Directory Transport Version: 1.1\n"


def main() -> None:
    """Do the step that this build is for."""
    attributes = _attributes(os.environ)
    outputs = {name: Path(path) for name, path in attributes["outputs"].items()}
    if attributes["step"] == "tree":
        write_tree(attributes["asked"], outputs["out"])
    else:
        document = write_image(attributes, outputs["image"])
        outputs["out"].write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _attributes(environment: Mapping[str, str]) -> dict[str, Any]:
    """Nix's structured attributes. Nix 2.8 names a file that its own sandbox does not show; it is where builds begin."""
    here = Path(environment["NIX_BUILD_TOP"], ".attrs.json")
    file = here if here.exists() else Path(environment["NIX_ATTRS_JSON_FILE"])
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def write_tree(asked: Mapping[str, Any], folder: Path) -> None:
    """The merged root tree, and the modes that Nix would not keep, for `nix/commands.nix`."""
    (folder / "tree").mkdir(parents=True)
    root = image_recipe.root(_recipe(asked), store_tree.StoreListing())
    modes = store_tree.lay_out(root.entries, folder / "tree")
    (folder / "modes").write_text(
        "".join(f"{line}\n" for line in modes), encoding="utf-8", errors="surrogateescape"
    )


def write_image(attributes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Every blob and the manifest of the image as files in `folder`; returns the document that tells where they are."""
    asked, changed = attributes["asked"], attributes.get("changed") or ""
    folder.mkdir()
    recipe, listing = _recipe(asked), store_tree.StoreListing()
    table = layer_table.read(Path(asked["table"]).read_bytes()) if asked["table"] else layer_table.NO_TABLE
    closure = Closure(recipe.packages, _closure(attributes["graph"], changed))
    plans = layering.plan(closure, asked["maxLayers"] - 1, table)
    root = owned(recipe, store_tree.read_back(changed)) if changed else None
    root = root or image_recipe.root(recipe, listing).entries

    layers = [_write_layer(store_tree.store_entries(plan.paths), folder) for plan in plans]
    layers.append(_write_layer(root, folder))
    image = manifest.assemble(
        image_recipe.facts(recipe, _package_set(asked), asked["system"], command(recipe, listing)),
        layers,
        comments(recipe, plans),
        form=asked["format"],
        compression="none",
    )
    (folder / _hexadecimal(image.config_descriptor.digest)).write_bytes(image.config)
    (folder / "manifest.json").write_bytes(image.manifest)
    (folder / "version").write_text(_DIR_VERSION, encoding="ascii")
    return _document(asked, folder, image, layers, plans)


def _recipe(asked: Mapping[str, Any]) -> Recipe:
    """The recipe of packages as a path names them, or of a named image."""
    ordered: dict[object, Package] = {}
    for facts in asked["packages"]:
        package = _package(facts)
        ordered.setdefault(package.outputs if asked["named"] else package.attribute, package)
    uid, gid = asked["owner"]
    return Recipe(
        packages=tuple(ordered.values()),
        image=asked["name"] if asked["named"] else "",
        owner=(uid, gid),
        script=bool(asked["extraCommands"]),
    )


def _package(facts: Mapping[str, Any]) -> Package:
    outputs = tuple((output["name"], output["path"]) for output in facts["outputs"])
    return Package(facts["attribute"], facts["name"], "", outputs, facts["mainProgram"])


def _package_set(asked: Mapping[str, Any]) -> PackageSet:
    origin = asked["origin"]
    return PackageSet(
        name=origin["name"],
        expression="",
        revision=origin["revision"],
        source=origin["source"],
        created=origin["created"],
        nar_hash=origin["narHash"],
    )


def _tag(asked: Mapping[str, Any]) -> str:
    """The hash of the outputs, as the proxy tags an image by it."""
    recipe = _recipe(asked)
    if not asked["named"]:
        return output_tag(sorted(path for package in recipe.packages for _, path in package.outputs))
    tools = tuple(_package(facts) for facts in asked["tools"])
    whole = Definition(recipe, TextPaths(), asked["maxLayers"], asked["extraCommands"], tools=tools)
    return tag(whole)


def _closure(graph: Iterable[Mapping[str, Any]], without: str) -> tuple[PathInfo, ...]:
    """What Nix says of the closure, less the root tree itself, which is in no layer of store paths."""
    found = [
        PathInfo(
            path=item["path"],
            nar_size=item["narSize"],
            references=tuple(sorted(path for path in item["references"] if path != item["path"])),
        )
        for item in graph
        if item["path"] != without
    ]
    return tuple(sorted(found, key=lambda info: info.path))


def _write_layer(entries: Iterable[Entry], folder: Path) -> Layer:
    """The archive of these members, in a file that is called after its digest."""
    digest, size = hashlib.sha256(), 0
    new = folder / ".new"
    with new.open("wb") as file:
        for block in tar.blocks(entries):
            digest.update(block)
            size += file.write(block)
    new.rename(folder / digest.hexdigest())
    name = f"sha256:{digest.hexdigest()}"
    return Layer(name, size, name)


def _document(
    asked: Mapping[str, Any],
    folder: Path,
    image: Image,
    layers: Iterable[Layer],
    plans: Iterable[LayerPlan],
) -> dict[str, Any]:
    parsed = json.loads(image.manifest)
    described = {item["digest"]: item for item in [parsed["config"], *parsed["layers"]]}
    locations: dict[str, dict[str, Any]] = {
        digest: {
            "path": str(folder / _hexadecimal(digest)),
            "size": item["size"],
            "mediaType": item["mediaType"],
        }
        for digest, item in described.items()
    }
    paths = [*(list(plan.paths) for plan in plans), []]
    for layer, held in zip(layers, paths, strict=True):
        locations[layer.digest] |= {"diffId": layer.diff_id, "storePaths": held}
    descriptor = image.manifest_descriptor
    return {
        "name": asked["name"],
        "tag": asked["tag"] or _tag(asked),
        "manifest": parsed,
        "manifestLocation": {
            "path": str(folder / "manifest.json"),
            "size": descriptor.size,
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
        },
        "layerLocations": locations,
    }


def _hexadecimal(digest: str) -> str:
    return digest.partition(":")[2]
