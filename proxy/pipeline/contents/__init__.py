"""What an image holds: a request -> a content, that is store paths in the Nix store, and the plans of their layers.

There are two kinds of contents, with one contract: the packages of a request, and a named image of the operator's file.
`resolve` says by a key which content a request means; to open the content builds it and holds it in the store.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from proxy.core.errors import DerivationLost, TagUnknown
from proxy.core.events import LogLine, NixBegun, Sink
from proxy.core.model import Closure, ImageRequest, LayerPlan, Package, PackageSet, PathInfo
from proxy.core.names import unspelled_tag, version_tag
from proxy.image import layering
from proxy.image import recipe as image_recipe
from proxy.image.recipe import Recipe
from proxy.image.root_tree import Root
from proxy.nix.binary_cache import BinaryCache
from proxy.nix.cache.closure import BinaryCaches
from proxy.nix.cache.files import CacheFiles
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import LATEST, PackageSets
from proxy.nix.store import NixStore
from proxy.pipeline.contents.limits import bytes_within, closure_within, layers_within
from proxy.pipeline.contents.store_files import DiskFiles, StoreFiles
from proxy.pipeline.keys import ImageOptions, content_key, definition_key
from proxy.pipeline.named import NamedImage, NamedImages
from proxy.tools.scratch import scratch_folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """Store paths, where their files are, and the plans of their layers.

    `packages` are those of a request, by the name as typed. A named image has its `recipe` and its `root` already.
    `version_tag`: the tag that is the version of the image, where the image gets it. `set_name`: what the operator calls the
    package set. `paths`: the closure.
    """

    package_set: PackageSet
    plans: tuple[LayerPlan, ...]
    output_tag: str
    files: StoreFiles
    packages: Mapping[str, Package] = field(default_factory=dict)
    recipe: Recipe | None = None
    root: Root | None = None
    version_tag: str | None = None
    set_name: str = ""
    paths: tuple[PathInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class ResolvedContent:
    """The content that a request means. `key` names it; `open` builds it and holds it while it is open.

    `open` raises a `NixfrontError` on entry. `through_store`: the same content, for when its files prove `CacheUnusable`.
    """

    key: str
    open: Callable[[], AbstractAsyncContextManager[Content]]
    through_store: "ResolvedContent | None" = None


class Contents(Protocol):
    """One kind of contents."""

    async def resolve(self, request: ImageRequest) -> ResolvedContent:
        """The content that this request means now; builds nothing. Raises a `NixfrontError`."""


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
        caches: BinaryCaches | None = None,
    ) -> None:
        """`roots` is the folder of the garbage-collector roots. Without `caches` all packages come through the store."""
        self._caches = caches
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
        stored = ResolvedContent(key, partial(self._open, request, package_set, key))
        if self._caches is None:
            return stored
        return ResolvedContent(
            key, partial(self._open_cached, self._caches, request, package_set, key), stored
        )

    @asynccontextmanager
    async def _open_cached(
        self, caches: BinaryCaches, request: ImageRequest, package_set: PackageSet, key: str
    ) -> AsyncIterator[Content]:
        """The content from binary caches, where they have all of it and the store has not; else through the store."""
        packages = await self._evaluate(request, package_set, key)
        outputs = [path for package in packages.values() for _, path in package.outputs]
        stored = await asyncio.to_thread(self._store.has_all, outputs)
        places = None if stored else await caches.closure(outputs, substitutes=package_set.substitutes)
        if places is None:
            async with self._open(request, package_set, key) as content:
                yield content
            return
        _log.info("from binary caches image=%s paths=%d", request.repository, len(places))
        closure = Closure(tuple(packages.values()), tuple(place.info.info for place in places.values()))
        files = CacheFiles(caches, places, outputs, substitutes=package_set.substitutes)
        yield await self._content(request, package_set, packages, closure, files)

    @asynccontextmanager
    async def _open(self, request: ImageRequest, package_set: PackageSet, key: str) -> AsyncIterator[Content]:
        async with scratch_folder(self._roots) as roots:
            try:
                packages, closure = await self._realise(request, package_set, key, roots)
            except DerivationLost:
                # A garbage collection came after the evaluation: no root can hold a derivation before it is built.
                self._evaluator.forget()
                packages, closure = await self._realise(request, package_set, key, roots)
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
        outputs = sorted(path for package in packages.values() for _, path in package.outputs)
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
        return await _evaluated(request, package_set, self._evaluator, self._options.always)

    async def _realise(
        self, request: ImageRequest, package_set: PackageSet, key: str, roots: Path
    ) -> tuple[dict[str, Package], Closure]:
        """The packages by name as typed, and their closure, which `roots` holds. Raises `DerivationLost`: try again."""
        packages = await self._evaluate(request, package_set, key)
        most = self._options.policy.most_bytes
        if most and package_set.substitutes:
            download = await self._store.to_fetch(package_set, list(packages.values()))
            bytes_within(most, download, 0, request.names)
        self._sink(NixBegun(key, "building"))
        closure = await self._store.realise(
            package_set,
            list(packages.values()),
            request.attributes,
            roots,
            _log_lines(self._sink, request.names, key),
        )
        self._binary_cache.add([path for package in packages.values() for _, path in package.outputs])
        return packages, closure


async def chosen_set(
    request: ImageRequest, sets: PackageSets, evaluator: Evaluator, always: Sequence[str]
) -> PackageSet:
    """The revision that the request's tag chooses, or the default one if the tag is the version of the first package there.

    `always`: attributes of every image. Raises a `NixfrontError`.
    """
    try:
        return await sets.resolve(request.package_set, request.tag, request.preset.system)
    except TagUnknown as unknown:
        if version_tag(unspelled_tag(request.tag)) != request.tag:
            raise
        default = await sets.resolve(request.package_set, LATEST, request.preset.system)
        package = (await _evaluated(request, default, evaluator, always))[
            request.first or request.attributes[0]
        ]
        if version_tag(package.version) == request.tag:
            return default
        there = f"has the version {package.version}" if package.version else "has no version"
        raise TagUnknown(f"{unknown}; {package.attribute} {there} at {LATEST}") from unknown


async def _evaluated(
    request: ImageRequest, package_set: PackageSet, evaluator: Evaluator, always: Sequence[str]
) -> dict[str, Package]:
    attributes = sorted(request.attributes)
    optional = [name for name in always if name not in attributes]
    return await evaluator.evaluate(package_set, attributes, optional, request.preset.system)


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
