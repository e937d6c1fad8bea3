"""What default.nix gives to one build, and how the build looks at files.

Environment (set by default.nix; lists are separated by spaces):
  out               the store path to make
  debs              .deb files, unpacked in this order
  deps, closure     store paths that it depends on: directly, and all
  names             the names of `closure` in the lock, in the same order
  glibc, shell      store paths that hold the loader and `sh`; empty where this one is beneath them
  tools, run        the builder, and its loader, which runs the programs in it
  multiarch, loader, machine   of the system that the packages are for: Debian's name of it in paths, the file name of its
                    loader, and the number of its processor in ELF; the builder may be for another system
  fixups            JSON, see `fixups.apply`
"""

import os
from collections.abc import Iterator
from pathlib import Path

environment = dict(os.environ)
MULTIARCH = f"lib/{environment['multiarch']}"
LOADER = environment["loader"]
MACHINE = int(environment["machine"])
out = Path(environment["out"])
closure = [Path(path) for path in environment["closure"].split()]
glibc = Path(environment["glibc"] or out)
shell = Path(environment["shell"] or out)
tools = Path(environment["tools"])
run = Path(environment["run"])


def walk(top: Path) -> Iterator[Path]:
    """Every file and symlink below, sorted level by level; symlinked directories are not entered."""
    for folder, names, files in os.walk(top):
        names.sort()
        linked = [name for name in names if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted(files + linked))


def regular_files() -> list[Path]:
    """Every file of `out` that is no symlink."""
    return [path for path in walk(out) if not path.is_symlink()]
