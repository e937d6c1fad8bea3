"""Sign the images that are in the registry already: those that nixfront made, and no others.

A record of a build is proof enough: a digest names one image, and this nixfront, or one that shares its state, made it. A record
that `reindex` wrote rests on what an image says of itself. So such an image is made again, and only an equal one is signed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from proxy.core import typed
from proxy.core.errors import DigestMismatch, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.image.documents import Index, read_manifest
from proxy.registry.client import Registry
from proxy.state import State
from proxy.upkeep.verify import Verdict


@dataclass(frozen=True, slots=True)
class Signing:
    """What became of an image. `new`: whether it had no such signature before; `refused`: why it has none, else empty."""

    name: str
    digest: str
    new: bool = False
    refused: str = ""


class ImageSigner:
    """Signs the images of one registry, by the records of one state."""

    def __init__(
        self,
        registry: Registry,
        state: State,
        sign: Callable[[str, str], Awaitable[bool]],
        verify: Callable[[str, str], Awaitable[Verdict]],
    ) -> None:
        """`sign` signs the manifest with a digest, and returns whether that is a new signature; `verify` makes an image again."""
        self._registry = registry
        self._state = state
        self._sign = sign
        self._verify = verify

    async def all(self) -> AsyncIterator[Signing]:
        """Each image of the records that the registry has. Raises `RegistryUnavailable`, `RegistryRefused`."""
        async for image in self._state.images():
            if await self._registry.manifest_digest(image.repository, image.digest) is not None:
                yield await self.one(image.repository, image.digest)

    async def one(self, repository: str, reference: str) -> Signing:
        """The image or index with this tag or digest. Raises `RegistryUnavailable`, `RegistryRefused`."""
        name = typed.write(repository, reference)
        digest = await self._registry.manifest_digest(repository, reference)
        if digest is None:
            return Signing(name, "", refused="the registry does not have it")
        record = await self._state.recall_image(repository, digest)
        if record is None:
            return Signing(name, digest, refused="nixfront has no record of it: `nixfront reindex` makes one")
        if not record.settings:
            verdict = await self._verify(repository, digest)
            if not verdict.is_same:
                why = verdict.error or f"this host makes {verdict.now} of it"
                return Signing(name, digest, refused=why)
        try:
            manifests = [digest, *await self._children(repository, digest)]
        except (DocumentInvalid, DigestMismatch, RegistryRefused) as error:
            return Signing(name, digest, refused=str(error))
        signed = [await self._sign(repository, each) for each in manifests]
        return Signing(name, digest, new=any(signed))

    async def _children(self, repository: str, digest: str) -> list[str]:
        """The manifests that an index names; none for the manifest of one image."""
        manifest = read_manifest(await self._registry.content(repository, "manifests", digest))
        return [child.digest for child in manifest.children] if isinstance(manifest, Index) else []
