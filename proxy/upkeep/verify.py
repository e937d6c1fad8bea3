"""Make images again, and compare them with those of the registry: the digest, layer by layer, and which store path differs.

An image says itself how it was made: its labels have the revision, and its repository has the rest. Anybody may push an image
with such labels; then the comparison says that it is another one. Nothing is written but to the Nix store.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import aiohttp

from proxy.core import foreign, names, typed
from proxy.core.errors import DigestMismatch, NixfrontError, RegistryUnavailable
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import Buffer, ImageRequest, LayerPlan, digest_of
from proxy.core.names import Vocabulary
from proxy.image.manifest import SEAL
from proxy.registry.client import Registry
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import pull_scopes
from proxy.registry.no_answer import why_for_clients
from proxy.tools.scratch import scratch_folder
from proxy.upkeep.layer_difference import differences
from proxy.upkeep.stored_images import ImageDocuments, Part, each_digest, read_images, stored_images

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
_STRANGE = "it is no image of nixfront's, or somebody has changed it"


@dataclass(frozen=True, slots=True)
class MadeAgain:
    """What was made again: the manifest or index itself, and by digest every manifest and every small blob."""

    manifest: bytes
    manifests: Mapping[str, bytes]
    blobs: Mapping[str, bytes]

    async def read(self, kind: str, digest: str) -> bytes:
        """A manifest (`manifests`) or a small blob."""
        return (self.manifests if kind == "manifests" else self.blobs)[digest]


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
        async for repository, tag, _ in each_digest(self._registry, images):
            verdict = await self.one(repository, tag)
            if verdict.error != _STRANGE:
                yield verdict

    async def one(self, repository: str, reference: str) -> Verdict:
        """The image or index with this tag or digest. Raises `RegistryUnavailable`, `RegistryRefused`."""
        name = typed.write(repository, reference)
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
        before = await stored_images(self._registry, repository, verdict.digest)
        revision = next((image.revision for image in before.values()), "")
        if not revision or (request := names.parse(repository, revision, self._words)) is None:
            return replace(verdict, error=_STRANGE)
        again = await self._make(request)
        total = sum(len(image.manifest.layers) for image in before.values())
        if verdict.digest in again.manifests:
            return replace(verdict, now=verdict.digest, total=total)
        layers: list[LayerVerdict] = []
        others: list[str] = []
        now = await read_images(digest_of(again.manifest), again.read)
        new = digest_of(again.manifest)
        if verdict.digest in [image.digest for image in before.values()]:
            # A manifest without an index is compared with that of its platform in the index that the tag would name now.
            (platform,) = before
            new = now[platform].digest if platform in now else new
            now = {name: image for name, image in now.items() if name == platform}
        verdict = replace(verdict, now=new, total=total)
        for platform in dict.fromkeys((*before, *now)):
            one, two = before.get(platform), now.get(platform)
            if one is None or two is None:
                others.append(f"{platform} is {'new' if one is None else 'gone'}")
                continue
            layers += [each async for each in self._layers(repository, one, two, again)]
            prefix = f"{platform} " if len(before) > 1 else ""
            others += [f"{prefix}{each}" for each in _other_differences(one, two)]
        return replace(verdict, layers=tuple(layers), differences=tuple(others))

    async def _layers(
        self, repository: str, before: ImageDocuments, now: ImageDocuments, again: MadeAgain
    ) -> AsyncIterator[LayerVerdict]:
        """The layers that differ."""
        all_before = {path for part in before.parts for path in part.paths}
        all_now = {path for part in now.parts for path in part.paths}
        for one, two in zip_longest(before.parts, now.parts, fillvalue=Part()):
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

    async def _contents(self, repository: str, one: Part, two: Part, again: MadeAgain) -> tuple[str, ...]:
        """In what two layers of the same store paths differ."""
        async with scratch_folder() as folder:
            before, now = folder / "before", folder / "now"
            await self._download(repository, one, before)
            if two.paths:
                await self._pack(LayerPlan(two.paths), now)
            elif (data := again.blobs.get(two.digest)) is not None:
                await asyncio.to_thread(now.write_bytes, data)
            else:
                return ()
            return await asyncio.to_thread(differences, before, now)

    async def _download(self, repository: str, layer: Part, file: Path) -> None:
        path = f"/v2/{repository}/blobs/{layer.digest}"
        try:
            async with self._endpoint.ask("GET", path, pull_scopes(repository), timeout=_TIMEOUT) as answer:
                if answer.status != 200:
                    raise DigestMismatch(f"the registry answered {answer.status} to {path}")
                await write_all(file, _checked(answer.content.iter_any(), layer))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryUnavailable(f"the registry broke off {path} ({why_for_clients(error)})") from error


async def _checked(chunks: AsyncIterator[bytes], layer: Part) -> AsyncIterator[bytes]:
    """These bytes, no more of them than the layer has. Raises `DigestMismatch` for other ones."""
    size, digest = 0, hashlib.new(layer.digest.partition(":")[0])
    async for chunk in chunks:
        size += len(chunk)
        if size > layer.size:
            break
        digest.update(chunk)
        yield chunk
    if size != layer.size or digest.hexdigest() != layer.digest.partition(":")[2]:
        raise DigestMismatch(f"the registry has other bytes than {layer.digest}")


async def write_all(file: Path, chunks: AsyncIterator[Buffer]) -> None:
    """Write these bytes into a new file."""
    target = await asyncio.to_thread(file.open, "wb")
    try:
        async for chunk in chunks:
            await asyncio.to_thread(target.write, chunk)
    finally:
        await asyncio.to_thread(target.close)


def _other_differences(before: ImageDocuments, now: ImageDocuments) -> Iterator[str]:
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
