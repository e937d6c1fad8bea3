"""The builder of `nix/build-registry-image.nix`: the image that the proxy pushes, made inside a Nix build.

It runs under a bare python3 of the package set, so it and all that it imports needs the standard library alone. The modules
that the proxy uses make every decision; this module hands them Nix's facts of the closure (`exportReferencesGraph`)
and writes their results to files. The arguments are Nix's structured attributes: `step` (`tree` or `image`), `request` (the
request: see the head comment of the expression), `graph`, `outputs`, and `changed` (the store path of the root tree after
extraCommands). The step `index` has `images` instead: the document and the folder of each image.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from proxy.core import platforms
from proxy.core.model import (
    Closure,
    Descriptor,
    Image,
    Layer,
    LayerPlan,
    Package,
    PackageSet,
    PathInfo,
    contents_tag,
)
from proxy.image import layer_table, layering, manifest, store_tree, tar
from proxy.image import recipe as image_recipe
from proxy.image.recipe import Definition, Recipe, TextPaths, command, comments, output_tag, owned, tag
from proxy.image.tar import Entry

#: The file `version` of a folder for `skopeo copy dir:FOLDER`.
_DIR_VERSION = "Directory Transport Version: 1.1\n"


def main() -> None:
    """Do the step that this build is for."""
    attributes = _attributes(os.environ)
    outputs = {name: Path(path) for name, path in attributes["outputs"].items()}
    step = attributes["step"]
    if step == "tree":
        write_tree(attributes, outputs["out"])
        return
    write = write_index if step == "index" else write_image
    document = write(attributes, outputs["image"])
    outputs["out"].write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _attributes(environment: Mapping[str, str]) -> dict[str, Any]:
    """Nix's structured attributes. Nix 2.8 names a file that its sandbox hides; a copy is where builds begin."""
    here = Path(environment["NIX_BUILD_TOP"], ".attrs.json")
    file = here if here.exists() else Path(environment["NIX_ATTRS_JSON_FILE"])
    attributes: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return attributes


def write_tree(attributes: Mapping[str, Any], folder: Path) -> None:
    """Write the merged root tree, and the modes that Nix would not keep, for `nix/commands.nix`."""
    (folder / "tree").mkdir(parents=True)
    paths, request = {info.path for info in _closure(attributes["graph"], "")}, attributes["request"]
    listing = store_tree.StoreListing(paths=paths)
    root = image_recipe.root(_recipe(request), _package_set(request), listing, paths)
    modes = store_tree.lay_out(root.entries, folder / "tree")
    (folder / "modes").write_text(
        "".join(f"{line}\n" for line in modes), encoding="utf-8", errors="surrogateescape"
    )


