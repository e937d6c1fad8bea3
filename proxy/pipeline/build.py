"""The straight line from a request to a tag in the registry.

    request -> content (Nix builds it) -> layers, root tree and configuration (assembly) -> manifest (own tags)
                                                                                         -> documents (attachments)

Order of what the registry sees: layers and configuration, then the manifest, because a registry refuses a manifest whose
blobs it lacks. The PUT of the manifest is the commit point; whatever comes before may be repeated. Where a tag names an index
(`pipeline.platforms`), the images of its platforms are made side by side, and the PUT of the index is the commit point. The
documents of an image come after it, and nobody waits for them.

The caller of `make` ensures that a tag is built once (`builds.coordinator`). Here only contents are shared: `shell/a/b`
and `shell/b/a` are two tags and one content, because a content is the *set* of packages with all that a build depends on.
What depends on the order of names (who wins a collision, the command) is decided for each tag, after the content.

No reply to a client starts here: the reply is always the registry's own.
"""

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic

from proxy.core import platforms
from proxy.core.errors import (
    CacheUnusable,
    DigestLost,
    NixfrontError,
    PackageSetUnavailable,
    TagUnknown,
    Unforeseen,
)
from proxy.core.events import BuildEnded, BuildStarted, PlatformEnded, Resolved, Sink
from proxy.core.explained import explained
from proxy.core.model import ImageRequest
from proxy.pipeline.assembly import Assembly
from proxy.pipeline.attachments import Attachments
from proxy.pipeline.attachments.facts import facts_of
from proxy.pipeline.contents.content import Content, Contents, ResolvedContent
from proxy.pipeline.keys import ImageOptions, byte_settings, image_key
from proxy.pipeline.own_tags import OwnTags, lost
from proxy.pipeline.platforms import (
    Joined,
    Lacking,
    LayerSum,
    Made,
    Result,
    are_of_one_revision,
    for_system,
    index_key,
    joined,
    missing,
    single,
)
from proxy.pipeline.publish import Publisher
from proxy.state import TagRecord
from proxy.tools.flight import Shared

_log = logging.getLogger(__name__)
_TRIES = 3  # while the tag moves between two platforms


