"""Layers and trees from binary caches made by hand: equal to those of the disk, and an error for whatever a cache makes up."""

import asyncio
import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import zstandard
from typing_extensions import override

from proxy.core.errors import CacheUnusable, PackageUnusable, ProcessFailed
from proxy.core.model import Package, PackageSet
from proxy.image import root_tree, tar
from proxy.image.store_tree import StoreListing, store_entries
from proxy.nix.cache.access import Cache, Source
from proxy.nix.cache.closure import BinaryCaches
from proxy.nix.cache.files import CacheFiles
from proxy.nix.cache.tree_cache import TreeCache
from tests.support.nars import PUBLIC, HandmadeCache, Tree, nar, store_path, write

SET = PackageSet("set", "/nix/store/source", "0123", "https://example.org", "2026-01-31T00:00:00Z")
LIBRARY: Tree = {"lib": {"c.so": bytes(100_000), "locale": {"C.utf8": {"LC": b"x"}}}}
PROGRAM: Tree = {
    "bin": {"run": ("x", b"#!/bin/sh"), "lib": f"{store_path('glibc-1')}/lib"},
    "etc": {"passwd": b"web:x:70:70::/:/bin/sh\n", "large": b"y" * 50_000},
}
OUTPUT = store_path("program-1")


class Said:
    """What Nix prints of its settings."""

    def __init__(self, *caches: HandmadeCache, keys: Iterable[str] = (PUBLIC,)) -> None:
        self.settings = {"substituters": [cache.url for cache in caches], "trusted-public-keys": list(keys)}

    async def run(self, argv: tuple[str, ...], deadline: float, **options: bool) -> bytes:
        return json.dumps({name: {"value": value} for name, value in self.settings.items()}).encode()


@dataclass(slots=True)
class Host:
    """A host with binary caches, in folders below `folder`."""

    folder: Path
    session: aiohttp.ClientSession

    def cache(self, name: str = "cache", priority: int = 40, *, listings: bool = False) -> HandmadeCache:
        made = HandmadeCache(self.folder / name, priority, listings)
        made.add("glibc-1", LIBRARY)
        made.add("program-1", PROGRAM, ("glibc-1", "program-1"))
        return made

    async def files(self, *caches: HandmadeCache, keys: Iterable[str] = (PUBLIC,)) -> CacheFiles | None:
        """The files of the program in these caches; None if they lack a part of it."""
        caches_of_nix = BinaryCaches(Said(*caches, keys=keys), self.session, TreeCache(self.folder / "trees"))
        places = await caches_of_nix.closure([OUTPUT], substitutes=True)
        return None if places is None else CacheFiles(caches_of_nix, places, [OUTPUT], substitutes=True)

    def on_disk(self, cache: HandmadeCache) -> str:
        """A folder with a store that has the same paths."""
        for path, tree in cache.trees.items():
            write(tree, self.folder / f"disk{path}")
        return str(self.folder / "disk")


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with aiohttp.ClientSession() as session:
        yield Host(tmp_path, session)


def archive(entries: Iterable[tar.Entry]) -> bytes:
    return b"".join(bytes(block) for block in tar.blocks(entries))


async def packed(files: CacheFiles | None) -> bytes:
    """The layer of all paths, as the publisher makes it: again, as long as that may help."""
    assert files is not None
    while True:
        try:
            return await asyncio.to_thread(lambda: archive(files.entries([OUTPUT, store_path("glibc-1")])))
        except CacheUnusable as error:
            if not error.elsewhere:
                raise


def merged(listing: root_tree.Listing) -> root_tree.Root:
    package = Package("program", "program-1", "", (("out", OUTPUT),), "")
    return root_tree.merge([package], SET, listing)


def seen(listing: root_tree.Listing) -> list[object]:
    places = ("", "/bin/lib", "/bin/lib/locale", "/bin/run", "/bin/run/x", "/nothing", "/etc")
    paths = [OUTPUT + place for place in places]
    folders = [path for path in paths if listing.kind(path) == "directory"]
    return [
        *((listing.kind(path), listing.real(path)) for path in paths),
        *(listing.children(path) for path in folders),
    ]