def write_image(attributes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write every blob and the manifest of the image into `folder`; returns the document that says where they are."""
    request, changed = attributes["request"], attributes.get("changed") or ""
    folder.mkdir()
    recipe = _recipe(request)
    table = (
        layer_table.read(Path(request["table"]).read_bytes()) if request["table"] else layer_table.NO_TABLE
    )
    closure = Closure(recipe.packages, _closure(attributes["graph"], changed))
    plans = layering.plan(closure, request["maxLayers"] - 1, table)
    root = owned(recipe, store_tree.read_back(changed)) if changed else None
    paths = {info.path for info in closure.paths}
    listing = store_tree.StoreListing(paths=paths)
    root = root or image_recipe.root(recipe, _package_set(request), listing, paths).entries
    around = image_recipe.surroundings(recipe, root, listing, paths)

    store_tree.check_names(info.path for info in closure.paths)
    layers = [_write_layer(store_tree.store_entries(plan.paths), folder) for plan in plans]
    layers.append(_write_layer(root, folder))
    image = manifest.assemble(
        image_recipe.facts(
            recipe, _package_set(request), request["system"], command(recipe, listing), around
        ),
        layers,
        comments(recipe, plans),
        form=request["format"],
        compression="none",
    )
    (folder / _hexadecimal(image.config_descriptor.digest)).write_bytes(image.config)
    (folder / "manifest.json").write_bytes(image.manifest)
    (folder / "version").write_text(_DIR_VERSION, encoding="ascii")
    return _document(request, folder, image, layers, plans)


def write_index(attributes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the index of images that are there, with links to their files; returns the document that says where all are."""
    request = attributes["request"]
    folder.mkdir()
    documents = [
        json.loads(Path(image["document"]).read_text(encoding="utf-8")) for image in attributes["images"]
    ]
    children = []
    for system, document, image in zip(request["systems"], documents, attributes["images"], strict=True):
        at, name = document["manifestLocation"], _hexadecimal(document["manifestLocation"]["digest"])
        children.append((system, Descriptor(at["mediaType"], at["size"], at["digest"])))
        _link(folder / f"{name}.manifest.json", Path(at["path"]))
        for digest in document["layerLocations"]:
            _link(folder / _hexadecimal(digest), Path(image["folder"], _hexadecimal(digest)))
    index = manifest.assemble_index(children, {}, form=request["format"])
    (folder / "manifest.json").write_bytes(index.data)
    (folder / "version").write_text(_DIR_VERSION, encoding="ascii")
    hashes = [document["outputs"] for document in documents]
    outputs = hashes[0] if len(hashes) == 1 else output_tag(hashes)
    return {
        "name": request["name"],
        "tag": request["tag"] or contents_tag(outputs),
        "outputs": outputs,
        "manifest": json.loads(index.data),
        "manifestLocation": _location(folder / "manifest.json", index.descriptor),
        "images": {
            platforms.of_system(system).name: document
            for system, document in zip(request["systems"], documents, strict=True)
        },
    }


def _link(name: Path, target: Path) -> None:
    """Images share layers, so a file may be there. The link holds in a store of another folder too."""
    if not name.is_symlink():
        name.symlink_to(os.path.relpath(target, name.parent))


def _recipe(request: Mapping[str, Any]) -> Recipe:
    """The recipe of packages as a path names them, or of a named image."""
    ordered: dict[object, Package] = {}
    for facts in request["packages"]:
        package = _package(facts)
        ordered.setdefault(package.outputs if request["named"] else package.attribute, package)
    uid, gid = request["owner"]
    return Recipe(
        packages=tuple(ordered.values()),
        image=request["name"] if request["named"] else "",
        owner=(uid, gid),
        script=bool(request["extraCommands"]),
        version="" if request["named"] else next((package.version for package in ordered.values()), ""),
    )


def _package(facts: Mapping[str, Any]) -> Package:
    outputs = tuple((output["name"], output["path"]) for output in facts["outputs"])
    attribute, name, program = facts["attribute"], facts["name"], facts["mainProgram"]
    return Package(attribute, name, "", outputs, program, version=facts["version"])


def _package_set(request: Mapping[str, Any]) -> PackageSet:
    origin = request["origin"]
    return PackageSet(
        name=origin["name"],
        expression="",
        revision=origin["revision"],
        source=origin["source"],
        created=origin["created"],
        nar_hash=origin["narHash"],
    )


def _outputs(request: Mapping[str, Any]) -> str:
    """The hash of the outputs, after which the proxy calls a tag."""
    recipe = _recipe(request)
    if not request["named"]:
        return output_tag(sorted(path for package in recipe.packages for _, path in package.outputs))
    tools = tuple(_package(facts) for facts in request["tools"])
    definition = Definition(recipe, TextPaths(), request["maxLayers"], request["extraCommands"], tools=tools)
    return tag(definition)


def _closure(graph: Iterable[Mapping[str, Any]], without: str) -> tuple[PathInfo, ...]:
    """Nix's facts of the closure, without the root tree itself, which is in no layer of store paths."""
    infos = [
        PathInfo(
            path=item["path"],
            nar_size=item["narSize"],
            references=tuple(sorted(path for path in item["references"] if path != item["path"])),
        )
        for item in graph
        if item["path"] != without
    ]
    return tuple(sorted(infos, key=lambda info: info.path))


def _write_layer(entries: Iterable[Entry], folder: Path) -> Layer:
    """Write the archive of these members into a file whose name is its digest."""
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
    request: Mapping[str, Any],
    folder: Path,
    image: Image,
    layers: Iterable[Layer],
    plans: Iterable[LayerPlan],
) -> dict[str, Any]:
    parsed = json.loads(image.manifest)
    descriptors = {item["digest"]: item for item in [parsed["config"], *parsed["layers"]]}
    locations: dict[str, dict[str, Any]] = {
        digest: {
            "path": str(folder / _hexadecimal(digest)),
            "size": item["size"],
            "mediaType": item["mediaType"],
        }
        for digest, item in descriptors.items()
    }
    paths = [*(list(plan.paths) for plan in plans), []]
    for layer, store_paths in zip(layers, paths, strict=True):
        locations[layer.digest] |= {"diffId": layer.diff_id, "storePaths": store_paths}
    outputs = _outputs(request)
    return {
        "name": request["name"],
        "tag": request["tag"] or contents_tag(outputs),
        "outputs": outputs,
        "manifest": parsed,
        "manifestLocation": _location(folder / "manifest.json", image.manifest_descriptor),
        "layerLocations": locations,
    }


def _location(file: Path, descriptor: Descriptor) -> dict[str, Any]:
    return {
        "path": str(file),
        "size": descriptor.size,
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
    }


def _hexadecimal(digest: str) -> str:
    return digest.partition(":")[2]
