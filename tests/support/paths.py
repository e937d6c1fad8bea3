"""Search paths for a child process: one on which each start of Nix is counted, one without Nix."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import search_path

_NIX = ("nix", "nix-build", "nix-instantiate", "nix-store")


@dataclass(frozen=True, slots=True)
class CountedNix:
    """`path` is a value for PATH; on it the programs of Nix are as ever, but each start leaves a line in `log`."""

    path: str
    log: Path

    def starts(self) -> Counter[str]:
        """How often each program of Nix was started until now."""
        return Counter(line.split()[0] for line in self.log.read_text().splitlines() if line)


def counted_nix(folder: Path) -> CountedNix:
    """A search path with a wrapper in `folder` before each program of Nix."""
    folder.mkdir()
    log = folder / "starts"
    log.touch()
    for name in _NIX:
        real = shutil.which(name, path=search_path())
        assert real is not None, f"{name} is not installed"
        wrapper = folder / name
        wrapper.write_text(f"#!/bin/sh\necho {name} >>'{log}'\nexec '{real}' \"$@\"\n")
        wrapper.chmod(0o755)
    return CountedNix(os.pathsep.join([str(folder), search_path()]), log)


def without_nix(folder: Path) -> str:
    """A search path of one folder, which holds a link to every program that is found now, except those of Nix."""
    folder.mkdir()
    for source in search_path().split(os.pathsep):
        if not Path(source).is_dir():
            continue
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            link = folder / entry.name
            if not entry.name.startswith("nix") and not link.is_symlink():
                link.symlink_to(entry.path)
    return str(folder)
