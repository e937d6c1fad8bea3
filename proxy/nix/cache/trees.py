"""What is in a store path, without its bytes: the tree that a root tree is made from.

A tree comes from a NAR that was checked to its end, or from the listing (`.ls`) that a cache has beside the NAR. Nobody signs a
listing, so it counts only until the NAR itself is there: then both have to agree.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.core.errors import CacheUnusable
from proxy.image.base import JOINED
from proxy.image.root_tree import Kind
from proxy.image.tar import DIRECTORY, SYMLINK, WHITEOUT, Entry

#: A directory by names, or a text: a sign of what a file is; for a symlink the sign and its target.
Node = dict[str, "Node"] | str
_FILE, _EXECUTABLE, _LINK = "-", "x", "l"
_KINDS: Mapping[str, Kind] = {_FILE: "file", _EXECUTABLE: "executable"}
#: The largest tree that anybody keeps; a member takes about 150 bytes.
MOST_MEMBERS = 300_000
#: Files whose text decides a root tree or its environment.
TEXTS = frozenset(
    {"nix-support/propagated-user-env-packages", "nix-support/propagated-build-inputs", *JOINED}
)


@dataclass(slots=True)
class PathTree:
    """The tree of one store path, how many members it has, and those of its `TEXTS` that are small."""

    root: Node = _FILE
    members: int = 0
    texts: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_cut(self) -> bool:
        """Whether the tree lacks members, because there are more than `MOST_MEMBERS`."""
        return self.members > MOST_MEMBERS

    def clear(self) -> None:
        """Make this an empty tree again."""
        self.root, self.members = _FILE, 0
        self.texts.clear()

    def node(self, parts: Iterable[str]) -> Node | None:
        """What is at this place of the tree; None for nothing."""
        here: Node = self.root
        for part in parts:
            if isinstance(here, str) or part not in here:
                return None
            here = here[part]
        return here

    def has_texts(self) -> bool:
        """Whether one of `TEXTS` is in the tree."""
        return any(self.node(name.split("/")) is not None for name in TEXTS)


def grown(entries: Iterable[Entry], tree: PathTree) -> Iterator[Entry]:
    """The members of one store path, which this adds to an empty tree: those that no tree has room for are left out."""
    folders: dict[str, dict[str, Node]] = {}
    top = ""
    for entry in entries:
        top = top or f"{entry.path}/"
        tree.members += 1
        if tree.is_cut:
            yield entry
            continue
        node: Node
        if entry.kind == DIRECTORY:
            node = folders[entry.path] = {}
        elif entry.kind == SYMLINK:
            node = _LINK + entry.target
        else:
            node = _EXECUTABLE if entry.mode & 0o100 else _FILE
        above, _, name = entry.path.rpartition("/")
        if above in folders:
            folders[above][name] = node
        else:
            tree.root = node
        within = entry.path.removeprefix(top)
        if within in TEXTS and entry.stream is None:
            tree.texts[within] = entry.content
        yield entry


def read_listing(text: str) -> PathTree:
    """The tree of a `.ls` file. Raises `CacheUnusable`."""
    tree = PathTree()
    try:
        tree.root = _read(json.loads(text)["root"], tree)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheUnusable(f"its listing cannot be read: {error}") from error
    return tree


def _read(value: Mapping[str, Any], tree: PathTree) -> Node:
    tree.members += 1
    if tree.is_cut:
        raise ValueError("more members than a tree has room for")
    kind = value["type"]
    if kind == "directory":
        return {_name(name): _read(inner, tree) for name, inner in value["entries"].items()}
    if kind == "symlink":
        return _LINK + _target(value["target"])
    if kind == "regular":
        return _EXECUTABLE if value.get("executable") else _FILE
    raise ValueError("a member of no kind")


def _name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or name.startswith(WHITEOUT):
        raise ValueError("a name that no layer has")
    return _text(name)


def _target(target: Any) -> str:
    if not isinstance(target, str) or not target:
        raise ValueError("a symlink to nothing")
    return _text(target)


def _text(text: str) -> str:
    """The text, which is one that a file system can have."""
    if "\0" in text:
        raise ValueError("a NUL")
    text.encode()  # which refuses half of a surrogate pair
    return text


class Trees(Protocol):
    """Where trees come from."""

    def tree(self, path: str) -> PathTree:
        """The tree of a store path. Blocking."""

    def text(self, path: str, within: str, most: int) -> bytes | None:
        """The bytes of a file in it, None if there are more than `most`. Blocking."""


class TreePlaces:
    """Trees as `place_listing.Places`."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees

    def link(self, place: str) -> str | None:
        """As `Places.link`."""
        node = self._node(place)
        if node is None:
            raise FileNotFoundError(place)
        return node[1:] if isinstance(node, str) and node[0] == _LINK else None

    def kind(self, place: str) -> Kind:
        """As `Places.kind`."""
        node = self._node(place)
        return _KINDS[node] if isinstance(node, str) else "directory"

    def names(self, place: str) -> Iterable[str]:
        """As `Places.names`."""
        node = self._node(place)
        if not isinstance(node, dict):
            raise NotADirectoryError(place)
        return node

    def content(self, place: str, most: int) -> bytes | None:
        """As `Places.content`."""
        path, within = _divided(place)
        return self._trees.text(path, "/".join(within), most)

    def _node(self, place: str) -> Node | None:
        """What is at this place; the folders above the store paths have no members here."""
        path, within = _divided(place)
        return {} if path.count("/") < 3 else self._trees.tree(path).node(within)


def _divided(place: str) -> tuple[str, list[str]]:
    """The store path of a place, and the names below it."""
    parts = place.split("/")
    return "/".join(parts[:4]), parts[4:]
