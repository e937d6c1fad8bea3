"""A root tree on its way through the operator's extraCommands: laid out for the Nix build, and read back from it.

What comes back was made by a script, so nothing in it is believed that the store itself does not show: members are
found by walking without following a symlink, and of the record of modes only digits of known members count.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from proxy import tarball
from proxy.errors import ImageInvalid
from proxy.store import raw
from proxy.tarball import Entry

_MODE = re.compile(r"[0-7]{1,4}")
_USUAL = {tarball.DIRECTORY: 0o755, tarball.FILE: 0o644}


def lay_out(entries: Sequence[Entry], folder: Path) -> list[str]:
    """Make the tree of these members (every parent before what is in it) in an empty folder.

    Returns the modes that are not the usual ones, as `nix/root.nix` takes them: Nix would not keep them.
    """
    top = os.fsencode(folder)
    for entry in entries:
        path = top + b"/" + raw(entry.path)
        match entry.kind:
            case tarball.DIRECTORY:
                os.mkdir(path)  # noqa: PTH102 - names in the store are bytes: see `store.raw`
            case tarball.SYMLINK:
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
            yield tarball.symlink(path, _text(os.readlink(raw(source))))  # noqa: PTH115
            continue
        kind = tarball.DIRECTORY if stat.S_ISDIR(status.st_mode) else tarball.FILE
        bits = int(mode, 8) if _MODE.fullmatch(mode) else _USUAL[kind]
        if kind == tarball.DIRECTORY:
            yield tarball.directory(path, bits)
            yield from _members(folder, path, modes)
        else:
            yield Entry(path, tarball.FILE, bits, source=source, size=status.st_size)


def _usual(entry: Entry) -> int:
    return _USUAL.get(entry.kind, entry.mode)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    with open(raw(path), "rb") as file:  # noqa: PTH123
        return file.read()
