"""The closure of an image, as binary caches say it, before anything is fetched: narinfos, each from the first cache that has one.

As Nix does, this takes the caches in the order of their priorities, and of each path the first narinfo that a key signed which we
trust. A path that no cache has ends the walk: then the image comes through the store.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import aiohttp
from cachetools import TTLCache

from proxy.core.errors import CacheUnusable, NixfrontError
from proxy.core.names import is_store_path
from proxy.nix.cache.access import Cache, by_host
from proxy.nix.cache.narinfo import Keys, NarInfo, hash_of, parse
from proxy.nix.cache.settings import CacheSettings, read_logins, read_settings
from proxy.nix.cache.tree_cache import TreeCache
from proxy.nix.cache.trees import PathTree, read_listing
from proxy.tools.flight import SingleFlight

A = TypeVar("A")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_SETTINGS_SECONDS = 600.0
_QUESTION_SECONDS = 60.0
_INFO_SECONDS = 3600.0
_NOTHING_SECONDS = 60.0
_MOST_INFOS = 20_000
_MOST_PATHS = 20_000  # of one image
_READS_AT_ONCE = 32
_LARGEST_INFO = 2 << 20  # room for all references that a path may have
_SMALL_INFO = 16 << 10  # a larger one is judged in a thread
_LARGEST_LISTING = 32 << 20
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store path comes from."""

    cache: Cache
    info: NarInfo


class Nix(Protocol):
    """What runs a command line of Nix and returns its output (`NixRunner`)."""

    async def run(
        self, argv: tuple[str, ...], deadline: float, /, *, substitutes: bool = True, secrets: bool = False
    ) -> bytes:
        """Raises a `NixfrontError`."""


class _Lacking(Exception):
    """No cache has this path."""


def _infos() -> TTLCache[tuple[str, str], NarInfo]:
    return TTLCache(_MOST_INFOS, _INFO_SECONDS)


def _absent() -> TTLCache[tuple[str, str], bool]:
    return TTLCache(_MOST_INFOS, _NOTHING_SECONDS)


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """The caches of these settings in the order of the settings, what we trust, and what the caches said.

    `infos` has only narinfos that we trust; by cache and store path, as `absent` has.
    """

    settings: CacheSettings
    logins: Mapping[str, tuple[str, str]]
    caches: tuple[Cache, ...]
    keys: Keys
    infos: TTLCache[tuple[str, str], NarInfo] = field(default_factory=_infos)
    absent: TTLCache[tuple[str, str], bool] = field(default_factory=_absent)
    #: Caches of which the log says already that they have what nobody signed whom we trust.
    untrusted: set[Cache] = field(default_factory=set)