@pytest.mark.parametrize("listings", [True, False])
async def test_layers_and_root_tree_are_those_of_the_disk(host: Host, listings: bool) -> None:
    cache = host.cache(listings=listings)
    disk = await asyncio.to_thread(host.on_disk, cache)
    files = await host.files(cache)
    assert files is not None
    paths = sorted(cache.trees)

    assert not await files.prepare(paths), "the users in etc/passwd are in the NAR alone"
    assert await packed(files) == await asyncio.to_thread(lambda: archive(store_entries(paths, disk)))
    here, there = files.listing(paths), StoreListing(disk, paths)
    assert await asyncio.to_thread(merged, here) == await asyncio.to_thread(merged, there)
    assert await asyncio.to_thread(seen, here) == await asyncio.to_thread(seen, there)
    large = await asyncio.to_thread(here.read, f"{OUTPUT}/etc/large")
    assert large == "y" * 50_000, "a text that nobody expected is read from the NAR"
    await asyncio.to_thread(files.confirm)


async def test_a_listing_makes_the_root_tree_first(host: Host) -> None:
    cache = host.cache(listings=True)
    cache.add("program-1", {"bin": {"run": ("x", b"y")}})
    files = await host.files(cache)
    assert files is not None

    assert await files.prepare([OUTPUT])
    cache.file_of(OUTPUT).unlink()  # so the tree needs no NAR
    root = await asyncio.to_thread(merged, files.listing([OUTPUT]))

    assert "bin/run" in [entry.path for entry in root.entries]
    with pytest.raises(CacheUnusable):
        await asyncio.to_thread(files.confirm)


@pytest.mark.parametrize(
    "lie",
    [
        {"bin": {"run": ("x", b""), "sh": ("x", b"")}},
        {"bin": {"run": b""}},
        {"bin": {"run": "/bin/sh"}},
        {},
        b"",
    ],
)
async def test_a_listing_that_lies_is_found_out(host: Host, lie: Tree) -> None:
    cache = host.cache(listings=True)
    cache.add("program-1", lie)
    listing = next(cache.folder.glob(f"{OUTPUT[11:43]}.ls")).read_bytes()
    cache.add("program-1", {"bin": {"run": ("x", b"y")}})
    (cache.folder / f"{OUTPUT[11:43]}.ls").write_bytes(listing)
    files = await host.files(cache)
    assert files is not None
    await files.prepare([OUTPUT])
    await asyncio.to_thread(lambda: archive(files.entries([OUTPUT])))

    with pytest.raises(CacheUnusable, match="lists other files"):
        await asyncio.to_thread(files.confirm)


@pytest.mark.parametrize(
    "name", ["\\ud800", ".wh.run", ".wh..wh..opq"], ids=["half a character", "a whiteout", "an opaque folder"]
)
@pytest.mark.parametrize("as_target", [False, True])
async def test_a_listing_with_names_that_no_layer_has_is_none(host: Host, name: str, as_target: bool) -> None:
    cache = host.cache(listings=True)
    cache.add("program-1", {"bin": {"run": ("x", b"y")}})
    lie = (
        f'"link": {{"type": "symlink", "target": "{name}"}}'
        if as_target
        else f'"{name}": {{"type": "regular"}}'
    )
    text = f'{{"version": 1, "root": {{"type": "directory", "entries": {{{lie}}}}}}}'
    (cache.folder / f"{OUTPUT[11:43]}.ls").write_text(text)
    files = await host.files(cache)
    assert files is not None

    made_first = await files.prepare([OUTPUT])
    root = await asyncio.to_thread(merged, files.listing([OUTPUT]))
    if not as_target or name.startswith("\\"):
        assert not made_first
        assert "bin/run" in [entry.path for entry in root.entries], "the NAR says so"
        await asyncio.to_thread(files.confirm)
    else:
        with pytest.raises(CacheUnusable):
            await asyncio.to_thread(files.confirm)


