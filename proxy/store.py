"""The Nix store on disk: the members of a layer, and the view of it that the root tree is made from.

The standard library alone, and nothing asynchronous: the same code runs inside a Nix build under a bare Python.
Names in the store are bytes; ours are UTF-8 with surrogates for what is none, whatever the locale of this host is.
A store may be mounted somewhere (`prefix`); symlinks in such a store are followed in it, and never out of it.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from proxy import tarball
from proxy.errors import PackageUnusable
from proxy.rootfs import Kind
from proxy.tarball import Entry

_SYMLINKS_FOLLOWED = 40  # as Linux does
_STORE = "/nix/store/"


def store_entries(paths: Iterable[str], prefix: str = "") -> Iterator[Entry]:
    """The members of a layer that holds these store paths: `nix`, `nix/store`, then each path, sorted.

    `prefix` is where the store's file system is mounted (empty for the system's own). Modes are those that Nix
    knows: 0555 for directories and programs, 0444 for other files. A hard link is a file like any other, so a store
    that was optimised gives the same bytes.
    """
    yield tarball.directory("nix")
    yield tarball.directory("nix/store")
    for path in sorted(paths):
        yield from _walk(path, prefix)


def _walk(path: str, prefix: str) -> Iterator[Entry]:
    real = raw(prefix + path)
    status = os.lstat(real)
    member = path.lstrip("/")
    if stat.S_ISLNK(status.st_mode):
        yield tarball.symlink(member, _text(os.readlink(real)))  # noqa: PTH115 - the link, byte for byte
    elif stat.S_ISDIR(status.st_mode):
        yield tarball.directory(member, 0o555)
        for name in sorted(os.listdir(real)):  # noqa: PTH208 - names only; a Path for each costs more
            yield from _walk(f"{path}/{_text(name)}", prefix)
    elif stat.S_ISREG(status.st_mode):
        mode = 0o555 if status.st_mode & stat.S_IXUSR else 0o444
        yield Entry(member, tarball.FILE, mode, source=prefix + path, size=status.st_size)
    else:
        raise PackageUnusable(f"{path} is neither a file, a directory nor a symlink")


def raw(path: str) -> bytes:
    """A path for the system. Names in the store are bytes; ours are UTF-8, whatever the locale of this host is."""
    return path.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    """The other way."""
    return name.decode("utf-8", "surrogateescape")


class StoreListing:
    """The store as `rootfs` sees it. `prefix` as in `store_entries`: symlinks in such a store are followed in it."""

    def __init__(self, prefix: str = "") -> None:
        """Look at the store whose file system is mounted at `prefix`."""
        self._prefix = prefix

    def kind(self, path: str) -> Kind | None:
        """What is at this path once symlinks are followed."""
        real = self._resolve(path)
        if real is None:
            return None
        mode = os.lstat(raw(self._prefix + real)).st_mode
        if stat.S_ISDIR(mode):
            return "directory"
        return "executable" if mode & stat.S_IXUSR else "file"

    def children(self, path: str) -> Mapping[str, Kind]:
        """What this directory holds, sorted by name; a symlink that leads nowhere, or out of the store, is a file."""
        real = self._resolve(path)
        if real is None:
            return {}
        names = sorted(_text(name) for name in os.listdir(raw(self._prefix + real)))  # noqa: PTH208
        return {name: self.kind(f"{real}/{name}") or "file" for name in names}

    def read(self, path: str) -> str:
        """The text of a small file."""
        real = self._prefix + (self._resolve(path) or path)
        with open(raw(real), encoding="utf-8", errors="surrogateescape") as opened:  # noqa: PTH123
            return opened.read()

    def real(self, path: str) -> str:
        """The same place without symlinks on the way."""
        return self._resolve(path) or path

    def _resolve(self, path: str) -> str | None:
        """The same place without symlinks on the way; None for nothing, a circle, and what is not in the store."""
        todo = list(reversed(PurePosixPath(path).parts[1:]))
        done: list[str] = []
        followed = 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = "/" + "/".join([*done, part])
            try:
                link = self._link(here)
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
        found = "/" + "/".join(done)
        return found if found.startswith(_STORE) else None

    def _link(self, path: str) -> str | None:
        """The target of the symlink at `path`, None when it is something else. Raises `OSError`."""
        real = raw(self._prefix + path)
        return _text(os.readlink(real)) if stat.S_ISLNK(os.lstat(real).st_mode) else None  # noqa: PTH115