class BinaryCaches:
    """The binary caches that Nix on this host would use, and what they said."""

    def __init__(self, runner: Nix, session: aiohttp.ClientSession, trees: TreeCache) -> None:
        """`session` is closed with this; `trees` are those of NARs that were checked."""
        self._runner = runner
        self._session = session
        self._opened: TTLCache[bool, _Opened] = TTLCache(2, _SETTINGS_SECONDS)
        self._newest: dict[bool, _Opened] = {}
        self._flights: SingleFlight[bool, _Opened] = SingleFlight()
        self.trees = trees
        # What runs here waits for nothing but the disk, so a thread that waits for the event loop never waits for itself.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="caches")
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)

    async def close(self) -> None:
        """Break off whatever is being fetched."""
        await self._flights.close()
        await self._session.close()
        self._threads.shutdown(wait=False)

    async def in_thread(self, work: Callable[[A], T], argument: A) -> T:
        """The result of `work`, which reads a file or the like."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, argument)

    async def closure(self, paths: Iterable[str], *, substitutes: bool) -> Mapping[str, Place] | None:
        """Where these store paths and all that they need come from; None if the caches lack a part of it.

        Without `substitutes` only the operator's own binary caches are used.
        """
        wanted = list(dict.fromkeys(paths))
        opened = await self._open(substitutes)
        caches = await _in_order(opened)
        if not caches or not all(map(is_store_path, wanted)):
            return None
        places: dict[str, Place | None] = {}
        lacks: list[str] = []

        async def walk(path: str) -> None:
            place = await self._first(path, opened, caches)
            if place is None:
                raise _Lacking(path)
            places[path] = place
            for reference in place.info.references:
                add(reference)

        def add(path: str) -> None:
            if path not in places:
                places[path] = None
                if len(places) > _MOST_PATHS:
                    raise _Lacking(path)
                group.create_task(walk(path))

        try:
            async with asyncio.TaskGroup() as group:
                for path in wanted:
                    add(path)
        except* _Lacking as lacking:
            lacks += [str(each) for each in lacking.exceptions]
        if lacks:
            _log.debug("no binary cache has %s", lacks[0])
            return None
        return {path: place for path, place in sorted(places.items()) if place is not None}

    async def elsewhere(self, place: Place, failed: Collection[Cache], *, substitutes: bool) -> Place | None:
        """Another cache that has the same NAR as this place; None where none of those that have not `failed` has."""
        opened = await self._open(substitutes)
        for cache in await _in_order(opened):
            if cache not in failed:
                other = await self._first(place.info.path, opened, (cache,))
                if other is not None and other.info.fingerprint == place.info.fingerprint:
                    return other
        return None

    async def listing(self, place: Place) -> PathTree | None:
        """What the listing beside a NAR says; None where there is none that we can read."""
        try:
            async with self._reads:
                text = await place.cache.text(f"{hash_of(place.info.path)}.ls", _LARGEST_LISTING)
            return None if text is None else await self.in_thread(read_listing, text)
        except CacheUnusable as error:
            _log.debug("no listing of %s: %s", place.info.path, error)
            return None

    def forget(self, place: Place) -> None:
        """Ask anew about this path: the cache did not send what it promised."""
        for opened in self._newest.values():
            opened.infos.pop((place.cache.address.url, place.info.path), None)

    async def _open(self, substitutes: bool) -> _Opened:
        """The caches that Nix uses now. There are none where Nix does not say."""
        return self._opened.get(substitutes) or await self._flights.run(
            substitutes, lambda: self._read_settings(substitutes)
        )

    async def _read_settings(self, substitutes: bool) -> _Opened:
        settings = CacheSettings()
        try:
            output = await self._runner.run(
                ("nix", "show-config", "--json"), _QUESTION_SECONDS, substitutes=substitutes, secrets=True
            )
            settings = read_settings(output)
        except (NixfrontError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("Nix does not say which binary caches it uses: %s", error)
        logins = await asyncio.to_thread(read_logins, settings.netrc_file) if settings.netrc_file else {}
        opened = self._newest.get(substitutes)
        if opened is None or (opened.settings, opened.logins) != (settings, logins):
            caches = (
                Cache(address, self._session, self._threads, by_host(logins, address))
                for address in settings.addresses
            )
            opened = _Opened(settings, logins, tuple(caches), Keys(settings.keys))
        self._opened[substitutes] = self._newest[substitutes] = opened
        return opened

    async def _first(self, path: str, opened: _Opened, caches: Iterable[Cache]) -> Place | None:
        """The first of these caches that has the path, with a signature that we trust."""
        for cache in caches:
            if (info := await self._info(cache, path, opened)) is not None:
                return Place(cache, info)
        return None

    async def _info(self, cache: Cache, path: str, opened: _Opened) -> NarInfo | None:
        key = (cache.address.url, path)
        if (info := opened.infos.get(key)) is not None or key in opened.absent:
            return info
        needs_signature = opened.settings.needs_signatures and not cache.address.trusted
        judge = partial(_trusted, path=path, keys=opened.keys if needs_signature else None)
        try:
            async with self._reads:
                text = await cache.text(f"{hash_of(path)}.narinfo", _LARGEST_INFO)
            if text is not None:
                info = judge(text) if len(text) <= _SMALL_INFO else await self.in_thread(judge, text)
                if info is None and cache not in opened.untrusted:
                    opened.untrusted.add(cache)
                    _log.warning(
                        "binary cache %s has %s, but no signature of a key that we trust: it counts as missing there "
                        "(trusted-public-keys of Nix, nix.public_keys)",
                        cache.name,
                        path,
                    )
        except CacheUnusable as error:
            if not cache.is_away:  # it says so itself, once for all paths
                _log.warning("binary cache %s: %s", cache.name, error)
        if info is None:
            opened.absent[key] = True
        else:
            opened.infos[key] = info
        return info


async def _in_order(opened: _Opened) -> tuple[Cache, ...]:
    """The caches that answer, as Nix orders them."""
    priorities = await asyncio.gather(*(cache.priority() for cache in opened.caches))
    ordered = sorted((priority, at) for at, priority in enumerate(priorities) if priority is not None)
    return tuple(opened.caches[at] for _, at in ordered)


def _trusted(text: str, path: str, keys: Keys | None) -> NarInfo | None:
    """The narinfo of this path; None where `keys` are needed and none of them has signed it. Raises `CacheUnusable`."""
    info = parse(text, path)
    return info if keys is None or keys.trust(info) else None
