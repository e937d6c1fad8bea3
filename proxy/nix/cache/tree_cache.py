"""The trees of NARs that were checked: in memory, and in a folder that outlives this process.

With them an image whose layers the registry has needs no byte of a binary cache, though the store is empty. The folder is a cache:
a file that cannot be read is fetched anew as a NAR. All methods block, and any thread may call them.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from cachetools import LRUCache

from proxy.nix.cache.narinfo import NarInfo, hash_of
from proxy.nix.cache.trees import MOST_MEMBERS, Node, PathTree
from proxy.tools.files import keep_newest, write_whole

_log = logging.getLogger(__name__)
_MOST_FILES = 8192
_LARGEST_FILE = 4 << 20
_WRITES_UNTIL_CLEANING = 256


class TreeCache:
    """Trees by store path and NAR hash. Those in memory have `MOST_MEMBERS` together."""

    def __init__(self, folder: Path) -> None:
        """`folder` need not exist yet."""
        self._folder = folder
        self._trees: LRUCache[tuple[str, bytes], PathTree] = LRUCache(
            MOST_MEMBERS, getsizeof=lambda tree: tree.members
        )
        self._lock = Lock()
        self._writes = 0

    def recall(self, info: NarInfo) -> PathTree | None:
        """The tree of a NAR that was checked before."""
        key = (info.path, info.nar_hash)
        with self._lock:
            tree = self._trees.get(key)
        if tree is None and (tree := self._load(info)) is not None:
            self._keep(info, tree)
        return tree

    def record(self, info: NarInfo, tree: PathTree) -> None:
        """Keep the tree of a NAR that was checked, unless it is cut."""
        if tree.is_cut:
            return
        self._keep(info, tree)
        data = json.dumps(
            {
                "root": tree.root,
                "members": tree.members,
                "texts": {name: content.decode("latin-1") for name, content in tree.texts.items()},
            }
        ).encode()
        if len(data) > _LARGEST_FILE:
            return
        try:
            self._folder.mkdir(exist_ok=True)
            write_whole(self._file(info), data)
            self._writes += 1
            if self._writes % _WRITES_UNTIL_CLEANING == 1:
                keep_newest(self._folder, "*.json", _MOST_FILES)
        except OSError as error:
            _log.warning("cannot keep what is in %s: %s", info.path, error)

    def _keep(self, info: NarInfo, tree: PathTree) -> None:
        with self._lock:
            if not tree.is_cut:
                self._trees[info.path, info.nar_hash] = tree

    def _file(self, info: NarInfo) -> Path:
        return self._folder / f"{hash_of(info.path)}-{info.nar_hash.hex()}.json"

    def _load(self, info: NarInfo) -> PathTree | None:
        try:
            value: Mapping[str, Any] = json.loads(self._file(info).read_bytes())
            texts = {name: text.encode("latin-1") for name, text in value["texts"].items()}
            return PathTree(_node(value["root"]), int(value["members"]), texts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _node(value: Any) -> Node:
    """The value, which is a tree. Raises `ValueError`."""
    if isinstance(value, dict):
        return {name: _node(inner) for name, inner in value.items()}
    if isinstance(value, str) and (value in ("-", "x") or value.startswith("l")):
        return value
    raise ValueError("no tree")
