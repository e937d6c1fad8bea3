"""Checks of what is in the layers: every archive member, one by one, then the tree that they make together.

Pure but for reading the files that it is given. Nothing here is taken from the code that makes the archives.
"""

import gzip
import hashlib
import itertools
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import zstandard

from proxy.core.model import OCI_LAYER_ZSTD
from tests.support.documents import GZIP_LAYERS, Blob
from tests.support.image import Kind, Member, ValidatedLayer

_STORE = "nix/store"
_CHUNK = 1 << 20


class _HashingReader:
    """A stream that hashes what is read from it, so that one pass gives both the members and the DiffID."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


def plain(stream: BinaryIO, media_type: str) -> BinaryIO:
    """The archive in a layer: all members of a gzip stream, where one that is cut or padded raises; all frames of zstd."""
    if media_type in GZIP_LAYERS:
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if media_type == OCI_LAYER_ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    return stream


def check_blob(path: Path, blob: Blob, where: str) -> None:
    """The file has the size and the digest that the descriptor says."""
    size = path.stat().st_size
    assert size == blob.size, f"{where}: {size} bytes, its descriptor says {blob.size}"
    with path.open("rb") as stream:
        digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    assert digest == blob.digest, f"{where}: digest is {digest}, its descriptor says {blob.digest}"


def read_layer(path: Path, blob: Blob, number: int) -> tuple[ValidatedLayer, tuple[tarfile.TarInfo, ...]]:
    """The layer with its true DiffID, and its members in the order of the archive."""
    with path.open("rb") as blob_stream:
        reader = _HashingReader(plain(blob_stream, blob.media_type))
        try:
            with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r|", bufsize=_CHUNK) as archive:
                members = tuple(archive)
            while reader.read(_CHUNK):
                pass
        except (tarfile.TarError, OSError, EOFError, zstandard.ZstdError) as error:
            raise AssertionError(f"layer {number} is not a {blob.media_type}: {error}") from error
    diff_id = "sha256:" + reader.sha256.hexdigest()
    return ValidatedLayer(blob.digest, blob.size, diff_id, blob.media_type), members


def check_members(
    infos: Sequence[tarfile.TarInfo], number: int, commanded: tuple[int, int] | None = None
) -> tuple[Member, ...]:
    """The members of a layer, each with a header that does not depend on who packed it, parents first, sorted.

    `commanded`: the owner of all of them, where an operator's commands made the layer; the modes are theirs then.
    """
    members: list[Member] = []
    directories: set[str] = set()
    seen: set[str] = set()
    for info in infos:
        member = _member(info, number, commanded)
        parent = member.path.rpartition("/")[0]
        assert not parent or parent in directories, (
            f"layer {number}: {member.path} comes without its directory {parent} before it"
        )
        assert member.path not in seen, f"layer {number}: {member.path} is there twice"
        seen.add(member.path)
        if member.kind == "directory":
            directories.add(member.path)
        members.append(member)

    paths = [member.path for member in members]
    # Two total orders are in use: by whole path, and by name within each directory (as in a NAR).
    orders = (sorted(paths), sorted(paths, key=lambda path: path.split("/")))
    assert paths in orders, f"layer {number}: entries are not sorted: {_first_unsorted(paths)}"
    return tuple(members)


def check_tree(layers: Sequence[Sequence[Member]]) -> Mapping[str, Member]:
    """Every path of the image; no two layers disagree, and no link into the store leads nowhere."""
    files: dict[str, Member] = {}
    for members in layers:
        for member in members:
            before = files.get(member.path)
            if before is not None:
                both = before.kind == member.kind == "directory"
                assert both, f"{member.path} is in layer {before.layer} and in layer {member.layer}"
                assert before.mode == member.mode, (
                    f"directory {member.path} has mode {before.mode:04o} in layer {before.layer}, "
                    f"{member.mode:04o} in layer {member.layer}"
                )
            files[member.path] = member

    for path in ("nix", _STORE):
        _check_directory(files, path, 0o755)
    _check_directory(files, "tmp", 0o1777)
    assert files["tmp"].layer == len(layers) - 1, "the uppermost layer has no /tmp"
    for member in files.values():
        if member.kind == "symlink":
            _check_link(files, member)
    return files


def _member(info: tarfile.TarInfo, number: int, commanded: tuple[int, int] | None) -> Member:
    name, where = info.name, f"layer {number}: {info.name!r}"
    assert not name.startswith("/"), f"{where} is an absolute name"
    assert not {"", ".", ".."} & set(name.split("/")), f"{where} has an empty, '.' or '..' part"
    assert not info.islnk(), f"{where} is a hard link to {info.linkname!r}"
    kind: Kind
    if info.isdir():
        kind = "directory"
    elif info.issym():
        kind = "symlink"
    else:
        assert info.isreg(), f"{where} is of type {info.type!r}: no file, directory or symlink"
        kind = "file"
    assert info.mtime == 1, f"{where} has mtime {info.mtime}, not 1"
    home = name.startswith("home/")  # a user's home is that user's
    uid, gid = commanded or (0, 0)
    assert home or (info.uid, info.gid) == (uid, gid), (
        f"{where} belongs to {info.uid}:{info.gid}, not {uid}:{gid}"
    )
    assert not info.uname + info.gname, f"{where} names its owner {info.uname!r}:{info.gname!r}"
    assert info.mode & ~0o7777 == 0, f"{where} has mode {info.mode:o}"
    assert not info.mode & 0o6000, f"{where} has mode {info.mode:04o}: setuid or setgid"
    if kind != "symlink" and commanded is None:
        sticky_directory = kind == "directory" and info.mode & 0o1000
        others = 0o002 if home and info.gid == 0 else 0o022  # the group of root may write to a user's home
        assert sticky_directory or not info.mode & others, (
            f"{where} has mode {info.mode:04o}: others may write"
        )
        wanted = 0o555 if kind == "directory" else 0o444
        # Private places (/root, /etc/shadow) are for the root layer alone; the store is for everybody.
        wanted = wanted if name.startswith(_STORE) else wanted & 0o700
        assert info.mode & wanted == wanted, f"{where} has mode {info.mode:04o}, which lacks {wanted:04o}"
    return Member(name, kind, info.mode, info.size, info.linkname, number, (info.uid, info.gid))


def _check_directory(files: Mapping[str, Member], path: str, mode: int) -> None:
    assert path in files, f"there is no /{path}"
    member = files[path]
    assert member.kind == "directory", f"/{path} is a {member.kind}"
    assert member.mode == mode, f"/{path} has mode {member.mode:04o}, not {mode:04o}"


def _check_link(files: Mapping[str, Member], link: Member) -> None:
    """A link into the store needs its store path; one that we made, outside the store, its very target."""
    if not link.target.startswith(f"/{_STORE}/"):
        return
    store_path = "/".join(link.target.split("/")[1:4])
    assert store_path in files, f"{link.path} -> {link.target}, but /{store_path} is not in the image"
    if not link.path.startswith(f"{_STORE}/"):
        assert resolve(files, link.target) is not None, (
            f"{link.path} -> {link.target}, which is not in the image"
        )


def resolve(files: Mapping[str, Member], path: str, most_links: int = 40) -> Member | None:
    """The member at an absolute path, links in its directories followed; the last part may itself be a link."""
    parts = list(reversed(PurePosixPath(path).parts[1:]))
    done: list[str] = []
    while parts:
        part = parts.pop()
        if part == "..":
            done = done[:-1]
            continue
        member = files.get("/".join([*done, part]))
        if member is None:
            return None
        if not parts:
            return member
        if member.kind == "symlink":
            most_links -= 1
            if most_links < 0:
                return None
            target = PurePosixPath(member.target)
            done = [] if target.is_absolute() else done
            parts.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        else:
            done.append(part)
    return None


def _first_unsorted(paths: Sequence[str]) -> str:
    pairs = itertools.pairwise(paths)
    return next((f"{one} before {two}" for one, two in pairs if one >= two), "mixed orders")
