"""What an image holds: a request -> a content, that is store paths in the Nix store, and the plans of their layers.

There are two kinds of contents, with one contract: the packages of a request, and a named image of the operator's file.
`resolve` says by a key which content a request means; to open the content builds it and holds it in the store.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from proxy.core.errors import CacheUnusable, DerivationLost
from proxy.core.events import LogLine, NixBegun, Sink
from proxy.core.model import Closure, ImageRequest, Package, PackageSet
from proxy.core.names import version_tag
from proxy.image import layering
from proxy.image import recipe as image_recipe
from proxy.nix.binary_cache import BinaryCache
from proxy.nix.cache.closure import BinaryCaches, Place
from proxy.nix.cache.files import CacheFiles
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import LATEST, PackageSets
from proxy.nix.store import NixStore
from proxy.pipeline.contents.arriving import arriving_files
from proxy.pipeline.contents.choice import chosen_set, evaluated
from proxy.pipeline.contents.content import Content, ResolvedContent
from proxy.pipeline.contents.limits import bytes_within, closure_within, layers_within
from proxy.pipeline.contents.store_files import DiskFiles, StoreFiles
from proxy.pipeline.keys import ImageOptions, content_key, definition_key
from proxy.pipeline.named import NamedImage, NamedImages
from proxy.tools.scratch import scratch_folder

_log = logging.getLogger(__name__)


class PackageContents:
    """The contents of requests that name packages."""

    def __init__(
        self,
        sets: PackageSets,
        evaluator: Evaluator,
        store: NixStore,
        binary_cache: BinaryCache,
        options: ImageOptions,
        roots: Path,
        sink: Sink,
        caches: BinaryCaches,
        *,
        straight: bool,
    ) -> None:
        """`roots` is the folder of the garbage-collector roots.

        With `straight` packages come straight from `caches`, where these have all of them. Else everything comes through the store,
        and the caches only say what will come.
        """
        self._caches = caches
        self._straight = straight
        self._sets = sets
        self._evaluator = evaluator
        self._store = store
        self._binary_cache = binary_cache
        self._options = options
        self._roots = roots
        self._sink = sink

    async def resolve(self, request: ImageRequest) -> ResolvedContent:
        """As `Contents.resolve`."""
        package_set = await chosen_set(request, self._sets, self._evaluator, self._options.always)
        key = content_key(request, package_set, self._options)
        built = ResolvedContent(key, partial(self._open, request, package_set, key))
        from_caches = partial(self._open_from_caches, request, package_set, key)
        fetched = ResolvedContent(key, partial(from_caches, straight=False), built)
        return (
            ResolvedContent(key, partial(from_caches, straight=True), fetched) if self._straight else fetched
        )

    @asynccontextmanager
    async def _open_from_caches(
        self, request: ImageRequest, package_set: PackageSet, key: str, *, straight: bool
    ) -> AsyncIterator[Content]:
        """The content, where binary caches have all of it and the store has not: `straight` from them, or while Nix fetches it.

        Else as `_open`.
        """
        packages = await self._evaluate(request, package_set, key)
        places = await self._places(packages, package_set)
        if not places:
            async with self._open(request, package_set, key) as content:
                yield content
            return
        closure = _closure(packages, places)
        closure_within(self._options.policy.most_bytes, closure, request.names)  # before anything is fetched
        async with AsyncExitStack() as stack:
            files: StoreFiles
            if straight:
                _log.info("from binary caches image=%s paths=%d", request.repository, len(places))
                files = CacheFiles(
                    self._caches, places, _outputs(packages), substitutes=package_set.substitutes
                )
            else:
                roots = await stack.enter_async_context(scratch_folder(self._roots))
                fetch = self._fetch(request, package_set, key, roots, closure)
                files = await stack.enter_async_context(arriving_files(self._store, places, fetch))
            yield await self._content(request, package_set, packages, closure, files)

    async def _fetch(
        self, request: ImageRequest, package_set: PackageSet, key: str, roots: Path, expected: Closure
    ) -> None:
        """Fetch a closure into the store. Raises `CacheUnusable` if it proves another one, or has to be evaluated again."""
        try:
            closure = await self._realise(request, package_set, expected.packages, key, roots)
        except DerivationLost as error:
            raise CacheUnusable(str(error)) from error
        if closure != expected:
            raise CacheUnusable("Nix fetched store paths with other references than the binary caches say")

    async def _places(
        self, packages: Mapping[str, Package], package_set: PackageSet
    ) -> Mapping[str, Place] | None:
        """Where binary caches have the closure of these packages; nothing where they lack a part, or the store has the packages."""
        outputs = _outputs(packages)
        if await asyncio.to_thread(self._store.has_all, outputs):
            return None
        return await self._caches.closure(outputs, substitutes=package_set.substitutes)

    @asynccontextmanager
    async def _open(self, request: ImageRequest, package_set: PackageSet, key: str) -> AsyncIterator[Content]:
        async with scratch_folder(self._roots) as roots:
            try:
                packages, closure = await self._realised(request, package_set, key, roots)
            except DerivationLost:
                # A garbage collection came after the evaluation: no root can hold a derivation before it is built.
                self._evaluator.forget()
                packages, closure = await self._realised(request, package_set, key, roots)
            files = DiskFiles(self._store.prefix)
            yield await self._content(request, package_set, packages, closure, files)

    async def _content(
        self,
        request: ImageRequest,
        package_set: PackageSet,
        packages: Mapping[str, Package],
        closure: Closure,
        files: StoreFiles,
    ) -> Content:
        """The content of these packages. Raises `ImageTooLarge`."""
        policy, table = self._options.policy, self._options.table(request.package_set)
        closure_within(policy.most_bytes, closure, request.names)
        plans = layering.plan(closure, self._options.most_layers - 1, table)
        layers_within(policy.most_layer_bytes, plans, closure, request.names)
        outputs = sorted(_outputs(packages))
        return Content(
            package_set,
            plans,
            image_recipe.output_tag(outputs),
            files,
            packages=packages,
            version_tag=await self._version_tag(request, packages),
            set_name=request.package_set,
            paths=closure.paths,
        )

    async def _version_tag(self, request: ImageRequest, packages: Mapping[str, Package]) -> str | None:
        """The version of the image as a tag, if it is of the default revision and the tag chooses no other one."""
        tag = version_tag(packages[request.first or request.attributes[0]].version)
        if tag is None or request.tag not in (LATEST, tag):
            return None
        return None if tag != request.tag and await self._sets.has(request.package_set, tag) else tag

    async def _evaluate(self, request: ImageRequest, package_set: PackageSet, key: str) -> dict[str, Package]:
        self._sink(NixBegun(key, "evaluating"))
        return await evaluated(request, package_set, self._evaluator, self._options.always)

    async def _realised(
        self, request: ImageRequest, package_set: PackageSet, key: str, roots: Path
    ) -> tuple[dict[str, Package], Closure]:
        """The packages by name as typed, and their closure, which `roots` holds. Raises `DerivationLost`: try again."""
        packages = await self._evaluate(request, package_set, key)
        most = self._options.policy.most_bytes
        if most and package_set.substitutes:
            download = await self._store.to_fetch(package_set, list(packages.values()))
            bytes_within(most, download, 0, request.names)
        return packages, await self._realise(request, package_set, tuple(packages.values()), key, roots)

    async def _realise(
        self,
        request: ImageRequest,
        package_set: PackageSet,
        packages: tuple[Package, ...],
        key: str,
        roots: Path,
    ) -> Closure:
        self._sink(NixBegun(key, "building"))
        on_line = _log_lines(self._sink, request.names, key)
        closure = await self._store.realise(package_set, packages, request.attributes, roots, on_line)
        self._binary_cache.add([path for package in packages for _, path in package.outputs])
        return closure


def _outputs(packages: Mapping[str, Package]) -> list[str]:
    return [path for package in packages.values() for _, path in package.outputs]


def _closure(packages: Mapping[str, Package], places: Mapping[str, Place]) -> Closure:
    return Closure(tuple(packages.values()), tuple(place.info.info for place in places.values()))


class NamedContents:
    """The contents of named images."""

    def __init__(
        self,
        images: NamedImages,
        evaluator: Evaluator,
        store: NixStore,
        binary_cache: BinaryCache,
        options: ImageOptions,
        roots: Path,
        sink: Sink,
    ) -> None:
        """`roots` is the folder of the garbage-collector roots."""
        self._files = DiskFiles(store.prefix)
        self._images = images
        self._evaluator = evaluator
        self._binary_cache = binary_cache
        self._options = options
        self._roots = roots
        self._sink = sink

    async def resolve(self, request: ImageRequest) -> ResolvedContent:
        """As `Contents.resolve`."""
        image = await self._images.define(request)
        key = definition_key(image, self._options)
        return ResolvedContent(key, partial(self._open, request, image, key))

    @asynccontextmanager
    async def _open(self, request: ImageRequest, image: NamedImage, key: str) -> AsyncIterator[Content]:
        options = self._options
        most = options.policy.most_bytes
        on_line = _log_lines(self._sink, request.names, key)
        async with scratch_folder(self._roots) as roots:
            if most and image.package_set.substitutes:
                bytes_within(most, await self._images.to_fetch(image), 0, request.names)
            self._sink(NixBegun(key, "building"))
            try:
                in_store = await self._images.realise(image, roots, on_line)
            except DerivationLost:  # as for packages
                self._evaluator.forget()
                image = await self._images.define(request)
                in_store = await self._images.realise(image, roots, on_line)
            self._binary_cache.add(in_store.paths)
            closure_within(most, in_store.closure, request.names)
            layers = image.definition.most_layers or options.most_layers
            plans = layering.plan(in_store.closure, layers - 1, options.table(image.set_name))
            layers_within(options.policy.most_layer_bytes, plans, in_store.closure, request.names)
            yield Content(
                image.package_set,
                plans,
                image_recipe.tag(image.definition),
                self._files,
                recipe=image.definition.recipe,
                root=in_store.root,
                version_tag=version_tag(image.version) if request.tag == LATEST else None,
                set_name=image.set_name,
                paths=in_store.closure.paths,
            )


def _log_lines(sink: Sink, words: tuple[str, ...], key: str) -> Callable[[str], None]:
    """What takes the lines of a build's log; `words` are what a person typed."""
    return lambda line: sink(LogLine(words, line, key))
