"""The bytes of a layer are the same on every processor, whether its files are on disk or in the NARs of a binary cache.

Compilers and libraries choose other code on each.

qemu-user runs this very Python, and the libraries in it, as if on an old, a newer and the richest processor that it
knows, and on the plainest. The host is an x86-64.
"""

import bz2
import hashlib
import lzma
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from proxy.pipeline import packing
from proxy.tools.process import run
from tests.support.nars import nar

_PACK = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from proxy.pipeline import packing
noise = b"".join(hashlib.sha256(b"%d" % n).digest() * (1 + n % 5) for n in range(20_000))
code = b"".join(b"mov r%d, [rbp - %d]\\n" % (n % 16, n * n % 4096) for n in range(100_000))
data = noise + bytes(300_000) + code + noise[::-1]
for name in ("gzip", "zstd"):
    size = packing._LENGTHS[name]
    print(name, len(data), hashlib.sha256(b"".join(
        packing._PACK[name](memoryview(data)[at : at + size]) for at in range(0, len(data), size)
    )).hexdigest())
from functools import partial
from pathlib import Path
from proxy.image import tar
from proxy.nix.cache.decompress import DECOMPRESSORS
from proxy.nix.cache.nar import Feed, members
for name in sorted(DECOMPRESSORS):
    with Path(sys.argv[2], name).open("rb") as file:
        feed = Feed(DECOMPRESSORS[name](partial(file.read, 70_001)), int(sys.argv[3]))
        archive = b"".join(bytes(block) for block in tar.blocks(members(feed, "/nix/store/a-1")))
        print(name, feed.digest().hex(), hashlib.sha256(archive).hexdigest())
"""
_COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
}
_CHECKOUT = str(Path(packing.__file__).parents[2])


@pytest.fixture
def nars(tmp_path: Path) -> tuple[str, str]:
    """A folder with one NAR in every compression, and the bytes of this NAR."""
    noise = b"".join(hashlib.sha256(b"%d" % number).digest() * 3 for number in range(5000))
    whole = nar({"bin": {"run": ("x", noise)}, "lib": {"link": "../bin/run", "small": noise[:1000]}})
    for name, compress in _COMPRESSORS.items():
        (tmp_path / name).write_bytes(compress(whole))
    return str(tmp_path), str(len(whole))


async def _packed(nars: tuple[str, str], *processor: str) -> str:
    output = await run((*processor, sys.executable, "-c", _PACK, _CHECKOUT, *nars), deadline=250)
    return output.decode()


@pytest.mark.parametrize("processor", ["qemu64", "Nehalem", "Haswell", "max"])
async def test_every_processor_packs_the_same_bytes(processor: str, nars: tuple[str, str]) -> None:
    here = await _packed(nars)

    there = await _packed(nars, "qemu-x86_64", "-cpu", processor)

    assert there == here
    assert [line.split()[0] for line in here.splitlines()] == ["gzip", "zstd", *sorted(_COMPRESSORS)]
    assert len({tuple(line.split()[1:]) for line in here.splitlines()[2:]}) == 1, "one NAR, one archive"
