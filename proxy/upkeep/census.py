"""What a binary cache says of store paths: its narinfo files, in a folder or over HTTP.

A narinfo is a few lines of `Key: value`, under the hash of its store path. Only names, sizes and references are
read, and nothing is installed by them, so signatures are not checked.

Who needs what, gathered for the table of layers (`cohorts`) from where it is known: Nix, a binary cache, a registry.

An image of one package holds its closure and what is in every image; those are the facts that a table is made of.
Where they come from makes no difference to it: a set that was realised, the narinfo files of a cache (for a set that
is too large to be realised), or the images that were served so far (what people ask for, not what there is).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp

from proxy.core.errors import NixfrontError, PackageSetUnavailable, TagUnknown
from proxy.core.model import (
    Package,
    PackageSet,
    PathInfo,
    canonical_json,
    sha256_hex,
    without_credentials,
)
from proxy.core.names import is_store_path
from proxy.image.layer_table import LayerTable
from proxy.nix.evaluate import Evaluator
from proxy.nix.store import NixStore
from proxy.registry.endpoint import Endpoint
from proxy.registry.management import Management
from proxy.upkeep import cohorts
from proxy.upkeep.explain import Explanation, explain

_QUESTIONS_AT_ONCE = 32  # requests
_TRIES = 3
_PAUSE = 0.5  # seconds before a question is asked anew; doubled for each further try
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
_HASH = re.compile(r"(?:\S*/)?([0-9a-z]{32})(?:-[^\s/]+)?/?")

#: The text of the narinfo of a hash, None where the cache has none.
_Read = Callable[[str], Coroutine[None, None, str | None]]


def hash_of(name: str) -> str:
    """The hash in a store path, or a hash itself. Raises `PackageSetUnavailable` for what is neither."""
    match = _HASH.fullmatch(name)
    if match is None:
        raise PackageSetUnavailable(
            f"{name!r} is no store path, as /nix/store/<hash>-<name>, and no hash of one"
        )
    return match[1]


def parse(text: str) -> PathInfo:
    """The store path that a narinfo is about. Raises `ValueError` for what is no narinfo."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    path, size = fields.get("StorePath", ""), fields.get("NarSize", "")
    folder, _, name = path.rpartition("/")  # a cache may be of another folder than /nix/store
    if not (folder.startswith("/") and is_store_path(f"/nix/store/{name}") and size.isdecimal()):
        raise ValueError("it has no StorePath and NarSize")
    needed = {f"{folder}/{reference}" for reference in fields.get("References", "").split()} - {path}
    return PathInfo(path, int(size), tuple(sorted(needed)))


async def closures(cache: str, roots: Iterable[str]) -> dict[str, PathInfo]:
    """All that the cache (a folder, or the URL of one) has of these store paths, given as paths or hashes, and of all that they need.

    By hash. What it has not is left out. Raises `PackageSetUnavailable`.
    """
    wanted = dict.fromkeys(map(hash_of, roots))
    if urlsplit(cache).scheme not in ("http", "https"):
        folder = Path(cache.removeprefix("file://"))
        if not await asyncio.to_thread((folder / "nix-cache-info").is_file):
            raise PackageSetUnavailable(f"{folder} is no binary cache: it has no file nix-cache-info")
        return await _walk(wanted, lambda digest: asyncio.to_thread(_read, folder / f"{digest}.narinfo"))
    base = cache.rstrip("/")
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
        if await _get(session, f"{base}/nix-cache-info") is None:
            raise PackageSetUnavailable(
                f"{without_credentials(base)} is no binary cache: it has no nix-cache-info"
            )
        return await _walk(wanted, lambda digest: _get(session, f"{base}/{digest}.narinfo"))


async def _walk(roots: Iterable[str], read: _Read) -> dict[str, PathInfo]:
    found: dict[str, PathInfo] = {}
    slots = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def one(digest: str) -> PathInfo | None:
        async with slots:
            text = await read(digest)
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise PackageSetUnavailable(f"the narinfo of {digest} cannot be read: {error}") from error

    seen, pending = set(roots), list(roots)
    while pending:
        infos = await asyncio.gather(*map(one, pending))
        found.update((digest, info) for digest, info in zip(pending, infos, strict=True) if info)
        needed = {hash_of(path) for info in infos if info for path in info.references}
        pending = sorted(needed - seen)
        seen |= needed
    return found


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PackageSetUnavailable(f"cannot read {file}: {error}") from error


