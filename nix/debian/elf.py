"""ELF programs and libraries that find their loader and each other in the store."""

import struct
import subprocess
import sys
from pathlib import Path

from inputs import LOADER, MACHINE, MULTIARCH, closure, glibc, out, run, tools, walk


def index_libraries() -> dict[str, Path]:
    """Name of each shared library -> the folder to load it from: our own first, then the usual place."""
    best: dict[str, tuple[bool, bool, int, int, Path]] = {}
    for number, root in enumerate([out, *closure]):
        for path in walk(root / "lib"):
            if ".so" in path.name:
                # By the number of its dependency before its path: a hash in a store path must not decide.
                rank = (root != out, path.parent != root / MULTIARCH, len(path.parts), number, path)
                best[path.name] = min(rank, best.get(path.name, rank))
    return {name: rank[4].parent for name, rank in best.items()}


def repair_elf(path: Path, libraries: dict[str, Path]) -> None:
    """Make a program or library load what it needs from the store."""
    kinds = segments(path)
    top = path.relative_to(out).parts[0]
    # In share there is test data at most. The C library's own objects find each other already, and patching the
    # loader would break it.
    if 2 not in kinds or top == "share" or (glibc == out and top not in ("bin", "sbin")):
        return
    needed = patchelf("--print-needed", path).split()
    folders = list(dict.fromkeys(str(libraries[name]) for name in needed if name in libraries))
    changes: list[str | Path] = []
    if 3 in kinds:
        changes += ["--set-interpreter", glibc / MULTIARCH / LOADER]
    if folders:
        changes += ["--force-rpath", "--set-rpath", ":".join(folders)]
    if changes:
        patchelf(*changes, path)
    for name in needed:
        if name not in libraries:
            sys.stderr.write(f"{path.relative_to(out)} needs {name}, which no dependency has\n")


def segments(path: Path) -> set[int]:
    """Types of an ELF object's program headers (2: it is dynamic, 3: it names an interpreter); empty for others."""
    with path.open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02" or len(head) < 64:
            return set()
        kind, machine = struct.unpack_from("<HH", head, 16)
        if kind not in (2, 3) or machine != MACHINE:  # a program or shared object
            return set()
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
    return {struct.unpack_from("<I", table, index * size)[0] for index in range(count)}


def patchelf(*args: str | Path) -> str:
    """What patchelf printed. It is run by the builder's own loader, as nothing in a store path fits it."""
    program: list[str | Path] = [run, "--library-path", tools / "lib", tools / "bin/patchelf"]
    done = subprocess.run([*program, *args], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"patchelf {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout
