"""In what two layers differ: store path by store path, and member by member. Blocking: it reads archives from disk."""

import gzip
import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from proxy.core.errors import DigestMismatch

_CHUNK = 1 << 20
_MOST_MEMBERS = 3  # that a difference names
_STORE = ("nix", "store")
# What a member of an archive is, beside its name and its contents.
_FACTS = ("mode", "uid", "gid", "mtime", "type", "linkname", "size")


def differences(before: Path, now: Path) -> tuple[str, ...]:
    """Each store path that is not the same in both archives, with members of it that differ; for a file of the root, its path.

    The archives may be compressed. Raises `DigestMismatch` for what is no archive.
    """
    one, two = _members(before), _members(now)
    differing: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            group, member = _split(name)
            how = "" if name in one and name in two else " (only before)" if name in one else " (only now)"
            differing.setdefault(group, []).append((member, how))
    return tuple(_line(group, members) for group, members in differing.items())


def _line(group: str, members: list[tuple[str, str]]) -> str:
    inner = [f"{member}{how}" for member, how in members if member]
    if not inner:
        return f"{group}{members[0][1]}"
    more = f" and {len(inner) - _MOST_MEMBERS} more" if len(inner) > _MOST_MEMBERS else ""
    return f"{group}: {', '.join(inner[:_MOST_MEMBERS])}{more}"


def _split(name: str) -> tuple[str, str]:
    """The store path that has this member, and the member's path in it; a member of the root is a group of its own."""
    parts = name.strip("/").split("/")
    if tuple(parts[:2]) == _STORE and len(parts) > 2:
        return "/" + "/".join(parts[:3]), "/".join(parts[3:])
    return "/" + "/".join(parts), ""


def _members(file: Path) -> Mapping[str, str]:
    """A hash of each member, by its name."""
    members: dict[str, str] = {}
    try:
        with _opened(file) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            for member in archive:
                digest = hashlib.sha256(repr([getattr(member, fact) for fact in _FACTS]).encode())
                if (content := archive.extractfile(member) if member.isreg() else None) is not None:
                    while chunk := content.read(_CHUNK):
                        digest.update(chunk)
                members[member.name] = digest.hexdigest()
    except (tarfile.TarError, EOFError, OSError, ValueError, zstandard.ZstdError) as error:
        raise DigestMismatch(f"a layer is no archive that can be read: {error}") from error
    return members


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of an archive without compression, which the first bytes of the file tell."""
    with file.open("rb") as raw:
        start = raw.read(4)
        raw.seek(0)
        if start[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw) as plain:
                yield cast("IO[bytes]", plain)
        elif start == b"\x28\xb5\x2f\xfd":
            with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as reader:
                yield cast("IO[bytes]", reader)
        else:
            yield raw
