"""A view of store paths as a `root_tree.Listing`, over four questions about places. A place is a path without symlinks on the way.

Two sources of store paths have such a view: a store on disk (`store_tree`) and the archives of a binary cache. Both follow
symlinks by the same rules, inside the store and never out of it. So both give the same root tree.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from proxy.core.errors import PackageUnusable, StoreUnreadable
from proxy.image.root_tree import Kind

#: Bytes of a text that a listing reads.
MOST_TEXT = 1 << 20
_SYMLINKS_FOLLOWED = 40  # as Linux does
_STORE = "/nix/store/"
_ABOVE = ("/nix", "/nix/store")


class _Way(NamedTuple):
    """Where a path leads."""

    parts: tuple[str, ...]  # of the place
    followed: int  # symlinks

    @property
    def place(self) -> str:
        return "/" + "/".join(self.parts)


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
        # By path, for the listing of an image alone: what its store paths hold does not change while it is made.
        self._ways: dict[str, _Way] = {}

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
        parent, _, name = path.rpartition("/")
        if (above := self._ways.get(parent)) is not None:
            way = self._follow(above, name)
        else:
            way = self._follow(_Way((), 0), path.lstrip("/"))
        if way is None:
            return None
        place = way.place
        if self._paths is not None:
            self._ways[path] = way
            self._ways[place] = _Way(way.parts, 0)
        return place if place.startswith(_STORE) else None

    def _follow(self, way: "_Way", path: str) -> "_Way | None":
        """The way on from there by a relative path; None if nothing is there, and for a circle."""
        todo = list(reversed(PurePosixPath(path).parts))
        done, followed = list(way.parts), way.followed
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = "/" + "/".join([*done, part])
            if not self._shows(here, len(done)):
                return None
            try:
                link = self._places.link(here)
            except OSError:
                return None
            if link is None:
                done.append(part)
                continue
            followed += 1
            if followed > _SYMLINKS_FOLLOWED:
                return None
            target = PurePosixPath(link)
            if target.is_absolute():
                done = []
            todo.extend(reversed([piece for piece in target.parts if piece != "/"]))
        return _Way(tuple(done), followed)

    def _shows(self, path: str, above: int) -> bool:
        """Whether this place, with so many folders above it, is a part of the store that may be looked at."""
        if above < len(_ABOVE):
            return path in _ABOVE
        return above > len(_ABOVE) or self._paths is None or path in self._paths
