"""The bytes of a layer are the same on every processor: compilers and libraries choose other code on each.

qemu-user runs this very Python, and the libraries in it, as if on an old, a newer and the richest processor that it
knows, and on the plainest. The host is an x86-64.
"""

import sys
from pathlib import Path

import pytest

from proxy.pipeline import packing
from proxy.tools.process import run

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
"""
_CHECKOUT = str(Path(packing.__file__).parents[2])


async def _packed(*processor: str) -> str:
    output = await run((*processor, sys.executable, "-c", _PACK, _CHECKOUT), deadline=250)
    return output.decode()


@pytest.mark.parametrize("processor", ["qemu64", "Nehalem", "Haswell", "max"])
async def test_every_processor_packs_the_same_bytes(processor: str) -> None:
    here = await _packed()

    there = await _packed("qemu-x86_64", "-cpu", processor)

    assert there == here
    assert [line.split()[0] for line in here.splitlines()] == ["gzip", "zstd"]
