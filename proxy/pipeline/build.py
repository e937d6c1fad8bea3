"""The straight line from a request to a tag in the registry.

    request -> content (Nix builds it) -> layers, root tree and configuration (assembly) -> manifest (own tags)

Order of what the registry sees: layers and configuration, then the manifest, because a registry refuses a manifest whose
blobs it lacks. The PUT of the manifest is the commit point; whatever comes before may be repeated.

The caller of `make` ensures that a tag is built once (`builds.coordinator`). Here only contents are shared: `shell/a/b`
and `shell/b/a` are two tags and one content, because a content is the *set* of packages with all that a build depends on.
What depends on the order of names (who wins a collision, the command) is decided for each tag, after the content.

No reply to a client starts here: the reply is always the registry's own.
"""

import logging
from time import monotonic

from proxy.core.errors import DigestLost, NixfrontError, TagUnknown, Unforeseen
from proxy.core.events import BuildEnded, BuildStarted, Resolved, Sink
from proxy.core.explained import explained
from proxy.core.model import ImageRequest
from proxy.image.store_tree import StoreListing
from proxy.pipeline.assembly import Assembly
from proxy.pipeline.contents import Content, Contents, ResolvedContent
from proxy.pipeline.keys import ImageOptions, byte_settings, image_key
from proxy.pipeline.own_tags import OwnTags, lost
from proxy.pipeline.publish import Publisher
from proxy.state import TagRecord
from proxy.tools.flight import Shared

_log = logging.getLogger(__name__)


class Pipeline:
    """Makes images appear in one destination."""

    def __init__(
        self,
        *,
        packages: Contents,
        images: Contents,
        tags: OwnTags,
        publisher: Publisher,
        listing: StoreListing,
        options: ImageOptions,
        sink: Sink,
    ) -> None:
        """`packages` resolves requests that name packages, `images` those that name an image of the operator's file."""
        self._packages = packages
        self._images = images
        self._own_tags = tags
        self._publisher = publisher
        self._listing = listing
        self._options = options
        self._sink = sink
        self._contents: Shared[str, Content] = Shared()

    async def make(self, request: ImageRequest, record: TagRecord | None = None) -> None:
        """Build the image and put its tags. A tag that is there stays as it is, except the one of `record`.

        `record` is of a tag of ours, which names the new image afterwards. A request with a digest puts that manifest and
        no tag. Raises a `NixfrontError`.
        """
        self._sink(BuildStarted(request.repository, request.tag))
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
        """The key of the image that this request means now. Raises a `NixfrontError`."""
        return image_key(request, (await self._resolve(request)).key)

    async def close(self) -> None:
        """Cancel the packing that is under way."""
        await self._publisher.close()

    async def _resolve(self, request: ImageRequest) -> ResolvedContent:
        return await (self._images if request.image else self._packages).resolve(request)

    async def _make(self, request: ImageRequest, record: TagRecord | None, stages: "_Stages") -> str:
        """The digest of the manifest that was put."""
        resolved = await self._resolve(request)
        stages.end("set")
        self._sink(Resolved(request.repository, request.tag, resolved.key))
        async with self._contents.hold(resolved.key, resolved.open) as content:
            stages.end("nix")
            assembly = Assembly(request, content, self._publisher, self._listing, self._options, self._sink)
            image = await assembly.image()
            stages.end("layers")
            settings = byte_settings(self._options, request.package_set)
            digest, revision = image.manifest_descriptor.digest, content.package_set.revision
            if request.digest:
                await self._own_tags.heal(request.repository, request.digest, image, settings)
            else:
                await self._own_tags.remember(request.repository, digest, revision, settings)
                tags = content.tags(request.tag)
                key = image_key(request, resolved.key)
                await self._own_tags.put(request.repository, image, tags, key, record)
            stages.end("put")
        return digest


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
        self._seconds[name] = now - self._since
        self._since = now

    @property
    def seconds(self) -> tuple[tuple[str, float], ...]:
        """The (stage, seconds) pairs so far."""
        return tuple(self._seconds.items())
