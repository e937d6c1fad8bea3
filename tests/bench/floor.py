"""The floor under a first pull: `floor.c`, which does with the same bytes what cannot be left out, and no more.

It reads the same files, hashes the same archives, compresses them by the same codec in blocks of the same size, hashes
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
from tests.support.processes import succeed
from tests.support.servers import Server

_SOURCE = Path(__file__).with_name("floor.c")
_THREADS_FOR_EACH = 2  # for each processor: while one waits for the registry's disk, another goes on


@dataclass(frozen=True, slots=True)
class Floor:
    """What it took: seconds of packing, seconds of sending, and the layers that came out."""

    packing: float
    sending: float
    layers: tuple[Layer, ...]

    @property
    def seconds(self) -> float:
        """Both, one after the other."""
        return self.packing + self.sending


async def build(folder: Path) -> Path:
    """The program, compiled."""
    program = folder / "floor"
    libraries = ("-ldeflate", "-lcrypto", "-lpthread")
    await succeed(("gcc", "-O2", "-D_GNU_SOURCE", str(_SOURCE), "-o", str(program), *libraries))
    return program


def write_layers(layers: Iterable[Sequence[str]], prefix: str, file: Path) -> None:
    """Describe layers, each the store paths in it, in the way that the program reads."""
    with file.open("wb") as out:
        for paths in layers:
            out.write(b"L\n")
            for entry in store_tree.store_entries(paths, prefix):
                header = tar.header(entry)
                out.write(b"B %d\n%b" % (len(header), header))
                if entry.kind == tar.FILE and entry.size:
                    padding = tar.padding(entry.size)
                    out.write(b"F %d %b\n" % (entry.size, tar.raw(entry.source)))
                    out.write(b"B %d\n%b" % (len(padding), padding))
            out.write(b"B %d\n%b" % (len(tar.END), tar.END))


async def run(program: Path, registry: Server, layers: Path) -> Floor:
    """Pack the layers of this file and send them to a registry."""
    host, _, port = registry.host.partition(":")
    threads = str(_THREADS_FOR_EACH * (os.cpu_count() or 1))
    with await asyncio.to_thread(layers.open, "rb") as described:
        child = await asyncio.create_subprocess_exec(
            program, host, port, "floor", threads, stdin=described, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await child.communicate()
    assert child.returncode == 0, f"floor ended with {child.returncode}"
    first, *lines = output.decode().splitlines()
    packing, sending = map(float, first.split())
    made = [line.split() for line in lines]
    return Floor(packing, sending, tuple(Layer(digest, int(size), diff_id) for diff_id, digest, size in made))
