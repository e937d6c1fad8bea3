"""The Nix store on disk: the members of a layer, and the view of it that the root tree is made from.

The standard library alone, and nothing asynchronous: the same code runs inside a Nix build under a bare Python.
Names in the store are bytes; ours are UTF-8 with surrogates for what is none, whatever the locale of this host is.
A store may be mounted somewhere (`prefix`); symlinks in such a store are followed in it, and never out of it.

A root tree on its way through the operator's extraCommands: laid out for the Nix build, and read back from it.

What comes back was made by a script, so nothing in it is believed that the store itself does not show: members are
found by walking without following a symlink, and of the record of modes only digits of known members count.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from proxy.core.errors import ImageInvalid, PackageUnusable
from proxy.image import tar
from proxy.image.root_tree import Kind
from proxy.image.tar import Entry, raw, raw_text

_SYMLINKS_FOLLOWED = 40  # as Linux does
_STORE = "/nix/store/"


def store_entries(paths: Iterable[str], prefix: str = "") -> Iterator[Entry]:
    """The members of a layer that holds these store paths: `nix`, `nix/store`, then each path, sorted.

    `prefix` is where the store's file system is mounted (empty for the system's own). Modes are those that Nix
    knows: 0555 for directories and programs, 0444 for other files. A hard link is a file like any other, so a store
    that was optimised gives the same bytes.
    """
    yield tar.directory("nix")
    yield tar.directory("nix/store")
    for path in sorted(paths):
        yield from _walk(path, prefix)


def _walk(path: str, prefix: str) -> Iterator[Entry]:
    real = raw(prefix + path)
    status = os.lstat(real)
    member = path.lstrip("/")
    if stat.S_ISLNK(status.st_mode):
        yield tar.symlink(member, raw_text(os.readlink(real)))  # noqa: PTH115 - the link, byte for byte
    elif stat.S_ISDIR(status.st_mode):
        yield tar.directory(member, 0o555)
        for name in sorted(os.listdir(real)):  # noqa: PTH208 - names only; a Path for each costs more
            yield from _walk(f"{path}/{raw_text(name)}", prefix)
    elif stat.S_ISREG(status.st_mode):
        mode = 0o555 if status.st_mode & stat.S_IXUSR else 0o444
        yield Entry(member, tar.FILE, mode, source=prefix + path, size=status.st_size)
    else:
        raise PackageUnusable(f"{path} is neither a file, a directory nor a symlink")


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
        names = sorted(raw_text(name) for name in os.listdir(raw(self._prefix + real)))  # noqa: PTH208
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
        return raw_text(os.readlink(real)) if stat.S_ISLNK(os.lstat(real).st_mode) else None  # noqa: PTH115


_MODE = re.compile(r"[0-7]{1,4}")
_USUAL = {tar.DIRECTORY: 0o755, tar.FILE: 0o644}


def lay_out(entries: Sequence[Entry], folder: Path) -> list[str]:
    """Make the tree of these members (every parent before what is in it) in an empty folder.

    Returns the modes that are not the usual ones, as `nix/root.nix` takes them: Nix would not keep them.
    """
    top = os.fsencode(folder)
    for entry in entries:
        path = top + b"/" + raw(entry.path)
        match entry.kind:
            case tar.DIRECTORY:
                os.mkdir(path)  # noqa: PTH102 - names in the store are bytes: see `store.raw`
            case tar.SYMLINK:
                os.symlink(raw(entry.target), path)  # noqa: PTH211
            case _:
                with open(path, "wb") as file:  # noqa: PTH123
                    file.write(entry.content)
    return [f"{entry.mode:o} {entry.path}" for entry in entries if entry.mode != _usual(entry)]


def read_back(output: str, prefix: str = "") -> tuple[Entry, ...]:
    """The members of the tree in a store path that `nix/root.nix` made; `prefix` as in `store.store_entries`.

    Raises `ImageInvalid` if the commands left something else in its place.
    """
    for place in (output, f"{output}/tree"):
        if not stat.S_ISDIR(os.lstat(raw(prefix + place)).st_mode):
            raise ImageInvalid(f"extraCommands left something at {place} that is no directory")
    words = _text(_bytes(f"{prefix}{output}/modes")).split("\0")
    modes = dict(zip(words[1::2], words[0::2], strict=False))
    found = _members(f"{prefix}{output}/tree", "", modes)
    return tuple(sorted(found, key=lambda entry: entry.path.split("/")))


def _members(folder: str, at: str, modes: dict[str, str]) -> Iterator[Entry]:
    for name in os.listdir(raw(f"{folder}/{at}")):  # noqa: PTH208
        path = f"{at}/{_text(name)}" if at else _text(name)
        source = f"{folder}/{path}"
        status = os.lstat(raw(source))
        mode = modes.get(f"./{path}", "")
        if stat.S_ISLNK(status.st_mode):
            yield tar.symlink(path, _text(os.readlink(raw(source))))  # noqa: PTH115
            continue
        kind = tar.DIRECTORY if stat.S_ISDIR(status.st_mode) else tar.FILE
        bits = int(mode, 8) if _MODE.fullmatch(mode) else _USUAL[kind]
        if kind == tar.DIRECTORY:
            yield tar.directory(path, bits)
            yield from _members(folder, path, modes)
        else:
            yield Entry(path, tar.FILE, bits, source=source, size=status.st_size)


def _usual(entry: Entry) -> int:
    return _USUAL.get(entry.kind, entry.mode)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    with open(raw(path), "rb") as file:  # noqa: PTH123
        return file.read()
