"""The floor under a first pull: `floor.c`, which does with the same bytes what cannot be left out, and no more.

It reads the same files, or fetches the same NARs, decompresses and hashes them. Then it hashes the same archives, compresses them by the same codec in blocks of the same size, hashes
the result, all of it on every processor, and sends the same layers to the same registry as a bare client. Debian's
libdeflate takes the place of the pinned one; where their releases differ, a few bytes of a few layers do. Headers are
made beforehand and cost it nothing, and so does the listing of directories. That the DiffIDs are those of the image
shows that the work is the same.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.core.model import Layer
from proxy.image import store_tree, tar
from proxy.nix.cache.narinfo import NarInfo
from tests.support.processes import succeed
from tests.support.servers import Server

_SOURCES = tuple(str(Path(__file__).with_name(name)) for name in ("floor.c", "floor_nars.c"))
_COMPRESSIONS = {"xz": b"x", "zstd": b"z"}
_THREADS_FOR_EACH = 2  # for each processor: while one waits for the registry's disk, another goes on


@dataclass(frozen=True, slots=True)
class Floor:
    """What it took: seconds of fetching, of packing and of sending, and the layers that came out."""

    fetching: float
    packing: float
    sending: float
    layers: tuple[Layer, ...]

    @property
    def seconds(self) -> float:
        """All three, one after the other."""
        return self.fetching + self.packing + self.sending


async def build(folder: Path) -> Path:
    """The program, compiled."""
    program = folder / "floor"
    libraries = ("-ldeflate", "-llzma", "-lzstd", "-lcrypto", "-lpthread")
    await succeed(("gcc", "-O2", "-D_GNU_SOURCE", *_SOURCES, "-o", str(program), *libraries))
    return program


def write_layers(
    layers: Iterable[Sequence[str]], prefix: str, file: Path, nars: Sequence[NarInfo] = (), host: str = ""
) -> None:
    """Describe layers, each the store paths in it, in the way that the program reads.

    With `nars` it fetches them from the binary cache at `host` and reads no file.
    """
    numbers = {nar.path: number for number, nar in enumerate(nars)}
    with file.open("wb") as out:
        for nar in nars:
            kind = _COMPRESSIONS[nar.compression]
            fields = (nar.nar_hash.hex(), *host.split(":"), nar.file)
            out.write(b"N %d %d %c %b\n" % (nar.file_size, nar.nar_size, kind, " ".join(fields).encode()))
        for paths in layers:
            out.write(b"L\n")
            for entry in store_tree.store_entries(paths, prefix):
                header = tar.header(entry)
                out.write(b"B %d\n%b" % (len(header), header))
                if entry.kind == tar.FILE and entry.size:
                    padding = tar.padding(entry.size)
                    number = numbers.get("/" + "/".join(entry.path.split("/")[:3]))
                    where = tar.raw(entry.source) if number is None else str(number).encode()
                    out.write(b"%c %d %b\n" % (b"F" if number is None else b"C", entry.size, where))
                    out.write(b"B %d\n%b" % (len(padding), padding))
            out.write(b"B %d\n%b" % (len(tar.END), tar.END))


async def run(program: Path, registry: Server, layers: Path) -> Floor:
    """Make the layers of this file and send them to a registry."""
    host, _, port = registry.host.partition(":")
    threads = str(_THREADS_FOR_EACH * (os.cpu_count() or 1))
    with await asyncio.to_thread(layers.open, "rb") as described:
        child = await asyncio.create_subprocess_exec(
            program, host, port, "floor", threads, stdin=described, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await child.communicate()
    assert child.returncode == 0, f"floor ended with {child.returncode}"
    first, *lines = output.decode().splitlines()
    fetching, packing, sending = map(float, first.split())
    made = [line.split() for line in lines]
    return Floor(
        fetching, packing, sending, tuple(Layer(digest, int(size), diff_id) for diff_id, digest, size in made)
    )
