"""The straight line from a request to a tag in the registry.

    names -> Nix resolves and realises -> layering -> layers published, and beside them the root tree -> manifest -> put

Order of what the registry sees: layers and configuration, then the manifest, because a registry refuses a manifest whose blobs
it lacks; the manifest's PUT is the commit point, and whatever came before may be repeated. Two levels are shared
by those who ask at the same time: (repository, tag), and the content, that is the *set* of packages with all that
a build depends on. `shell/a/b` and `shell/b/a` are one content and two tags; what depends on the order of names (who
wins a collision, the command) is decided for each tag, after the content.

The reply to a client is never made here: it is always the registry's own.
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from cachetools import TTLCache

from proxy.core.errors import DerivationLost, NixfrontError, PackageUnknown, Unforeseen
from proxy.core.events import (
    BuildEnded,
    BuildStarted,
    Collided,
    LayersReady,
    LogLine,
    NixBegun,
    Resolved,
    Sink,
)
from proxy.core.model import Closure, Image, ImageRequest, Layer, LayerPlan, Package, PackageSet
from proxy.image import layering, manifest, root_tree
from proxy.image import recipe as image_recipe
from proxy.image.recipe import Recipe, comments, facts, from_request
from proxy.image.root_tree import Root
from proxy.image.tar import Entry
from proxy.nix.binary_cache import BinaryCache
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import PackageSets
from proxy.nix.store import NixStore
from proxy.pipeline import contents
from proxy.pipeline.destination import Destination
from proxy.pipeline.keys import ImageOptions, content_key, definition_key, image_key
from proxy.pipeline.named import Defined, NamedImages
from proxy.pipeline.own_tags import OwnTags
from proxy.pipeline.publish import Publisher
from proxy.state import TagRecord
from proxy.tools.flight import Shared, SingleFlight

_log = logging.getLogger(__name__)
_REMEMBERED_FAILURES = 1024


@dataclass(frozen=True, slots=True)
class _Content:
    """What is realised, and the layers of its closure.

    `packages` are those of a request, by the name as typed. A named image has its `recipe` and its `root` already.
    """

    package_set: PackageSet
    plans: tuple[LayerPlan, ...]
    output_tag: str
    packages: Mapping[str, Package] = field(default_factory=dict)
    recipe: Recipe | None = None
    root: Root | None = None

    def tags(self, asked: str) -> tuple[str, ...]:
        """The tags of the image: its outputs' hash and its set's revision, which never change, and `asked`."""
        never_changing = (self.output_tag, self.package_set.revision)
        return (*(tag for tag in dict.fromkeys(never_changing) if tag != asked), asked)


class Pipeline:
    """Makes images appear in one registry, or whatever else can hold them."""

    def __init__(
        self,
        *,
        sets: PackageSets,
        evaluator: Evaluator,
        store: NixStore,
        binary_cache: BinaryCache,
        images: NamedImages,
        registry: Destination,
        tags: OwnTags,
        publisher: Publisher,
        listing: root_tree.Listing,
        options: ImageOptions,
        roots: Path,
        failure_seconds: float,
        sink: Sink,
    ) -> None:
        """`roots` holds garbage-collector roots while builds need them; errors are kept for `failure_seconds`."""
        self._sets = sets
        self._evaluator = evaluator
        self._store = store
        self._binary_cache = binary_cache
        self._images = images
        self._registry = registry
        self._own_tags = tags
        self._publisher = publisher
        self._listing = listing
        self._options = options
        self._roots = roots
        self._sink = sink
        self._contents: Shared[str, _Content] = Shared()
        self._tags: SingleFlight[tuple[str, str], None] = SingleFlight(
            TTLCache(_REMEMBERED_FAILURES, failure_seconds),
            lambda error: isinstance(error, NixfrontError) and error.lasting,
        )

    async def ensure(self, request: ImageRequest) -> None:
        """The registry has the tag when this returns; a tag that it has already is left as it is.

        Goes on when the caller is cancelled. Raises a `NixfrontError`.
        """
        await self._tags.run((request.repository, request.tag), lambda: self._make(request))

    async def refresh(self, request: ImageRequest, record: TagRecord) -> None:
        """This tag of ours names what it means now; one that is not ours any more is left as it is.

        Raises a `NixfrontError`.
        """
        await self._make(request, record)

    async def key(self, request: ImageRequest) -> str:
        """What the image of this request would be made from now, as a key. Raises a `NixfrontError`."""
        if request.image:
            return image_key(request, definition_key(await self._images.define(request), self._options))
        package_set = await self._sets.resolve(request.package_set, request.tag)
        return image_key(request, content_key(request, package_set, self._options))

    async def close(self) -> None:
        """Cancel the builds that are under way."""
        await self._tags.close()
        await self._publisher.close()

    async def _make(self, request: ImageRequest, record: TagRecord | None = None) -> None:
        if record is None and await self._taken(request):
            return
        self._sink(BuildStarted(request.repository, request.tag))
        stages = _Stages()
        try:
            digest = await self._build(request, stages, record)
        except NixfrontError as error:
            told = _with_presets(error, request)
            outcome = type(told).__name__
            self._sink(BuildEnded(request.repository, request.tag, error=str(told), outcome=outcome))
            raise told from error
        except (
            Exception
        ) as error:  # a bug, or a full disk: the client gets an answer, the log the whole of it
            _log.exception("build failed image=%s:%s", request.repository, request.tag)
            self._sink(
                BuildEnded(request.repository, request.tag, error=repr(error), outcome=Unforeseen.__name__)
            )
            raise Unforeseen(f"nixfront failed ({type(error).__name__}); its log says more") from error
        self._sink(BuildEnded(request.repository, request.tag, digest=digest, seconds=stages.seconds))

    async def _build(self, request: ImageRequest, stages: "_Stages", record: TagRecord | None) -> str:
        """The digest of the manifest that was made and put."""
        if request.image:
            defined = await self._images.define(request)
            key = definition_key(defined, self._options)
            opened = self._contents.hold(key, lambda: self._named_content(request, defined, key))
        else:
            package_set = await self._sets.resolve(request.package_set, request.tag)
            key = content_key(request, package_set, self._options)
            opened = self._contents.hold(key, lambda: self._content(request, package_set, key))
        stages.ended("set")
        self._sink(Resolved(request.repository, request.tag, key))
        async with opened as content:
            stages.ended("nix")
            image = await self._image(request, content)
            stages.ended("layers")
            tags = content.tags(request.tag)
            await self._own_tags.put(request.repository, image, tags, image_key(request, key), record)
            stages.ended("put")
        return image.manifest_descriptor.digest

    async def _taken(self, request: ImageRequest) -> bool:
        """Whether the tag is there under any media type: then it stands, whoever pushed it."""
        return await self._registry.manifest_digest(request.repository, request.tag) is not None

    @asynccontextmanager
    async def _content(
        self, request: ImageRequest, package_set: PackageSet, key: str
    ) -> AsyncIterator[_Content]:
        """Packages realised and rooted, for as long as the context lasts."""
        options = self._options
        attributes = sorted(request.attributes)
        optional = [name for name in options.always if name not in attributes]
        roots = await asyncio.to_thread(tempfile.TemporaryDirectory, dir=self._roots)
        try:
            try:
                packages, closure = await self._realised(
                    request, package_set, key, attributes, optional, roots.name
                )
            except DerivationLost:
                # A garbage collection came between the two: no root can hold a derivation yet.
                self._evaluator.forget()
                packages, closure = await self._realised(
                    request, package_set, key, attributes, optional, roots.name
                )
            contents.closure_within(options.policy.most_bytes, closure, request.asked)
            table = options.table(request.package_set)
            plans = layering.plan(closure, options.most_layers - 1, table)
            contents.layers_within(options.policy.most_layer_bytes, plans, closure, request.asked)
            outputs = sorted(path for package in packages.values() for _, path in package.outputs)
            yield _Content(
                package_set,
                plans,
                image_recipe.output_tag(outputs),
                packages=packages,
            )
        finally:
            await asyncio.to_thread(roots.cleanup)

    @asynccontextmanager
    async def _named_content(
        self, request: ImageRequest, defined: Defined, key: str
    ) -> AsyncIterator[_Content]:
        """The same for a named image."""
        options = self._options
        roots = await asyncio.to_thread(tempfile.TemporaryDirectory, dir=self._roots)
        try:
            most = options.policy.most_bytes
            if most and defined.package_set.substitutes:
                contents.bytes_within(most, await self._images.to_fetch(defined), 0, request.asked)
            self._sink(NixBegun(key, "building"))
            on_line = self._line(request, key)
            try:
                realised = await self._images.realise(defined, Path(roots.name), on_line)
            except DerivationLost:
                self._evaluator.forget()
                defined = await self._images.define(request)
                realised = await self._images.realise(defined, Path(roots.name), on_line)
            self._binary_cache.add(realised.paths)
            contents.closure_within(most, realised.closure, request.asked)
            layers = defined.definition.most_layers or options.most_layers
            plans = layering.plan(realised.closure, layers - 1, options.table(defined.chosen))
            contents.layers_within(options.policy.most_layer_bytes, plans, realised.closure, request.asked)
            yield _Content(
                defined.package_set,
                plans,
                image_recipe.tag(defined.definition),
                recipe=defined.definition.recipe,
                root=realised.root,
            )
        finally:
            await asyncio.to_thread(roots.cleanup)

    def _line(self, request: ImageRequest, key: str) -> Callable[[str], None]:
        """Takes the lines of a build's log."""
        return lambda line: self._sink(LogLine(request.asked, line, key))

    async def _realised(
        self,
        request: ImageRequest,
        package_set: PackageSet,
        key: str,
        attributes: Sequence[str],
        optional: Sequence[str],
        roots: str,
    ) -> tuple[dict[str, Package], Closure]:
        """The packages by name as typed, and their closure, held by roots. Raises `DerivationLost`, to try again."""
        self._sink(NixBegun(key, "evaluating"))
        packages = await self._evaluator.evaluate(package_set, attributes, optional, request.preset.system)
        most = self._options.policy.most_bytes
        if most and package_set.substitutes:
            fetched = await self._store.to_fetch(package_set, list(packages.values()))
            contents.bytes_within(most, fetched, 0, request.asked)
        self._sink(NixBegun(key, "building"))
        closure = await self._store.realise(
            package_set,
            list(packages.values()),
            request.attributes,
            Path(roots),
            self._line(request, key),
        )
        self._binary_cache.add([path for package in packages.values() for _, path in package.outputs])
        return packages, closure

    async def _image(self, request: ImageRequest, content: _Content) -> Image:
        """The image, of which the registry has all but the manifest."""
        options = self._options
        recipe = content.recipe or from_request(request, content.packages)
        total = len(content.plans) + 1  # and the root
        system = request.preset.system or options.system
        command: tuple[str, ...] = ()

        async def root_entries() -> Sequence[Entry]:
            nonlocal command
            made, command = await asyncio.to_thread(self._root, recipe, content.root)
            for lost in made.collisions:
                self._sink(Collided(request.repository, lost.path, lost.winner, lost.loser))
            return made.entries

        def assembled(layers: tuple[Layer, ...]) -> Image:
            return manifest.assemble(
                facts(recipe, content.package_set, system, command),
                layers,
                comments(recipe, content.plans),
                form=options.form,
                compression=options.compression,
            )

        return assembled(
            await self._publisher.publish(
                request.repository,
                content.plans,
                root_entries,
                lambda layers: assembled(layers).config,
                lambda ready: self._sink(LayersReady(request.repository, request.tag, ready, total)),
            )
        )

    def _root(self, recipe: Recipe, made: Root | None) -> tuple[Root, tuple[str, ...]]:
        """The root tree, unless it is made already, and what `docker run` starts."""
        return made or image_recipe.root(recipe, self._listing), image_recipe.command(recipe, self._listing)


class _Stages:
    """How long each stage of a build took."""

    def __init__(self) -> None:
        """The first stage begins."""
        self._since = monotonic()
        self._seconds: dict[str, float] = {}

    def ended(self, name: str) -> None:
        """The stage of this name is over, and the next begins."""
        now = monotonic()
        self._seconds[name] = now - self._since
        self._since = now

    @property
    def seconds(self) -> tuple[tuple[str, float], ...]:
        """Every stage so far, and its seconds."""
        return tuple(self._seconds.items())


def _with_presets(error: NixfrontError, request: ImageRequest) -> NixfrontError:
    """The error, which also says what a meta-package asked for where it names packages that nobody typed."""
    if not (isinstance(error, PackageUnknown) and request.preset.packages):
        return error
    asked = f"{'/'.join(request.presets)} in front stands for {', '.join(request.preset.packages)}"
    return PackageUnknown(f"{error}; {asked}")
