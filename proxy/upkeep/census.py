"""Which images need which store paths: the facts that the table of layers (`cohorts`) is made of.

The facts come from Nix, from a binary cache, or from a registry. Nix gives them for a set that it can realise; narinfo
files for a set that is too large for that; the images in the registry for what people pull. The image of one package holds
its closure and what is in every image.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from proxy.core.errors import NixfrontError, PackageSetUnavailable, TagUnknown
from proxy.core.model import Package, PackageSet, PathInfo, canonical_json, sha256_hex
from proxy.image.layer_table import LayerTable
from proxy.nix.evaluate import Evaluator
from proxy.nix.store import NixStore
from proxy.registry.endpoint import Endpoint
from proxy.registry.management import Management
from proxy.upkeep import cohorts, narinfo
from proxy.upkeep.explain import Explanation, explain

_IMAGES_AT_ONCE = 8  # that are read from the registry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Census:
    """The store paths of each image, the bytes of each path, and the source of these facts.

    `left_out`: a line for each package that is not among the images, with the reason.
    """

    images: tuple[frozenset[str], ...]
    sizes: Mapping[str, int]
    source: str
    left_out: tuple[str, ...] = ()

    def table(self) -> LayerTable:
        """The table of layers that follows from these facts. Computes for a while if the set is large."""
        paths = frozenset().union(*self.images)
        return cohorts.table(self.images, self.sizes, f"{self.source}, {len(paths)} store paths")


async def of_cache(cache: str, roots: Sequence[str], always: Sequence[str]) -> Census:
    """One image for each of these store paths (or hashes of them), by the narinfo files of a cache.

    Raises `PackageSetUnavailable`, also if the cache has none of them with all that it needs.
    """
    infos = await narinfo.closures(cache, [*roots, *always])
    paths = {info.path: info for info in infos.values()}

    def image(names: Iterable[str]) -> frozenset[str]:
        """Raises `KeyError` with the hash or path that the cache lacks."""
        return _closure([infos[narinfo.hash_of(name)].path for name in names], paths)

    images: list[frozenset[str]] = []
    left_out: list[str] = []
    for root in roots:
        try:
            images.append(image([root, *always]))
        except KeyError as missing:
            left_out.append(f"left out: {root}, as the cache has no {missing.args[0]}")
    if not images:
        reasons = "\n".join(left_out)
        raise PackageSetUnavailable(
            f"the cache has none of these store paths with all that it needs\n{reasons}".rstrip()
        )
    source = f"{len(images)} store paths of a binary cache"
    return Census(tuple(images), _sizes(paths), source, tuple(left_out))


async def of_set(
    evaluator: Evaluator,
    store: NixStore,
    package_set: PackageSet,
    attributes: Sequence[str],
    always: Sequence[str],
    roots: Path,
    *,
    strict: bool,
    on_line: Callable[[str], None],
) -> Census:
    """One image for each of these attributes of a set; Nix builds or fetches the packages.

    `always`: the attributes in every image, as far as the set has them. `roots`: an empty folder for garbage-collector
    roots. `strict`: raise the error of a package that does not build, instead of leaving the package out. `on_line` gets
    the lines of Nix's log. Raises a `NixfrontError`.
    """
    left_out: list[str] = []

    async def evaluate(names: Sequence[str]) -> dict[str, Package]:
        return await evaluator.evaluate(package_set, names, always)

    async def realise(names: Sequence[str]) -> dict[str, PathInfo]:
        folder = roots / sha256_hex(canonical_json(list(names)))
        await asyncio.to_thread(folder.mkdir)
        chosen = [packages[name] for name in dict.fromkeys((*names, *everywhere))]
        closure = await store.realise(package_set, chosen, names, folder, on_line)
        return {info.path: info for info in closure.paths}

    packages = await _bisect(attributes, evaluate, strict, left_out)
    everywhere = [name for name in always if name in packages]
    paths = await _bisect([name for name in attributes if name in packages], realise, strict, left_out)
    images = []
    for name in attributes:
        parts = [packages[each] for each in (name, *everywhere) if name in packages]
        outputs = [path for package in parts for _, path in package.outputs]
        if outputs and paths.keys() >= set(outputs):
            images.append(_closure(outputs, paths))
    source = f"{len(images)} packages of {package_set.name}"
    return Census(tuple(images), _sizes(paths), source, tuple(left_out))


async def of_registry(registry: Endpoint) -> Census:
    """The images that nixfront built in a registry, each once, whatever its number of tags.

    Each path of a layer counts an equal part of its bytes, as the registry knows no more. Raises `RegistryUnavailable`.
    """
    slots = asyncio.Semaphore(_IMAGES_AT_ONCE)
    left_out: list[str] = []

    async def one(repository: str, tag: str) -> list[Explanation]:
        """The image, or the images of an index."""
        async with slots:
            try:
                first = await explain(reached, repository, tag)
                others = [name for name in first.platforms if name != first.platform]
                return [first, *[await explain(reached, repository, tag, name) for name in others]]
            except TagUnknown as error:  # somebody has deleted it meanwhile, or it is no image of layers
                left_out.append(f"left out: {repository}:{tag}: {str(error).splitlines()[0]}")
                return []

    async with registry.opened() as reached:
        pairs = [(name, tag) async for name, tags in Management(reached).images() for tag in tags]
        explanations = await asyncio.gather(*(one(repository, tag) for repository, tag in pairs))
    sizes: dict[str, int] = {}
    images: dict[frozenset[str], None] = {}
    for image in chain.from_iterable(explanations):
        for layer in image.layers:
            for path in layer.store_paths:
                sizes[path] = max(sizes.get(path, 0), layer.size // len(layer.store_paths))
        if paths := frozenset(path for layer in image.layers for path in layer.store_paths):
            images[paths] = None
    return Census(tuple(images), sizes, f"{len(images)} images served", tuple(sorted(left_out)))


async def _bisect(
    names: Sequence[str],
    attempt: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
    strict: bool,
    left_out: list[str],
) -> dict[str, T]:
    """The result of the attempt for all names. If it fails and is not `strict`, the result without the names that fail.

    Halves the names until each failing one is alone, and appends a line about it to `left_out`.
    """
    if not names:
        return {}
    try:
        return dict(await attempt(names))
    except NixfrontError as error:
        if strict or not error.lasting:
            raise
        if len(names) == 1:
            left_out.append(f"left out: {names[0]}: {str(error).splitlines()[0]}")
            return {}
    half = len(names) // 2
    first = await _bisect(names[:half], attempt, strict, left_out)
    return first | await _bisect(names[half:], attempt, strict, left_out)


def _closure(outputs: Iterable[str], paths: Mapping[str, PathInfo]) -> frozenset[str]:
    """These paths and all that they need. Raises `KeyError` for one that is not among `paths`."""
    closure = set(outputs)
    pending = list(closure)
    while pending:
        new = set(paths[pending.pop()].references) - closure
        closure |= new
        pending += new
    return frozenset(closure)


def _sizes(paths: Mapping[str, PathInfo]) -> dict[str, int]:
    return {path: info.nar_size for path, info in paths.items()}
