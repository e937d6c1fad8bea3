"""A view of store paths as a `root_tree.Listing`, over four questions about places. A place is a path without symlinks on the way.

Two sources of store paths have such a view: a store on disk (`store_tree`) and the archives of a binary cache. Both follow
symlinks by the same rules, inside the store and never out of it. So both give the same root tree.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from proxy.core.errors import PackageUnusable, StoreUnreadable
from proxy.image.root_tree import Kind

#: Bytes of a text that a listing reads.
MOST_TEXT = 1 << 20
_SYMLINKS_FOLLOWED = 40  # as Linux does
_STORE = "/nix/store/"
_ABOVE = ("/nix", "/nix/store")


class Places(Protocol):
    """What answers the four questions."""

    def link(self, place: str) -> str | None:
        """The target of the symlink here, None for anything else. Raises `OSError` where nothing is."""

    def kind(self, place: str) -> Kind:
        """The kind of what is here, which is no symlink."""

    def names(self, place: str) -> Iterable[str]:
        """The names in this directory."""

    def content(self, place: str, most: int) -> bytes | None:
        """The bytes of this file, None if there are more than `most`."""


class PlaceListing:
    """Follows symlinks from place to place.

    It shows nothing else of the host, and of the store only `paths` where they are not None. So a package that names another
    store path gets the same tree on every host.
    """

    def __init__(self, places: Places, paths: Iterable[str] | None = None) -> None:
        self._places = places
        self._paths = None if paths is None else frozenset(paths)
        # Where a path leads, and by how many symlinks, for the listing of an image alone: what its store paths hold does not
        # change while it is made.
        self._ways: dict[str, tuple[str, int]] = {}

    def within(self, paths: Iterable[str]) -> "PlaceListing":
        """The same store with these store paths alone: those of an image."""
        return PlaceListing(self._places, paths)

    def kind(self, path: str) -> Kind | None:
        """As `Listing.kind`."""
        place = self._resolve(path)
        return None if place is None else self._places.kind(place)

    def children(self, path: str) -> Mapping[str, Kind]:
        """As `Listing.children`, sorted by name; a symlink that leads out of the store counts as a file too."""
        place = self._resolve(path)
        if place is None:
            return {}
        return {name: self.kind(f"{place}/{name}") or "file" for name in sorted(self._places.names(place))}

    def read(self, path: str) -> str:
        """As `Listing.read`. Raises `StoreUnreadable` for what is not in the store, `PackageUnusable` for a large file."""
        place = self._resolve(path)
        if place is None:  # or a symlink of a package could have a file of this host read
            raise StoreUnreadable(f"{path} is no file of the store")
        content = self._places.content(place, MOST_TEXT)
        if content is None:
            raise PackageUnusable(
                f"{path} is larger than {MOST_TEXT} bytes, the most that nixfront reads of it"
            )
        # As a file in text mode, which knows three kinds of line ends.
        text = content.decode("utf-8", "surrogateescape")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def real(self, path: str) -> str:
        """As `Listing.real`."""
        return self._resolve(path) or path

    def _resolve(self, path: str) -> str | None:
        """The place without symlinks on the way; None if nothing is there, for a circle, and outside the store."""
        way = self._ways.get(path)
        if way is None:
            parent, _, name = path.rpartition("/")
            above = self._ways.get(parent)
            way = self._follow("", 0, path) if above is None else self._follow(*above, name)
            if way is None:
                return None
            if self._paths is not None:
                self._ways[path] = way
                self._ways[way[0]] = (way[0], 0)
        return way[0] if way[0].startswith(_STORE) else None

    def _follow(self, place: str, followed: int, path: str) -> tuple[str, int] | None:
        """The way on from this place by a relative path; None if nothing is there, and for a circle."""
        todo = _pieces(path)
        while todo:
            part = todo.pop()
            if part == "..":
                place = place.rpartition("/")[0]
                continue
            here = f"{place}/{part}"
            if not self._shows(here):
                return None
            try:
                link = self._places.link(here)
            except OSError:
                return None
            if link is None:
                place = here
                continue
            followed += 1
            if followed > _SYMLINKS_FOLLOWED:
                return None
            if link.startswith("/"):
                place = ""
            todo.extend(_pieces(link))
        return place, followed

    def _shows(self, place: str) -> bool:
        """Whether this place is a part of the store that may be looked at."""
        depth = place.count("/")
        if depth <= len(_ABOVE):
            return place in _ABOVE
        return depth > len(_ABOVE) + 1 or self._paths is None or place in self._paths


def _pieces(path: str) -> list[str]:
    """The names in a path, the last one first."""
    return [piece for piece in reversed(path.split("/")) if piece not in ("", ".")]
