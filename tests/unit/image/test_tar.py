"""Archives byte for byte: what tarfile reads back is what went in, and nothing of this host gets into a header."""

import dataclasses
import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.image import tar
from proxy.image.tar import Entry, directory, file, symlink


def _can_be_in_an_image(part: str) -> bool:
    return part not in (".", "..") and part.strip() != "" and not part.startswith(".wh.") and _encodable(part)


def _encodable(text: str) -> bool:
    """Whether a file of this name can be: os.listdir gives bytes that are no UTF-8 as lone surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == text
    except UnicodeEncodeError:
        return False


PARTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=120
).filter(_can_be_in_an_image)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
ENTRIES = st.one_of(
    st.builds(directory, PATHS, st.sampled_from([0o755, 0o555, 0o1777])),
    st.builds(symlink, PATHS, PATHS),
    st.builds(file, PATHS, st.binary(max_size=2000), st.sampled_from([0o644, 0o444, 0o555])),
)

GOLDEN = (
    directory("nix"),
    directory("nix/store"),
    directory("nix/store/x-hello-1.0", 0o555),
    file("nix/store/x-hello-1.0/hello", b"#!/bin/sh\necho hello\n", 0o555),
    symlink("nix/store/x-hello-1.0/hi", "hello"),
    file("nix/store/x-hello-1.0/empty", b""),
    file("nix/store/x-hello-1.0/" + "long" * 30, b"x" * 1000),
    file("nix/store/x-hello-1.0/\N{LATIN SMALL LETTER U WITH DIAERESIS}\udcff", b"no UTF-8"),
)


def made(*entries: Entry) -> bytes:
    return b"".join(tar.archive(entries))


def members(data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(
        fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        found = []
        for info in archive:
            opened = archive.extractfile(info) if info.isfile() else None
            found.append((info, opened.read() if opened is not None else b""))
        return found


@pytest.mark.parametrize(
    ("entry", "kind", "mode"),
    [
        pytest.param(directory("etc"), tarfile.DIRTYPE, 0o755, id="directory"),
        pytest.param(directory("tmp", 0o1777), tarfile.DIRTYPE, 0o1777, id="directory with a mode"),
        pytest.param(file("etc/passwd", b"x"), tarfile.REGTYPE, 0o644, id="file"),
        pytest.param(file("bin/x", b"x", 0o555), tarfile.REGTYPE, 0o555, id="program"),
        pytest.param(symlink("bin/sh", "/nix/store/x/bin/sh"), tarfile.SYMTYPE, 0o777, id="symlink"),
    ],
)
def test_every_header_field_is_set(entry: Entry, kind: bytes, mode: int) -> None:
    ((info, _),) = members(made(entry))

    assert (info.name, info.type, info.mode) == (entry.path, kind, mode)
    assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "", "")
    assert (info.devmajor, info.devminor) == (0, 0)
    assert info.mtime == 1
    assert info.linkname == entry.target
    assert info.size == len(entry.content)
    assert info.pax_headers == {}


@pytest.mark.parametrize(
    ("entry", "needs"),
    [
        pytest.param(file("a" * 100, b""), set(), id="the longest plain name"),
        pytest.param(file("a" * 101, b""), {"path"}, id="a longer name"),
        pytest.param(directory("a" * 100), {"path"}, id="a directory's name is longer by its slash"),
        pytest.param(symlink("a", "b" * 100), set(), id="the longest plain target"),
        pytest.param(symlink("a", "b" * 101), {"linkpath"}, id="a longer target"),
        pytest.param(file("\N{LATIN SMALL LETTER E WITH ACUTE}", b""), {"path"}, id="a name outside ASCII"),
    ],
)
def test_only_names_that_need_it_get_an_extended_header(entry: Entry, needs: set[str]) -> None:
    ((info, _),) = members(made(entry))

    assert set(info.pax_headers) == needs
    assert (info.name, info.linkname) == (entry.path, entry.target)


def test_a_file_of_more_than_8_gib_has_its_size_in_an_extended_header() -> None:
    size = (8 << 30) + 5

    header = tar.header(Entry("big", tar.FILE, 0o444, source="/x", size=size))

    info = tarfile.TarFile(fileobj=io.BytesIO(header + tar.END)).next()  # the content need not follow
    assert info is not None
    assert (info.name, info.size) == ("big", size)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), ((8 << 30) + 1, 511)],
)
def test_padding_fills_a_block(size: int, expected: int) -> None:
    assert tar.padding(size) == bytes(expected)


@given(
    st.sampled_from([tar.DIRECTORY, tar.FILE, tar.SYMLINK]),
    PATHS | st.text("ab/", max_size=250).map(lambda path: f"c{path}d"),
    PATHS | st.text("ab/", max_size=1300),
    st.sampled_from([0o444, 0o555, 0o755, 0o1777]),
    st.sampled_from([0, 1, 511, 8**11 - 1, 8**11, 8**12]),
    st.sampled_from([(0, 0), (1000, 1000), (8**7 - 1, 1), (1, 8**7)]),
)
def test_a_header_is_the_one_of_tarfile(
    kind: tar.Kind, path: str, target: str, mode: int, size: int, owner: tuple[int, int]
) -> None:
    entry = Entry(path, kind, mode, target if kind == tar.SYMLINK else "", size=size, owner=owner)
    info = tarfile.TarInfo(path)
    info.type = tar._TYPES[kind]
    info.mode, info.mtime, (info.uid, info.gid) = mode, 1, owner
    info.size = size if kind == tar.FILE else 0
    info.linkname = entry.target

    assert tar.header(entry) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@pytest.mark.parametrize("length", [*range(95, 106), *range(980, 1010)])
def test_a_long_name_is_counted_as_tarfile_counts_it(length: int) -> None:
    """The length of a record counts its own digits."""
    info = tarfile.TarInfo("a" * length)
    info.mode, info.mtime = 0o644, 1

    expected = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    assert tar.header(file("a" * length, b"")) == expected


def test_an_empty_archive_is_its_end() -> None:
    assert made() == bytes(1024)


def test_the_bytes_are_those_that_were_agreed() -> None:
    """Another digest here means that every layer changes: `tarball.FORMAT` must change with it."""
    data = made(*GOLDEN)

    assert (
        hashlib.sha256(data).hexdigest() == "7e94267d782155ebcb9cf8ba943032a1e55c278225e5e2ad93e19d3d132e5aaf"
    )
    assert [info.name for info, _ in members(data)] == [entry.path for entry in GOLDEN]


def test_an_entry_cannot_be_changed() -> None:
    entry = directory("etc")

    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.mode = 0o777  # type: ignore[misc]


@given(st.lists(ENTRIES, max_size=8))
def test_tarfile_reads_back_what_went_in(entries: list[Entry]) -> None:
    data = made(*entries)

    read = [
        (info.name, info.type, info.mode, info.linkname, content, info.mtime, info.uid, info.gid)
        for info, content in members(data)
    ]
    kinds = {"directory": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE}
    assert read == [
        (entry.path, kinds[entry.kind], entry.mode, entry.target, entry.content, 1, 0, 0) for entry in entries
    ]
    assert len(data) % 512 == 0
