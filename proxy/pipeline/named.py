"""Named images: an image of the operator's file -> its definition -> its packages and its root tree in the store.

The tag chooses the revision of the image's package set. The file says which set that is, and the file is a function of
the default set. So the file is evaluated first with the default set alone, and again only if the image has another set.

The operator's extraCommands run in a Nix build of their own, after the packages are built and before layering. What they
put into the root may name store paths, and these paths belong into the image's layers too.
"""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.core.errors import ImageInvalid, TagUnknown
from proxy.core.model import Closure, ImageRequest, Package, PackageSet, PathInfo
from proxy.core.names import version_tag
from proxy.image import recipe as image_recipe
from proxy.image import store_tree
from proxy.image.recipe import Definition, owned
from proxy.image.root_tree import Root
from proxy.image.store_tree import StoreListing
from proxy.nix import image_results
from proxy.nix.evaluate import Evaluator, ImagesFile
from proxy.nix.sets import LATEST, PackageSets
from proxy.nix.store import NixStore
from proxy.tools.name_index import NO_NAMES


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A named image for one Nix system, at one revision of its package set; `set_name` is empty for the default set."""

    definition: Definition
    package_set: PackageSet
    set_name: str = ""
    system: str = ""

    @property
    def version(self) -> str:
        """What its labels say."""
        return dict(self.definition.recipe.labels).get(image_recipe.VERSION, "")


@dataclass(frozen=True, slots=True)
class ImageInStore:
    """The parts of an image in the store: the closure for its layers, and its root tree.

    `paths`: the store paths that Nix built or fetched for it, without those that they need.
    """

    closure: Closure
    root: Root
    paths: tuple[str, ...]


class NamedImages:
    """The images of one file."""

    def __init__(
        self,
        file: ImagesFile,
        sets: PackageSets,
        evaluator: Evaluator,
        store: NixStore,
        listing: StoreListing,
        *,
        system: str,
    ) -> None:
        self._file = file
        self._sets = sets
        self._evaluator = evaluator
        self._store = store
        self._listing = listing
        self._system = system

    async def define(self, request: ImageRequest) -> NamedImage:
        """The image as the file defines it. Raises a `NixfrontError` that names image and key."""
        # The tag may be one of another set, which only the file names, or the version of the image.
        package_set, unknown = await self._chosen("", request)
        set_name = ""
        system = request.preset.system or self._system
        answer = await self._evaluate(request, package_set, set_name, package_set)
        if answer["kind"] == "elsewhere":
            set_name, default = answer["set"], await self._sets.resolve("", LATEST, system)
            own, unknown = await self._chosen(set_name, request)
            package_set = replace(own, substitutes=own.substitutes or default.substitutes)
            answer = await self._evaluate(request, package_set, set_name, default)
        lacks = image_results.lacks_package(answer)
        index = await self._evaluator.index_soon(package_set) if lacks else NO_NAMES
        definition = await asyncio.to_thread(
            image_results.read_image, answer, request.image, package_set.name, index
        )
        image = NamedImage(definition, package_set, set_name, system)
        if unknown is not None and version_tag(image.version) != request.tag:
            there = f"; image {request.image} has the version {image.version}" if image.version else ""
            raise TagUnknown(f"{unknown}{there}")
        return image

    async def _chosen(self, set_name: str, request: ImageRequest) -> tuple[PackageSet, TagUnknown | None]:
        """The revision that a tag chooses; where it chooses none, the default one and the error that says so."""
        system = request.preset.system
        try:
            return await self._sets.resolve(set_name, request.tag, system), None
        except TagUnknown as error:
            return await self._sets.resolve(set_name, LATEST, system), error

    async def _evaluate(
        self, request: ImageRequest, package_set: PackageSet, set_name: str, default: PackageSet
    ) -> image_results.ImageResult:
        system = request.preset.system
        return await self._evaluator.image(
            request.image, self._file, package_set, set_name, default, system=system
        )

    async def to_fetch(self, image: NamedImage) -> int:
        """As `NixStore.to_fetch`."""
        return await self._store.to_fetch(image.package_set, image.definition.recipe.packages)

    async def realise(self, image: NamedImage, roots: Path, on_line: Callable[[str], None]) -> ImageInStore:
        """Build the image's store paths; roots in the folder `roots` hold them.

        Raises as `NixStore.realise` does, `PackageUnusable`, and `ImageInvalid`.
        """
        definition, package_set = image.definition, image.package_set
        recipe = definition.recipe
        tools = [f"{tool.drv_path}!{name}" for tool in definition.tools for name, _ in tool.outputs]
        closure = await self._store.realise(
            package_set,
            recipe.packages,
            (f"image {recipe.image}",),
            roots,
            on_line,
            beside=(*definition.runs.realise, *definition.commands.realise, *tools),
            paths=definition.runs.paths,
        )
        outputs = [path for package in recipe.packages for _, path in package.outputs]
        built = (*outputs, *definition.runs.paths)
        paths = {info.path for info in closure.paths}
        listing = self._listing.within(paths)
        root = await asyncio.to_thread(image_recipe.root, recipe, package_set, listing, paths)
        if not definition.script:
            return ImageInStore(closure, root, built)
        tree, more = await self._run_commands(image, root, roots, on_line)
        entries = await asyncio.to_thread(store_tree.read_back, tree, self._store.prefix)
        return ImageInStore(
            replace(closure, paths=_union(closure.paths, more, without=tree)),
            replace(root, entries=owned(recipe, entries)),
            (*built, tree),
        )

    async def _run_commands(
        self, image: NamedImage, root: Root, roots: Path, on_line: Callable[[str], None]
    ) -> tuple[str, tuple[PathInfo, ...]]:
        """The store path of the root tree after the operator's extraCommands, and its closure."""
        definition = image.definition
        bash = self._bash(definition)
        outputs = [path for tool in definition.tools for _, path in tool.outputs]
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=roots))
        modes = await asyncio.to_thread(store_tree.lay_out, root.entries, folder)
        inputs = {path for package in definition.recipe.packages for _, path in package.outputs}
        request = {
            "system": image.system,
            "tree": str(folder),
            "modes": modes,
            "script": definition.script,
            "bash": bash,
            "path": ":".join(f"{path}/bin" for path in outputs),
            "inputs": sorted(inputs | {*outputs, *definition.runs.paths, *definition.commands.paths}),
        }
        name = f"the extraCommands of image {definition.recipe.image}"
        return await self._store.build_root(image.package_set, request, name, roots, on_line)

    def _bash(self, definition: Definition) -> str:
        """The shell that runs the commands. Raises `ImageInvalid`."""
        for tool in definition.tools:
            for _, path in tool.outputs:
                if self._listing.kind(f"{path}/bin/bash") == "executable":
                    return f"{path}/bin/bash"
        raise ImageInvalid(
            f"image {definition.recipe.image}: its extraCommands need a bash, and {_names(definition.tools)} has none"
        )


def _union(one: tuple[PathInfo, ...], other: tuple[PathInfo, ...], *, without: str) -> tuple[PathInfo, ...]:
    """Both closures in one, sorted, without one path that is in no layer."""
    infos = {info.path: info for info in (*one, *other) if info.path != without}
    return tuple(infos[path] for path in sorted(infos))


def _names(tools: tuple[Package, ...]) -> str:
    return " or ".join(tool.name for tool in tools)
