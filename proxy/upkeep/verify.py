"""Make images again, and compare them with those of the registry: the digest, layer by layer, and which store path differs.

An image says itself how it was made: its labels have the revision, and its repository has the rest. Anybody may push an image
with such labels; then the comparison says that it is another one. Nothing is written but to the Nix store.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import aiohttp

from proxy.core import foreign, names
from proxy.core.errors import DigestMismatch, NixfrontError, RegistryUnavailable
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import Buffer, ImageRequest, LayerPlan, digest_of
from proxy.core.names import Vocabulary, is_store_path
from proxy.image.documents import ImageManifest, Index, Manifest, read_config, read_manifest
from proxy.image.manifest import SEAL, unsealed
from proxy.image.recipe import REVISION
from proxy.registry.client import Registry
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import pull_scopes
from proxy.tools.scratch import scratch_folder
from proxy.upkeep.layer_difference import differences

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
_STRANGE = "it is no image of nixfront's, or somebody has changed it"


@dataclass(frozen=True, slots=True)
class MadeAgain:
    """What was made again: the manifest or index itself, and by digest every manifest and every small blob."""

    manifest: bytes
    manifests: Mapping[str, bytes]
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """A layer that is another one `now`; either digest may be empty. `differences` name store paths, or files of the root."""

    digest: str
    now: str
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """An image or index, and the digest that it has `now`. `error`: why it cannot be compared, else empty.

    `layers` are those that differ; `total` counts all that were compared. `differences`: of other parts.
    """

    name: str
    digest: str
    now: str = ""
    total: int = 0
    layers: tuple[LayerVerdict, ...] = ()
    differences: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_same(self) -> bool:
        """Whether what was made again has the same digest."""
        return not self.error and self.digest == self.now


#: Makes the image of this request. Raises a `NixfrontError`.
Make = Callable[[ImageRequest], Awaitable[MadeAgain]]
#: Writes the archive of these store paths to a file. Raises a `NixfrontError`.
Pack = Callable[[LayerPlan, Path], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Part:
    """A layer: its digest and its store paths, none for the root layer."""

    digest: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Image:
    """The manifest of one image, and its configuration."""

    manifest: ImageManifest
    config: bytes

    @property
    def parts(self) -> tuple[_Part, ...]:
        """The layers, lowest first. Raises `DocumentInvalid`."""
        comments = (tuple(step.comment.split()) for step in read_config(self.config).steps)
        paths = (words if all(map(is_store_path, words)) else () for words in comments)
        layers = (layer.digest for layer in self.manifest.layers)
        return tuple(_Part(layer, found or ()) for layer, found in zip_longest(layers, paths) if layer)

    @property
    def revision(self) -> str:
        """The revision that a whole image of ours says; empty for any other image."""
        whole = unsealed(self.config)
        return str(whole["config"]["Labels"].get(REVISION, "")) if whole is not None else ""


class Verifier:
    """Compares the images of one registry with what this host makes."""

    def __init__(self, endpoint: OpenEndpoint, words: Vocabulary, make: Make, pack: Pack) -> None:
        self._endpoint = endpoint
        self._registry = Registry(endpoint)
        self._words = words
        self._make = make
        self._pack = pack

    async def all(self, images: AsyncIterator[tuple[str, Sequence[str]]]) -> AsyncIterator[Verdict]:
        """Each image of ours once, whatever tags it has; the images come as repositories with their tags.

        Raises `RegistryUnavailable`, `RegistryRefused`.
        """
        async for repository, tags in images:
            seen: set[str] = set()
            for tag in tags:
                digest = await self._registry.manifest_digest(repository, tag)
                if digest is not None and digest not in seen:
                    seen.add(digest)
                    verdict = await self.one(repository, tag)
                    if verdict.error != _STRANGE:
                        yield verdict

    async def one(self, repository: str, reference: str) -> Verdict:
        """The image or index with this tag or digest. Raises `RegistryUnavailable`, `RegistryRefused`."""
        name = f"{repository}{'@' if ':' in reference else ':'}{reference}"
        digest = await self._registry.manifest_digest(repository, reference)
        if digest is None:
            return Verdict(name, "", error="the registry does not have it")
        verdict = Verdict(name, digest)
        try:
            return await self._compared(repository, verdict)
        except DocumentInvalid as error:
            return replace(verdict, error=f"nixfront cannot read it: {error}")
        except NixfrontError as error:
            return replace(verdict, error=str(error))

    async def _compared(self, repository: str, verdict: Verdict) -> Verdict:
        before = await self._stored(repository, verdict.digest)
        revision = next((image.revision for image in before.values()), "")
        if not revision or (request := names.parse(repository, revision, self._words)) is None:
            return replace(verdict, error=_STRANGE)
        again = await self._make(request)
        verdict = replace(
            verdict,
            # A manifest without an index may be that of a platform in the index that the tag would name now.
            now=verdict.digest if verdict.digest in again.manifests else digest_of(again.manifest),
            total=sum(len(image.manifest.layers) for image in before.values()),
        )
        if verdict.is_same:
            return verdict
        layers: list[LayerVerdict] = []
        others: list[str] = []
        now = _made(again)
        if before.keys() == {""} != now.keys():
            now = dict(zip([""], now.values(), strict=False))
        for platform in dict.fromkeys((*before, *now)):
            one, two = before.get(platform), now.get(platform)
            if one is None or two is None:
                others.append(f"{platform} is {'new' if one is None else 'gone'}")
                continue
            layers += [each async for each in self._layers(repository, one, two, again)]
            others += [f"{platform} {each}".lstrip() for each in _other_differences(one, two)]
        return replace(verdict, layers=tuple(layers), differences=tuple(others))

    async def _stored(self, repository: str, digest: str) -> dict[str, _Image]:
        """The images by platform; a single one stands under an empty name."""

        async def read(digest: str) -> Manifest:
            return read_manifest(await self._registry.content(repository, "manifests", digest))

        images = {}
        for platform, manifest in [each async for each in _each_image(digest, read)]:
            config = await self._registry.content(repository, "blobs", manifest.config.digest)
            images[platform] = _Image(manifest, config)
        return images

    async def _layers(
        self, repository: str, before: _Image, now: _Image, again: MadeAgain
    ) -> AsyncIterator[LayerVerdict]:
        """The layers that differ."""
        all_before = {path for part in before.parts for path in part.paths}
        all_now = {path for part in now.parts for path in part.paths}
        for one, two in zip_longest(before.parts, now.parts, fillvalue=_Part()):
            if one.digest == two.digest:
                continue
            gone, new = set(one.paths) - all_now, set(two.paths) - all_before
            found = [
                *(f"{path} is gone" for path in sorted(gone)),
                *(f"{path} is new" for path in sorted(new)),
            ]
            if not found and set(one.paths) != set(two.paths):
                found = ["its store paths are in other layers now (layers.table, layers.most)"]
            elif not found and one.digest and two.digest:
                found = [*await self._contents(repository, one, two, again)]
            yield LayerVerdict(one.digest, two.digest, tuple(found))

    async def _contents(self, repository: str, one: _Part, two: _Part, again: MadeAgain) -> tuple[str, ...]:
        """In what two layers of the same store paths differ."""
        async with scratch_folder() as folder:
            before, now = folder / "before", folder / "now"
            await self._download(repository, one.digest, before)
            if two.paths:
                await self._pack(LayerPlan(two.paths), now)
            elif (data := again.blobs.get(two.digest)) is not None:
                await asyncio.to_thread(now.write_bytes, data)
            else:
                return ()
            return await asyncio.to_thread(differences, before, now)

    async def _download(self, repository: str, digest: str, file: Path) -> None:
        path = f"/v2/{repository}/blobs/{digest}"
        try:
            async with self._endpoint.ask("GET", path, pull_scopes(repository), timeout=_TIMEOUT) as answer:
                if answer.status != 200:
                    raise DigestMismatch(f"the registry answered {answer.status} to {path}")
                await write_all(file, answer.content.iter_any())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryUnavailable(f"the registry broke off {path} ({type(error).__name__})") from error


async def write_all(file: Path, chunks: AsyncIterator[Buffer]) -> None:
    """Write these bytes into a new file."""
    target = await asyncio.to_thread(file.open, "wb")
    try:
        async for chunk in chunks:
            await asyncio.to_thread(target.write, chunk)
    finally:
        await asyncio.to_thread(target.close)


async def _each_image(
    digest: str, read: Callable[[str], Awaitable[Manifest]]
) -> AsyncIterator[tuple[str, ImageManifest]]:
    """The image with this digest under an empty name, or those of an index under their platforms."""
    manifest = await read(digest)
    if isinstance(manifest, ImageManifest):
        yield "", manifest
    elif isinstance(manifest, Index):
        for child in manifest.children:
            if isinstance(image := await read(child.digest), ImageManifest):
                yield child.platform, image


def _made(again: MadeAgain) -> dict[str, _Image]:
    """The images that were made again, as `_stored`."""
    manifest = read_manifest(again.manifest)
    if isinstance(manifest, Index):
        children = {
            child.platform: read_manifest(again.manifests[child.digest]) for child in manifest.children
        }
    else:
        children = {"": manifest}
    return {
        platform: _Image(image, again.blobs[image.config.digest])
        for platform, image in children.items()
        if isinstance(image, ImageManifest)
    }


def _other_differences(before: _Image, now: _Image) -> Iterator[str]:
    """What differs beside the layers: the type of the manifest, and the configuration."""
    if before.manifest.media_type != now.manifest.media_type:
        yield f"type {before.manifest.media_type} is {now.manifest.media_type} now (image.format)"
    one, two = (_facts(foreign.parse(image.config)) for image in (before, now))
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            yield f"configuration: {name} is {two.get(name)!r} now, and was {one.get(name)!r}"


def _facts(config: Any) -> dict[str, object]:
    """The facts of a configuration that do not follow from its layers, by name."""
    run = dict(config.get("config") or {})
    labels = {f"label {name}": value for name, value in (run.pop("Labels", None) or {}).items()}
    labels.pop(f"label {SEAL}", None)
    rest = {name: value for name, value in config.items() if name not in ("config", "history", "rootfs")}
    return {**rest, **run, **labels}