async def test_a_tree_that_is_too_large_is_fetched_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.nix.cache.trees.MOST_MEMBERS", 10)
    cache = host.cache()
    cache.add("program-1", {f"file-{number}": b"" for number in range(20)})
    opened: list[str] = []
    opening = Cache.open

    def note(of: Cache, file: str, size: int, loop: asyncio.AbstractEventLoop) -> Source:
        opened.append(file)
        return opening(of, file, size, loop)

    monkeypatch.setattr(Cache, "open", note)
    files = await host.files(cache)
    assert files is not None

    for _ in range(3):
        with pytest.raises(CacheUnusable, match="files to look at"):
            await asyncio.to_thread(merged, files.listing([OUTPUT]))
    assert opened == ["nar/program-1.nar.zst"]
    assert b"file-19" in await asyncio.to_thread(lambda: archive(files.entries([OUTPUT]))), "a layer has room"


@pytest.mark.parametrize("compression", ["zstd", "none"])
async def test_a_nar_that_breaks_off_once_is_fetched_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    """A server that closes the connection early ends a file as if it were whole."""
    cache = host.cache()
    data = nar(PROGRAM)
    packed_data = zstandard.compress(data) if compression == "zstd" else data
    cache.add(
        "program-1",
        PROGRAM,
        ("glibc-1", "program-1"),
        Compression=compression,
        FileSize=str(len(packed_data)),
        FileHash=f"sha256:{hashlib.sha256(packed_data).hexdigest()}",
    )
    file = cache.file_of(OUTPUT)
    file.write_bytes(packed_data)
    opening = Cache.open
    tries = 0

    def cut(of: Cache, name: str, size: int, loop: asyncio.AbstractEventLoop) -> Source:
        nonlocal tries
        if "program" in name:
            tries += 1
            file.write_bytes(packed_data[: len(packed_data) // 2] if tries == 1 else packed_data)
        return opening(of, name, size, loop)

    monkeypatch.setattr(Cache, "open", cut)
    assert await packed(await host.files(cache))
    assert tries == 2


def flip(data: bytes) -> bytes:
    """The same NAR with one bit of a file changed."""
    whole = bytearray(zstandard.decompress(data))
    whole[whole.index(b"#!/bin/sh")] ^= 1
    return zstandard.compress(bytes(whole))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "one bit": flip,
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "another page": lambda _: b"<html>",
    "another NAR": lambda _: zstandard.compress(nar({"bin": {"run": ("x", b"evil")}})),
    "another compression": zlib.compress,
    "more after it": lambda data: data + data,
    "a bomb": lambda _: zstandard.compress(bytes(50_000_000)),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_a_cache_damages_ends_no_layer_and_the_next_cache_has_it(host: Host, damage: str) -> None:
    first, second = host.cache("first", 10), host.cache("second", 20)
    file = first.file_of(OUTPUT)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    disk = await asyncio.to_thread(host.on_disk, second)
    whole = await asyncio.to_thread(lambda: archive(store_entries(sorted(second.trees), disk)))

    with pytest.raises(CacheUnusable, match=r"does not send /nix/store/\S+-program-1"):
        await packed(await host.files(first))
    assert await packed(await host.files(first, second)) == whole


@pytest.mark.parametrize(
    "change", [lambda data: data[:-30], lambda _: zstandard.compress(nar(LIBRARY)[:50_000])]
)
async def test_a_large_file_that_breaks_off_comes_from_the_next_cache(
    host: Host, change: Callable[[bytes], bytes]
) -> None:
    first, second = host.cache("first", 10), host.cache("second", 20)
    file = first.file_of(store_path("glibc-1"))
    file.write_bytes(change(file.read_bytes()))

    with pytest.raises(CacheUnusable, match="does not send"):
        await packed(await host.files(first))
    assert await packed(await host.files(first, second))


async def test_a_tree_outlives_the_process(host: Host) -> None:
    cache = host.cache()
    await packed(await host.files(cache))
    trees = host.folder / "trees"
    kept = {file.name: file.read_bytes() for file in trees.iterdir()}
    await asyncio.to_thread(cache.file_of(OUTPUT).unlink)

    files = await host.files(cache)
    assert files is not None
    root = await asyncio.to_thread(merged, files.listing([OUTPUT]))
    assert any(b"web:x:70" in entry.content for entry in root.entries), "with the texts that it needs"

    for damaged in (b"", b"{}", b'{"root": {"a": 1}, "members": 1, "texts": {}}', b"[]"):
        for name in kept:
            (trees / name).write_bytes(damaged)
        again = await host.files(cache)
        assert again is not None
        with pytest.raises(CacheUnusable):
            await asyncio.to_thread(merged, again.listing([OUTPUT]))


async def test_a_nar_that_is_gone_comes_from_the_next_cache(host: Host) -> None:
    first, second = host.cache("first", 10), host.cache("second", 20)
    await asyncio.to_thread(first.file_of(OUTPUT).unlink)

    assert await packed(await host.files(second, first))
    with pytest.raises(CacheUnusable):
        await packed(await host.files(first))


async def test_another_build_of_the_same_path_is_no_help(host: Host) -> None:
    """The layers are planned for the NARs of the first cache."""
    first, second = host.cache("first", 10), host.cache("second", 20)
    second.add("program-1", {"bin": {"run": ("x", b"another build")}}, ("glibc-1", "program-1"))
    await asyncio.to_thread(first.file_of(OUTPUT).unlink)

    with pytest.raises(CacheUnusable):
        await packed(await host.files(first, second))


@pytest.mark.parametrize(
    "changes",
    [
        {"NarSize": "1000"},
        {"References": ""},
        {"Sig": "test-1:" + "A" * 86 + "=="},
        {"Sig": "other-1:AAAA"},
        {"URL": "file:///etc/passwd"},
    ],
)
async def test_a_narinfo_that_nobody_signed_counts_as_absent(host: Host, changes: dict[str, str]) -> None:
    cache = host.cache()
    cache.add("program-1", PROGRAM, ("glibc-1", "program-1"), **changes)

    assert await host.files(cache) is None
    assert await host.files(cache, host.cache("honest", 50)) is not None


async def test_what_is_not_signed_may_lie_and_does_no_harm(host: Host) -> None:
    for changes in ({"Compression": "br"}, {"FileHash": "sha256:" + "0" * 52}, {"URL": "nar/other.nar.zst"}):
        cache = host.cache(changes["URL"] if "URL" in changes else next(iter(changes)))
        cache.add("program-1", PROGRAM, ("glibc-1", "program-1"), **changes)
        with pytest.raises(CacheUnusable):
            await packed(await host.files(cache))


async def test_a_closure_is_whole_or_not_there(host: Host) -> None:
    cache = host.cache()
    assert await host.files(cache, keys=()) is None
    assert await host.files() is None
    cache.add("program-1", PROGRAM, ("glibc-1", "absent-1"))
    assert await host.files(cache) is None
    (cache.folder / "nix-cache-info").unlink()
    cache.add("program-1", PROGRAM, ("glibc-1",))
    assert await host.files(cache) is None, "this is no binary cache"


async def test_nothing_comes_from_caches_where_nix_does_not_say(host: Host) -> None:
    class Silent(Said):
        @override
        async def run(self, argv: tuple[str, ...], deadline: float, **options: bool) -> bytes:
            raise ProcessFailed("nix", 1)

    assert (
        await BinaryCaches(Silent(), host.session, TreeCache(host.folder)).closure([OUTPUT], substitutes=True)
        is None
    )


async def test_a_whiteout_is_refused_as_on_disk(host: Host) -> None:
    cache = host.cache()
    cache.add("program-1", {".wh.x": b""}, ("glibc-1",))

    with pytest.raises(PackageUnusable):
        await packed(await host.files(cache))
