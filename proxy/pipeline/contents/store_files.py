"""Where the store paths of an image come from.

A store on disk has them, or Nix puts them there meanwhile (`arriving`), or binary caches send them (`nix.cache.files`).
"""

import asyncio
from collections.abc import Collection, Iterable
from typing import Protocol

from proxy.image import store_tree
from proxy.image.root_tree import Listing
from proxy.image.tar import Entry


class StoreFiles(Protocol):
    """The store paths of one image. Every source gives the same bytes of them."""

    @property
    def at_hand(self) -> bool:
        """Whether a look at files takes no time to speak of."""

    @property
    def arriving(self) -> bool:
        """Whether store paths may still be on their way: then the root tree comes after them."""

    async def arrive(self, paths: Collection[str]) -> None:
        """Wait until these store paths can be read. Raises why they do not come."""

    def entries(self, paths: Iterable[str]) -> Iterable[Entry]:
        """The members of a layer that holds these store paths. They are read in a thread."""

    def listing(self, paths: Collection[str]) -> Listing:
        """The view of these store paths for the root tree. It is used in a thread."""

    async def prepare(self, unpacked: Collection[str]) -> bool:
        """Whether the root tree is made before the layers that have the `unpacked` store paths.

        Raises `PackageUnusable` if one of these has a name that no layer can hold, and the source sees it before it packs.
        """

    def confirm(self) -> None:
        """Called in a thread when layers and root tree are made, or cannot be. Raises `CacheUnusable` if the listing was wrong."""


class DiskFiles:
    """The files of a store on disk, in which something else holds the store paths; `prefix` as in `image.store_tree`."""

    at_hand = True
    arriving = False

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    async def arrive(self, paths: Collection[str]) -> None:
        """As `StoreFiles.arrive`: they are there."""

    def entries(self, paths: Iterable[str]) -> Iterable[Entry]:
        """As `StoreFiles.entries`."""
        return store_tree.store_entries(paths, self._prefix)

    def listing(self, paths: Collection[str]) -> Listing:
        """As `StoreFiles.listing`."""
        return store_tree.StoreListing(self._prefix, paths)

    async def prepare(self, unpacked: Collection[str]) -> bool:
        """As `StoreFiles.prepare`."""
        await asyncio.to_thread(store_tree.check_names, unpacked, self._prefix)
        return True

    def confirm(self) -> None:
        """As `StoreFiles.confirm`: what is on disk is true."""