class Pipeline:
    """Makes images appear in one destination."""

    def __init__(
        self,
        *,
        packages: Contents,
        images: Contents,
        tags: OwnTags,
        publisher: Publisher,
        options: ImageOptions,
        sink: Sink,
        attachments: Attachments | None = None,
    ) -> None:
        """`packages` resolves requests that name packages, `images` those that name an image of the operator's file.

        Without `attachments` images get no documents.
        """
        self._packages = packages
        self._images = images
        self._own_tags = tags
        self._publisher = publisher
        self._options = options
        self._sink = sink
        self._attachments = attachments
        self._contents: Shared[tuple[str, int], Content] = Shared()

    async def make(self, request: ImageRequest, record: TagRecord | None = None, client: str = "") -> None:
        """Build the image and put its tags. A tag that is there stays as it is, except the one of `record`.

        `client` wants the image.

        `record` is of a tag of ours, which names the new image afterwards. A request with a digest puts that manifest and
        no tag. Raises a `NixfrontError`.
        """
        self._sink(BuildStarted(request.repository, request.tag, client))
        stages = _Stages()
        try:
            digest = await self._make(request, record, stages)
        except NixfrontError as error:
            better = _better(error, request)
            outcome = type(better).__name__
            self._sink(BuildEnded(request.repository, request.tag, error=str(better), outcome=outcome))
            raise better from error
        except Exception as error:
            # A bug, or a full disk: the client gets a short answer, the log gets all of it.
            _log.exception("build failed image=%s:%s", request.repository, request.tag)
            outcome = Unforeseen.__name__
            self._sink(BuildEnded(request.repository, request.tag, error=repr(error), outcome=outcome))
            raise Unforeseen(f"nixfront failed ({type(error).__name__}); its log says more") from error
        self._sink(BuildEnded(request.repository, request.tag, digest=digest, seconds=stages.seconds))

    async def key(self, request: ImageRequest) -> str:
        """The key of the image or index that this request means now. Raises a `NixfrontError`."""
        systems = self._options.systems(request)
        if not systems:
            return image_key(request, (await self._resolve(request)).key)
        children = [for_system(request, system) for system in systems]
        keys = await asyncio.gather(*map(self._key_of_child, children))
        return index_key(dict(zip(systems, keys, strict=True)), self._options.form)

    async def _key_of_child(self, child: ImageRequest) -> str:
        try:
            return image_key(child, (await self._resolve(child)).key)
        except NixfrontError as error:
            if not missing.is_of_platform(error):
                raise
            return missing.key(error, "")

    async def close(self) -> None:
        """Cancel the packing that is under way."""
        await self._publisher.close()

    async def _resolve(self, request: ImageRequest) -> ResolvedContent:
        return await (self._images if request.image else self._packages).resolve(request)

    async def _make(self, request: ImageRequest, record: TagRecord | None, stages: "_Stages") -> str:
        """The digest of the manifest or index that was put."""
        systems = self._options.systems(request)
        if systems:
            index = await self._index(request, systems, stages)
        else:
            index = single(
                request.tag, await self._image(request, await self._resolve(request), stages, self._sink)
            )
        settings = byte_settings(self._options, request.package_set)
        repository, document, children = request.repository, index.document, index.children
        if request.digest:
            await self._own_tags.heal(
                repository, request.digest, document, index.revision, settings, children
            )
        else:
            for each in (*children, document):
                await self._own_tags.remember(repository, each, index.revision, settings)
            await self._own_tags.put(
                repository,
                document,
                index.tags,
                index.key,
                record,
                children,
                longer=index.longer,
                may_change=index.may_change,
            )
        if self._attachments is not None:
            self._attachments.keep(repository, [each.descriptor.digest for each in (*children, document)])
        stages.end("put")
        return request.digest or document.descriptor.digest

    async def _index(self, request: ImageRequest, systems: tuple[str, ...], stages: "_Stages") -> Joined:
        """The index of these systems. Raises if no platform can be made."""
        results = await self._all(request, systems, stages)
        for _ in range(_TRIES - 1):
            if are_of_one_revision(results):
                break
            results = await self._all(request, systems, stages)
        if not are_of_one_revision(results):
            raise PackageSetUnavailable(f"the tag {request.tag} moves faster than all platforms can be built")
        return joined(request.tag, dict(zip(systems, results, strict=True)), self._options.form)

    async def _all(
        self, request: ImageRequest, systems: tuple[str, ...], stages: "_Stages"
    ) -> tuple[Result, ...]:
        """What became of each platform. The first error that concerns more than a platform ends all of them."""
        layers = LayerSum(self._sink, systems)
        parts = [_Stages() for _ in systems]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._platform(for_system(request, system), part, layers))
                    for system, part in zip(systems, parts, strict=True)
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        stages.take(parts)
        return tuple(task.result() for task in tasks)

    async def _platform(self, child: ImageRequest, stages: "_Stages", layers: LayerSum) -> Result:
        """The image of one platform, or why there is none."""
        system = child.preset.system
        platform = platforms.of_system(system).name
        key = ""
        try:
            resolved = await self._resolve(child)
            key = image_key(child, resolved.key)
            made = await self._image(child, resolved, stages, layers.sink(system))
        except NixfrontError as error:
            if not missing.is_of_platform(error):
                raise
            outcome = type(error).__name__
            layers.leave_out(system)
            self._sink(PlatformEnded(child.repository, child.tag, platform, str(error), outcome))
            return Lacking(error, missing.key(error, key))
        self._sink(PlatformEnded(child.repository, child.tag, platform))
        return made

    async def _image(
        self, request: ImageRequest, resolved: ResolvedContent, stages: "_Stages", sink: Sink
    ) -> Made:
        """The image, whose manifest is not put yet."""
        stages.end("set")
        sink(Resolved(request.repository, request.tag, resolved.key))
        while True:
            try:
                return await self._assembled(request, resolved, stages, sink)
            except CacheUnusable as error:
                if resolved.through_store is None:
                    raise
                _log.warning("%s; image=%s comes through the Nix store", error, request.repository)
                resolved = resolved.through_store

    async def _assembled(
        self, request: ImageRequest, resolved: ResolvedContent, stages: "_Stages", sink: Sink
    ) -> Made:
        """As `_image`. Raises `CacheUnusable` if a binary cache does not keep its promise."""
        key = (resolved.key, resolved.ways)
        async with self._contents.hold(key, resolved.open) as content:
            stages.end("nix")
            assembly = Assembly(request, content, self._publisher, self._options, sink)
            image = await assembly.image()
            stages.end("layers")
            if self._attachments is not None:
                await self._attachments.promise(
                    facts_of(request, content, image, self._options, self._attachments.builder)
                )
        return Made(
            image,
            image_key(request, resolved.key),
            content.package_set.revision,
            content.output_tag,
            content.version_tag,
            content.package_set.whole,
        )


def _better(error: NixfrontError, request: ImageRequest) -> NixfrontError:
    """The error in the words of who asked: for a tag, or for a digest."""
    if request.digest and isinstance(error, TagUnknown):
        return DigestLost(lost(request.repository, request.digest, str(error)))
    return explained(error, request)


class _Stages:
    """How long each stage of a build took, in seconds; the first one begins now."""

    def __init__(self) -> None:
        self._since = monotonic()
        self._seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """The stage of this name is over, and the next one begins."""
        now = monotonic()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now

    def take(self, parts: Iterable["_Stages"]) -> None:
        """Add stages that ran side by side: the longest of each name counts. The next stage begins."""
        for part in parts:
            for name, seconds in part.seconds:
                self._seconds[name] = max(seconds, self._seconds.get(name, 0.0))
        self._since = monotonic()

    @property
    def seconds(self) -> tuple[tuple[str, float], ...]:
        """The (stage, seconds) pairs so far."""
        return tuple(self._seconds.items())
