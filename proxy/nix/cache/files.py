"""The store paths of one image, in binary caches: the members of its layers, and the trees that its root tree is made from.

Nothing of it is written to the disk. A NAR is checked while it arrives: against the hash and size in its narinfo, which a key
that we trust has signed. The end of a layer comes after the ends of its NARs, so a layer with a wrong byte never ends, and its
upload is cancelled.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from proxy.core.errors import CacheUnusable, NixfrontError
from proxy.image import tar
from proxy.image.environment.data import is_c_library
from proxy.image.place_listing import PlaceListing
from proxy.image.tar import Entry
from proxy.nix.cache.access import Cache, Source, in_loop
from proxy.nix.cache.closure import BinaryCaches, Place
from proxy.nix.cache.decompress import DECOMPRESSORS
from proxy.nix.cache.nar import Feed, members
from proxy.nix.cache.narinfo import NarInfo
from proxy.nix.cache.trees import MOST_MEMBERS, PathTree, TreePlaces, grown

_log = logging.getLogger(__name__)
#: How often a cache may break off one NAR.
_TRIES = 2


class CacheFiles:
    """The files of the store paths in `places`, of which `outputs` are in the root tree. As `StoreFiles` of the pipeline."""

    at_hand = False
    arriving = False

    def __init__(
        self,
        caches: BinaryCaches,
        places: Mapping[str, Place],
        outputs: Collection[str],
        *,
        substitutes: bool,
    ) -> None:
        """`substitutes` as for `BinaryCaches.closure`. The constructor runs in the event loop."""
        self._caches = caches
        self._places = dict(places)
        self._outputs = outputs
        self._substitutes = substitutes
        self._loop = asyncio.get_running_loop()
        self._failed: defaultdict[str, list[Cache]] = defaultdict(list)
        self._unpacked: frozenset[str] = frozenset()
        self._listed: dict[str, PathTree | None] = {}  # what listings say, until the NAR is there
        # Of NARs that were checked: nothing forgets them before the image is made.
        self._trees: dict[str, PathTree] = {}

    async def arrive(self, paths: Collection[str]) -> None:
        """As `StoreFiles.arrive`: who reads them waits for the bytes."""

    def entries(self, paths: Iterable[str]) -> Iterator[Entry]:
        """The members of a layer, as `store_entries` of a store on disk. For a thread.

        Raises `CacheUnusable`; with `elsewhere` the next call may succeed.
        """
        yield tar.directory("nix")
        yield tar.directory("nix/store")
        for path in sorted(paths):
            yield from self._members(path)

    def listing(self, paths: Iterable[str]) -> PlaceListing:
        """The view of these store paths for a root tree. For a thread."""
        return PlaceListing(TreePlaces(self), paths)

    async def prepare(self, unpacked: Collection[str]) -> bool:
        """Whether the root tree can be made before the layers that have the `unpacked` store paths.

        It can where the cache has listings. Else it has to wait for the layers, or their NARs would be fetched twice.
        """
        self._unpacked = frozenset(unpacked)
        needed = [path for path in unpacked if path in self._outputs or is_c_library(path)]
        trees = await asyncio.gather(*(self._list(path) for path in needed))
        return all(tree is not None and not tree.has_texts() for tree in trees)

    def confirm(self) -> None:
        """Look whether the listings that were used are true. For a thread. Raises `CacheUnusable`."""
        for path, listed in self._listed.items():
            if listed is not None:
                tree = self._fetched(path)
                if tree.root != listed.root:
                    cache = self._places[path].cache.name
                    raise CacheUnusable(f"{cache} lists other files of {path} than it sends")

    def tree(self, path: str) -> PathTree:
        """As `Trees.tree`: from a NAR that was fetched before, else from a listing that will be confirmed, else from the NAR."""
        tree = self._recall(path)
        if tree is None and path in self._unpacked:
            tree = (
                self._listed[path] if path in self._listed else in_loop(self._loop, lambda: self._list(path))
            )
        return tree or self._fetched(path)

    def text(self, path: str, within: str, most: int) -> bytes | None:
        """As `Trees.text`."""
        content = self._fetched(path).texts.get(within)
        return self._fetch(path, f"{path}/{within}".strip("/"), most) if content is None else content

    async def _list(self, path: str) -> PathTree | None:
        """The tree of a path by what is at hand: its NAR was here before, or the cache has a listing."""
        place = self._places[path]
        tree = await self._caches.in_thread(self._recall, path)
        if tree is None and path not in self._listed:
            self._listed[path] = await self._caches.listing(place)
        return tree or self._listed[path]

    def _fetched(self, path: str) -> PathTree:
        """The tree of a NAR that was checked; it is fetched where it was not here before. Blocking."""
        tree = self._recall(path)
        if tree is None:
            tree = PathTree()
            self._fetch(path, tree=tree)
            self._hold(path, tree)
        return tree

    def _recall(self, path: str) -> PathTree | None:
        """The tree of a NAR that was checked before. Blocking. Raises `CacheUnusable` for a tree that is too large."""
        tree = self._trees.get(path)
        if tree is None:
            tree = self._caches.trees.recall(self._places[path].info)
            if tree is not None:
                self._hold(path, tree)
        elif tree.is_cut:
            raise _too_large(path)
        return tree

    def _hold(self, path: str, tree: PathTree) -> None:
        """Keep this tree until the image is made. Raises `CacheUnusable` where the image's trees have too many members."""
        self._trees[path] = tree
        if sum(each.members for each in list(self._trees.values())) > MOST_MEMBERS:
            raise _too_large(path)

    def _fetch(
        self, path: str, file: str = "", most: int = 0, *, tree: PathTree | None = None
    ) -> bytes | None:
        """Fetch a NAR for its `tree`, and for the bytes of one file in it, unless there are more than `most`. Blocking."""
        while True:
            content = None
            try:
                for entry in self._members(path, tree):
                    if entry.path == file and entry.size <= most:
                        content = _bytes(entry)
            except CacheUnusable as error:
                if not error.elsewhere:
                    raise
                _log.warning("%s", error)
            else:
                return content

    def _members(self, path: str, tree: PathTree | None = None) -> Iterator[Entry]:
        """The members of one store path, of which `tree` gets the tree. Raises `CacheUnusable` for every failure."""
        place = self._places[path]
        # Nobody signs the size of the file, and it is hardly ever larger than the NAR.
        size = min(place.info.file_size or place.info.nar_size, place.info.nar_size)
        source = place.cache.open(place.info.file, size, self._loop)
        tree = PathTree() if tree is None else tree
        tree.clear()
        try:
            for entry in grown(_checked(source, place.info), tree):
                if entry.stream is not None:  # who reads it meets its errors there, and not here
                    entry = replace(entry, stream=partial(self._filled, path, place, entry.stream))
                yield entry
        except CacheUnusable as error:
            raise self._failure(path, place, error) from error
        finally:
            source.close()
        self._caches.trees.record(place.info, tree)
        if tree.is_cut:
            self._trees[path] = tree

    def _filled(
        self, path: str, place: Place, stream: Callable[[memoryview], int], buffer: memoryview
    ) -> int:
        """As the `stream` of an entry. Raises as `_members`."""
        try:
            return stream(buffer)
        except CacheUnusable as error:
            raise self._failure(path, place, error) from error

    def _failure(self, path: str, place: Place, error: CacheUnusable) -> CacheUnusable:
        """What a cache did wrong, with `elsewhere` if another try makes sense: then `places` has where. Blocking."""
        reason = f"{place.cache.name} does not send {path}: {error}"
        failed = self._failed[path]
        failed.append(place.cache)
        if error.elsewhere and failed.count(place.cache) < _TRIES:
            return CacheUnusable(reason, elsewhere=True)
        self._caches.forget(place)
        other = in_loop(
            self._loop, lambda: self._caches.elsewhere(place, failed, substitutes=self._substitutes)
        )
        if other is None:
            return CacheUnusable(reason)
        self._places[path] = other
        return CacheUnusable(reason, elsewhere=True)


