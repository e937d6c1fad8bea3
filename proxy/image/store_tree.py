"""The Nix store on disk: the members of a layer, and the view of the store that the root tree is made from.

The standard library alone, and nothing asynchronous: the same code runs inside a Nix build under a bare Python.
Names in the store are bytes; here they are UTF-8, with surrogates for other bytes, whatever the locale of this host is.
A store may be mounted at a `prefix`; symlinks in such a store are followed inside it, and never out of it.

extraCommands: `lay_out` writes a root tree for the Nix build that runs the operator's script, `read_back` reads its
result. A script made that result, so only facts that the store itself shows count: the walk follows no symlink, and from
the file of modes only octal digits of members that exist are read.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from proxy.core.errors import ImageInvalid, PackageUnusable
from proxy.image import tar
from proxy.image.place_listing import PlaceListing
from proxy.image.root_tree import Kind
from proxy.image.tar import Entry, raw, raw_text


def store_entries(paths: Iterable[str], prefix: str = "") -> Iterator[Entry]:
    """The members of a layer that holds these store paths: `nix`, `nix/store`, then each path, sorted.

    `prefix` is where the store's file system is mounted (empty for the system's own). Modes are those of Nix:
    0555 for directories and programs, 0444 for other files. A hard link is a file like any other, so an
    optimised store gives the same bytes.
    """
    yield tar.directory("nix")
    yield tar.directory("nix/store")
    for path in sorted(paths):
        yield from _walk(path, prefix)


def check_names(paths: Iterable[str], prefix: str = "") -> None:
    """Raises `PackageUnusable` if a file in these store paths has a name that no layer can hold; `prefix` as above.

    It reads names alone, so it takes a small part of the time of packing.
    """
    pending = [raw(prefix + path) for path in paths]
    pending = [folder for folder in pending if stat.S_ISDIR(os.lstat(folder).st_mode)]
    whiteout = raw(tar.WHITEOUT)
    while pending:
        with os.scandir(pending.pop()) as members:
            for member in members:
                if member.name.startswith(whiteout):
                    tar.check_name(raw_text(member.path).removeprefix(prefix))
                if member.is_dir(follow_symlinks=False):
                    pending.append(member.path)


def _walk(path: str, prefix: str) -> Iterator[Entry]:
    """A directory before its members. A loop: a store path may be deeper than Python's stack."""
    pending = [path]
    while pending:
        place = pending.pop()
        real = raw(prefix + place)
        status = os.lstat(real)
        member = place.lstrip("/")
        if stat.S_ISLNK(status.st_mode):
            yield tar.symlink(member, raw_text(os.readlink(real)))  # noqa: PTH115 - the link, byte for byte
        elif stat.S_ISDIR(status.st_mode):
            yield tar.directory(member, 0o555)
            # Names only; a Path for each costs more.
            names = sorted(os.listdir(real), reverse=True)  # noqa: PTH208
            pending.extend(f"{place}/{raw_text(name)}" for name in names)
        elif stat.S_ISREG(status.st_mode):
            mode = 0o555 if status.st_mode & stat.S_IXUSR else 0o444
            yield Entry(member, tar.FILE, mode, source=prefix + place, size=status.st_size)
        else:
            raise PackageUnusable(f"{place} is neither a file, a directory nor a symlink")


class StoreListing(PlaceListing):
    """The store as a `root_tree.Listing`; `prefix` as in `store_entries`, `paths` as in `PlaceListing`."""

    def __init__(self, prefix: str = "", paths: Iterable[str] | None = None) -> None:
        super().__init__(_Disk(prefix), paths)


class _Disk:
    """A store on disk, as `place_listing.Places`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._last = ("", 0)  # a place and its mode: a listing asks for the link and then for the kind

    def link(self, place: str) -> str | None:
        """As `Places.link`."""
        real = raw(self._prefix + place)
        mode = os.lstat(real).st_mode
        self._last = (place, mode)
        return raw_text(os.readlink(real)) if stat.S_ISLNK(mode) else None  # noqa: PTH115

    def kind(self, place: str) -> Kind:
        """As `Places.kind`."""
        last, mode = self._last
        if last != place:
            mode = os.lstat(raw(self._prefix + place)).st_mode
        if stat.S_ISDIR(mode):
            return "directory"
        return "executable" if mode & stat.S_IXUSR else "file"

    def names(self, place: str) -> list[str]:
        """As `Places.names`."""
        return [raw_text(name) for name in os.listdir(raw(self._prefix + place))]  # noqa: PTH208

    def content(self, place: str, most: int) -> bytes | None:
        """As `Places.content`."""
        too_large = os.lstat(raw(self._prefix + place)).st_size > most
        return None if too_large else _bytes(self._prefix + place)


_MODE = re.compile(r"[0-7]{1,4}")
_USUAL = {tar.DIRECTORY: 0o755, tar.FILE: 0o644}


def lay_out(entries: Sequence[Entry], folder: Path) -> list[str]:
    """Write the tree of these members (every directory before its members) into an empty folder.

    Returns the modes that Nix would not keep, as lines for `nix/root.nix`.
    """
    top = os.fsencode(folder)
    for entry in entries:
        path = top + b"/" + raw(entry.path)
        match entry.kind:
            case tar.DIRECTORY:
                os.mkdir(path)  # noqa: PTH102 - names in the store are bytes: see `tar.raw`
            case tar.SYMLINK:
                os.symlink(raw(entry.target), path)  # noqa: PTH211
            case _:
                with open(path, "wb") as file:  # noqa: PTH123
                    file.write(entry.content)
    return [f"{entry.mode:o} {entry.path}" for entry in entries if entry.mode != _usual(entry)]


def read_back(output: str, prefix: str = "") -> tuple[Entry, ...]:
    """The members of the tree in a store path that `nix/root.nix` made; `prefix` as in `store_entries`.

    Raises `ImageInvalid` if the commands put something else in its place.
    """
    for place in (output, f"{output}/tree"):
        if not stat.S_ISDIR(os.lstat(raw(prefix + place)).st_mode):
            raise ImageInvalid(f"extraCommands left something at {place} that is no directory")
    words = _text(_bytes(f"{prefix}{output}/modes")).split("\0")
    modes = dict(zip(words[1::2], words[0::2], strict=False))
    members = _members(f"{prefix}{output}/tree", modes)
    return tuple(sorted(members, key=lambda entry: entry.path.split("/")))


def _members(folder: str, modes: dict[str, str]) -> Iterator[Entry]:
    pending = [""]
    while pending:
        at = pending.pop()
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
                pending.append(path)
            else:
                yield Entry(path, tar.FILE, bits, source=source, size=status.st_size)


def _usual(entry: Entry) -> int:
    return _USUAL.get(entry.kind, entry.mode)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    with open(raw(path), "rb") as file:  # noqa: PTH123
        return file.read()
