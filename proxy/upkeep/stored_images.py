"""The images of a registry as documents: the manifest and the configuration of each, and what its layers hold."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from proxy.core.foreign import DocumentInvalid
from proxy.core.names import is_store_path
from proxy.image.documents import ImageManifest, Index, read_config, read_manifest
from proxy.image.manifest import unsealed
from proxy.image.recipe import REVISION
from proxy.registry.client import Registry


@dataclass(frozen=True, slots=True)
class Part:
    """A layer: its digest, its store paths, none for the root layer, and its bytes."""

    digest: str = ""
    paths: tuple[str, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class ImageDocuments:
    """The manifest of one image with its digest, and its configuration."""

    digest: str
    manifest: ImageManifest
    config: bytes

    @property
    def parts(self) -> tuple[Part, ...]:
        """The layers, lowest first. Raises `DocumentInvalid`."""
        comments = (tuple(step.comment.split()) for step in read_config(self.config).steps)
        paths = (words if all(map(is_store_path, words)) else () for words in comments)
        return tuple(
            Part(layer.digest, words or (), layer.size)
            for layer, words in zip_longest(self.manifest.layers, paths)
            if layer
        )

    @property
    def revision(self) -> str:
        """The revision that a whole image of ours says; empty for any other image."""
        whole = unsealed(self.config)
        return str(whole["config"]["Labels"].get(REVISION, "")) if whole is not None else ""


async def each_digest(
    registry: Registry, images: AsyncIterator[tuple[str, Sequence[str]]]
) -> AsyncIterator[tuple[str, str, str]]:
    """Each manifest that tags name, once for its repository: repository, tag and digest. Raises as `Registry` does.

    `images`: repositories with their tags.
    """
    async for repository, tags in images:
        seen: set[str] = set()
        for tag in tags:
            digest = await registry.manifest_digest(repository, tag)
            if digest is not None and digest not in seen:
                seen.add(digest)
                yield repository, tag, digest


async def stored_images(registry: Registry, repository: str, digest: str) -> dict[str, ImageDocuments]:
    """As `read_images`, from the registry."""

    async def read(kind: str, digest: str) -> bytes:
        return await registry.content(repository, kind, digest)

    return await read_images(digest, read)


async def read_images(digest: str, read: Callable[[str, str], Awaitable[bytes]]) -> dict[str, ImageDocuments]:
    """The image with this digest, or those of an index, by platform. `read` gets a kind of content and a digest.

    Raises `DocumentInvalid` for two images of one platform.
    """
    manifest = read_manifest(await read("manifests", digest))
    digests = [child.digest for child in manifest.children] if isinstance(manifest, Index) else [digest]
    images: dict[str, ImageDocuments] = {}
    for each in digests:
        image = read_manifest(await read("manifests", each))
        if isinstance(image, ImageManifest):
            config = await read("blobs", image.config.digest)
            platform = read_config(config).platform
            if platform in images:
                raise DocumentInvalid(f"two of its images are for {platform}")
            images[platform] = ImageDocuments(each, image, config)
    return images
