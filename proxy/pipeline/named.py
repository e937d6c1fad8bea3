"""Named images: an image of the operator's file -> its definition, then its packages and its root, realised.

The tag chooses the revision of the image's own package set. Which set that is, the file says, and the file is a function
of the default set: so it is asked first with the default set alone, and once more only where the image is about another.

The operator's extraCommands run in one more Nix build, between realising and layering, because what they put into the root
may name store paths, and these belong into the image's layers too.
"""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.core.errors import ImageInvalid, TagUnknown
from proxy.core.model import Closure, ImageRequest, Package, PackageSet, PathInfo
from proxy.image import recipe as image_recipe
from proxy.image import root_tree, store_tree
from proxy.image.recipe import Definition, owned
from proxy.image.root_tree import Root
from proxy.nix import image_results
from proxy.nix.evaluate import Evaluator, ImagesFile
from proxy.nix.sets import LATEST, PackageSets
from proxy.nix.store import NixStore


@dataclass(frozen=True, slots=True)
class Defined:
    """A named image at one revision of its package set, which the file calls `chosen` (empty: the default one)."""

    definition: Definition
    package_set: PackageSet
    chosen: str = ""


@dataclass(frozen=True, slots=True)
class Realised:
    """What is in the store now: the closure for the layers, and the root layer.

    `paths`: the store paths that were built or fetched, without what they need.
    """

    closure: Closure
    root: Root
    paths: tuple[str, ...]


class NamedImages:
    """The images of one file."""

    def __init__(
        self,
        written: ImagesFile,
        sets: PackageSets,
        evaluator: Evaluator,
        store: NixStore,
        listing: root_tree.Listing,
        *,
        system: str,
    ) -> None:
        self._written = written
        self._sets = sets
        self._evaluator = evaluator
        self._store = store
        self._listing = listing
        self._system = system

    async def define(self, request: ImageRequest) -> Defined:
        """What the file says of the image that is asked for. Raises a `NixfrontError` that names image and key."""
        unknown: TagUnknown | None = None
        try:
            package_set = await self._sets.resolve("", request.tag)
        except TagUnknown as error:  # it may be a tag of the set that the image is about
            unknown, package_set = error, await self._sets.resolve("", LATEST)
        chosen = ""
        found = await self._ask(request.image, package_set, chosen, package_set)
        if found["kind"] == "elsewhere":
            chosen, pkgs = found["set"], await self._sets.resolve("", LATEST)
            own = await self._sets.resolve(chosen, request.tag)
            package_set = replace(own, substitutes=own.substitutes or pkgs.substitutes)
            found = await self._ask(request.image, package_set, chosen, pkgs)
        elif unknown is not None and found["kind"] == "image":
            raise unknown
        known = await self._evaluator.names_soon(package_set) if image_results.lacks_package(found) else ()
        read = await asyncio.to_thread(
            image_results.read_image, found, request.image, package_set.name, known
        )
        return Defined(read, package_set, chosen)

    async def _ask(
        self, image: str, package_set: PackageSet, chosen: str, pkgs: PackageSet
    ) -> image_results.ImageResult:
        return await self._evaluator.image(image, self._written, package_set, chosen, pkgs)

    async def to_fetch(self, defined: Defined) -> int:
        """As `NixStore.to_fetch`."""
        return await self._store.to_fetch(defined.package_set, defined.definition.recipe.packages)

    async def realise(self, defined: Defined, roots: Path, on_line: Callable[[str], None]) -> Realised:
        """All of the image's store paths, held by roots in the folder `roots`.

        Raises as `NixStore.realise` does, `PackageUnusable`, and `ImageInvalid`.
        """
        wanted, package_set = defined.definition, defined.package_set
        recipe = wanted.recipe
        tools = [f"{tool.drv_path}!{name}" for tool in wanted.tools for name, _ in tool.outputs]
        closure = await self._store.realise(
            package_set,
            recipe.packages,
            (f"image {recipe.image}",),
            roots,
            on_line,
            beside=(*wanted.runs.realise, *wanted.commands.realise, *tools),
            paths=wanted.runs.paths,
        )
        outputs = [path for package in recipe.packages for _, path in package.outputs]
        realised = (*outputs, *wanted.runs.paths)
        root = await asyncio.to_thread(image_recipe.root, recipe, self._listing)
        if not wanted.script:
            return Realised(closure, root, realised)
        changed, paths = await self._changed(defined, root, roots, on_line)
        entries = await asyncio.to_thread(store_tree.read_back, changed, self._store.prefix)
        return Realised(
            replace(closure, paths=_together(closure.paths, paths, without=changed)),
            replace(root, entries=owned(recipe, entries)),
            (*realised, changed),
        )

    async def _changed(
        self, defined: Defined, root: Root, roots: Path, on_line: Callable[[str], None]
    ) -> tuple[str, tuple[PathInfo, ...]]:
        """The store path of the root as the operator's commands left it, and its closure."""
        wanted = defined.definition
        bash = self._bash(wanted)
        outputs = [path for tool in wanted.tools for _, path in tool.outputs]
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=roots))
        modes = await asyncio.to_thread(store_tree.lay_out, root.entries, folder)
        inputs = {path for package in wanted.recipe.packages for _, path in package.outputs}
        request = {
            "system": self._system,
            "tree": str(folder),
            "modes": modes,
            "script": wanted.script,
            "bash": bash,
            "path": ":".join(f"{path}/bin" for path in outputs),
            "inputs": sorted(inputs | {*outputs, *wanted.runs.paths, *wanted.commands.paths}),
        }
        told = f"the extraCommands of image {wanted.recipe.image}"
        return await self._store.build_root(defined.package_set, request, told, roots, on_line)

    def _bash(self, wanted: Definition) -> str:
        """The shell that runs the commands. Raises `ImageInvalid`."""
        for tool in wanted.tools:
            for _, path in tool.outputs:
                if self._listing.kind(f"{path}/bin/bash") == "executable":
                    return f"{path}/bin/bash"
        raise ImageInvalid(
            f"image {wanted.recipe.image}: its extraCommands need a bash, and {_told(wanted.tools)} has none"
        )


def _together(
    one: tuple[PathInfo, ...], other: tuple[PathInfo, ...], *, without: str
) -> tuple[PathInfo, ...]:
    """Both closures in one, sorted, less one path that is in no layer."""
    found = {info.path: info for info in (*one, *other) if info.path != without}
    return tuple(found[path] for path in sorted(found))


def _told(tools: tuple[Package, ...]) -> str:
    return " or ".join(tool.name for tool in tools)