async def _get(session: aiohttp.ClientSession, url: str) -> str | None:
    """The text at a URL, None for a 404 (or 403, which is how some object stores say it)."""
    for attempt in range(_TRIES):
        try:
            async with session.get(url) as answer:
                if answer.status in (403, 404):
                    return None
                answer.raise_for_status()
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            told = getattr(error, "status", 500)
            if attempt == _TRIES - 1 or told < 500:
                reason = f"{type(error).__name__}: {error}"
                raise PackageSetUnavailable(without_credentials(f"cannot read {url}: {reason}")) from error
            await asyncio.sleep(_PAUSE * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


_AT_ONCE = 8  # images that are read from the registry

T = TypeVar("T")

#: Takes a line for the person who waits.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Census:
    """The store paths of each image, the bytes of each path, and what these images are."""

    images: tuple[frozenset[str], ...]
    sizes: Mapping[str, int]
    source: str

    def table(self) -> LayerTable:
        """The table that follows from it; takes a while for a large set."""
        held = frozenset().union(*self.images)
        return cohorts.table(self.images, self.sizes, f"{self.source}, {len(held)} store paths")


async def of_cache(cache: str, roots: Sequence[str], always: Sequence[str], say: Say) -> Census:
    """The images of these store paths (or hashes of them), by the narinfo files of a cache; `say` is told what is left out.

    Raises `PackageSetUnavailable`, also where the cache has none of them with all that it needs.
    """
    infos = await closures(cache, [*roots, *always])
    paths = {info.path: info for info in infos.values()}

    def image(names: Iterable[str]) -> frozenset[str]:
        """Raises `KeyError` for what the cache has not."""
        return _closure([infos[hash_of(name)].path for name in names], paths)

    images = []
    for root in roots:
        try:
            images.append(image([root, *always]))
        except KeyError as missing:
            say(f"left out: {root}, as the cache has no {missing.args[0]}")
    if not images:
        raise PackageSetUnavailable("the cache has none of these store paths with all that it needs")
    return Census(tuple(images), _sizes(paths), f"{len(images)} store paths of a binary cache")


async def of_set(
    evaluator: Evaluator,
    store: NixStore,
    package_set: PackageSet,
    attributes: Sequence[str],
    always: Sequence[str],
    roots: Path,
    *,
    strict: bool,
    say: Say,
    on_line: Say,
) -> Census:
    """The images of these attributes of a set, which are built or fetched; `always` counts where the set has it.

    `roots`: an empty folder for garbage-collector roots. Where not `strict`, a package that cannot be had is left out, and
    `say` told; else its error raised. `on_line` takes Nix's log. Raises a `NixfrontError`.
    """

    async def evaluated(names: Sequence[str]) -> dict[str, Package]:
        return await evaluator.evaluate(package_set, names, always)

    async def realised(names: Sequence[str]) -> dict[str, PathInfo]:
        folder = roots / sha256_hex(canonical_json(list(names)))
        await asyncio.to_thread(folder.mkdir)
        some = [packages[name] for name in dict.fromkeys((*names, *everywhere))]
        closure = await store.realise(package_set, some, names, folder, on_line)
        return {info.path: info for info in closure.paths}

    packages = await _all_of(attributes, evaluated, strict, say)
    everywhere = [name for name in always if name in packages]
    paths = await _all_of([name for name in attributes if name in packages], realised, strict, say)
    images = []
    for name in attributes:
        parts = [packages[each] for each in (name, *everywhere) if name in packages]
        outputs = [path for package in parts for _, path in package.outputs]
        if outputs and paths.keys() >= set(outputs):
            images.append(_closure(outputs, paths))
    return Census(tuple(images), _sizes(paths), f"{len(images)} packages of {package_set.name}")


async def of_registry(registry: Endpoint) -> Census:
    """The images of ours in the registry, or nixfront, each once however many tags it has.

    The bytes of a layer are shared out evenly among its paths: more is not known. Raises `RegistryUnavailable`.
    """
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(repository: str, tag: str) -> Explanation | None:
        async with slots:
            try:
                return await explain(reached, repository, tag)
            except TagUnknown:  # gone meanwhile, or a list of images
                return None

    listed = await asyncio.to_thread(_listed, registry)
    async with registry.opened() as reached:
        found = await asyncio.gather(*(one(repository, tag) for repository, tags in listed for tag in tags))
    sizes: dict[str, int] = {}
    images: dict[frozenset[str], None] = {}
    for image in filter(None, found):
        for layer in image.layers:
            for path in layer.store_paths:
                sizes[path] = max(sizes.get(path, 0), layer.size // len(layer.store_paths))
        if held := frozenset(path for layer in image.layers for path in layer.store_paths):
            images[held] = None
    return Census(tuple(images), sizes, f"{len(images)} images served")


def _listed(registry: Endpoint) -> list[tuple[str, tuple[str, ...]]]:
    with Management(registry) as keeper:
        return list(keeper.images())


async def _all_of(
    names: Sequence[str],
    attempt: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
    strict: bool,
    say: Say,
) -> dict[str, T]:
    """What the attempt yields for all names; where it fails and is not `strict`, for all but those that are to blame."""
    if not names:
        return {}
    try:
        return dict(await attempt(names))
    except NixfrontError as error:
        if strict or not error.lasting:
            raise
        if len(names) == 1:
            say(f"left out: {names[0]}: {str(error).splitlines()[0]}")
            return {}
    half = len(names) // 2
    first = await _all_of(names[:half], attempt, strict, say)
    return first | await _all_of(names[half:], attempt, strict, say)


def _closure(outputs: Iterable[str], paths: Mapping[str, PathInfo]) -> frozenset[str]:
    """These paths and all that they need. Raises `KeyError` for one that is not among `paths`."""
    found = set(outputs)
    pending = list(found)
    while pending:
        new = set(paths[pending.pop()].references) - found
        found |= new
        pending += new
    return frozenset(found)


def _sizes(paths: Mapping[str, PathInfo]) -> dict[str, int]:
    return {path: info.nar_size for path, info in paths.items()}