def _too_large(path: str) -> CacheUnusable:
    return CacheUnusable(
        f"the image has more than {MOST_MEMBERS} files to look at, those of {path} among them"
    )


def _checked(source: Source, info: NarInfo) -> Iterator[Entry]:
    """The members of a NAR; it ends well only if all of it is what its narinfo says. Raises `CacheUnusable`."""
    file = _CountedFile(source)
    decompress = DECOMPRESSORS.get(info.compression)
    if decompress is None:
        raise CacheUnusable(f"its NAR has a compression that we do not read: {info.compression[:50]}")
    feed = Feed(_undamaged(decompress(file.read)), info.nar_size)
    yield from members(feed, info.path)
    if feed.digest() != info.nar_hash:
        raise CacheUnusable("its NAR has another hash than its narinfo says")
    if info.file_hash and file.digest() != info.file_hash:
        raise CacheUnusable("its file has another hash than its narinfo says")


def _undamaged(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, with one error for whatever a decompressor raises."""
    try:
        yield from pieces
    except NixfrontError:
        raise
    except Exception as error:  # each library has errors of its own, and none may end a layer early
        raise CacheUnusable(f"its file is damaged: {error}"[:300], elsewhere=True) from error


class _CountedFile:
    """A file of a cache, hashed as it is read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self) -> bytes:
        """As `Source.read`."""
        data = self._source.read()
        self._hash.update(data)
        return data

    def digest(self) -> bytes:
        """The hash of what was read."""
        return self._hash.digest()


def _bytes(entry: Entry) -> bytes:
    """All bytes of a file."""
    if entry.stream is None:
        return entry.content
    content = memoryview(bytearray(entry.size))
    at = 0
    while at < entry.size:
        at += entry.stream(content[at:])
    return bytes(content)
