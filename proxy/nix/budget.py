"""A budget for the Nix store: what no build needs goes when the store is too large, the oldest first.

Nix alone decides what no build needs: it keeps what a garbage-collector root holds, such as the roots of the builds under
way, and what a running Nix process uses. nixfront chooses the order, by the time at which a path came into the store. An
image needs no store path after its build: its layers are in the registry. So a path that is gone is only fetched or built
again, and only if an image with another layer needs it.

A look at the store lists all of its paths, which takes longer in a large one. So there is no look while Nix's database is as it
was, and the looks take at most a twentieth of the time. No part of one runs on the event loop.
"""

import asyncio
import json
import logging
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.core.errors import NixfrontError, ProcessFailed
from proxy.nix import commands
from proxy.nix.runner import NixRunner

_log = logging.getLogger(__name__)
_PAUSE = 60.0  # seconds between two looks at the store
_LEAST_PAUSE = 19  # times the seconds that the last look took
_SECONDS = 3600.0  # deadline of one question or one collection
_BATCH = 200  # store paths in one command line
_AIM = 0.9  # of the budget remains after a collection, so that the next one is not due at once

_Database = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """The bytes of all valid paths of a store (NAR sizes), and those that are free on its disk."""

    store_bytes: int
    free_bytes: int


class StoreBudget:
    """Keeps one store within its budget."""

    def __init__(self, runner: NixRunner, *, most_bytes: int, keep_free: int) -> None:
        """`most_bytes` of store paths, and `keep_free` bytes on the disk; 0 for no limit."""
        self._runner = runner
        self._most_bytes = most_bytes
        self._keep_free = keep_free
        #: As it was at the last look.
        self.usage = Usage(0, 0)
        self._database: _Database | None = None  # as it was before the last look

    async def watch(self) -> None:
        """Keep the budget, for ever. A failure goes to the log, and the next look tries again."""
        while True:
            started = time.monotonic()
            try:
                await self.keep()
            except (NixfrontError, OSError, ValueError, KeyError) as error:
                _log.warning("the budget of the Nix store cannot be kept now: %s", error)
            await asyncio.sleep(max(_PAUSE, _LEAST_PAUSE * (time.monotonic() - started)))

    async def keep(self) -> int:
        """Look at the store, and collect what is too much. Returns how many paths are gone.

        Raises `ProcessFailed`, `NixUnavailable`, `OSError`.
        """
        await self._look()
        excess = self._excess(self.usage)
        if excess <= 0:
            return 0
        listing = await self._runner.run(commands.all_paths_argv(), _SECONDS)
        dead = await self._runner.run(commands.dead_paths_argv(), _SECONDS)
        chosen = await asyncio.to_thread(_oldest, listing, dead, excess)
        for start in range(0, len(chosen), _BATCH):
            await self._delete(chosen[start : start + _BATCH])
        left = await self._look()
        gone = sum(path not in left for path in chosen)
        _log.info("collected what no build needs paths=%d store_bytes=%d", gone, self.usage.store_bytes)
        if self._excess(self.usage) > 0:
            _log.warning("the Nix store is above its budget with what builds and other roots hold")
        return gone

    async def _delete(self, paths: list[str]) -> None:
        """Delete these and what refers to them. Nix refuses from the first path on that something holds by now."""
        try:
            await self._runner.run(commands.delete_argv(paths), _SECONDS)
        except ProcessFailed as error:
            _log.info("some store paths are in use by now: %s", error.tail[-1] if error.tail else error)

    async def _look(self) -> Collection[str]:
        """Measure the store, and return its paths; none, and the old size, where Nix's database has not changed."""
        folder = Path(self._runner.store or "/", "nix")
        database = await asyncio.to_thread(_database, folder / "var/nix/db")
        sizes: dict[str, int] = {}
        store_bytes = self.usage.store_bytes
        if database is None or database != self._database:
            output = await self._runner.run(commands.sizes_argv(), _SECONDS)
            sizes = await asyncio.to_thread(_read_sizes, output)
            store_bytes = sum(sizes.values())
            self._database = database
        usage = await asyncio.to_thread(shutil.disk_usage, folder / "store")
        self.usage = Usage(store_bytes, usage.free)
        return sizes

    def _excess(self, usage: Usage) -> float:
        """How many bytes are too many; 0 or less while the budget holds."""
        excess = 0.0
        if self._most_bytes and usage.store_bytes > self._most_bytes:
            excess = usage.store_bytes - self._most_bytes * _AIM
        if self._keep_free and usage.free_bytes < self._keep_free:
            excess = max(excess, self._keep_free / _AIM - usage.free_bytes)
        return excess


def _database(folder: Path) -> _Database | None:
    """What changes whenever Nix writes to its database; None where we cannot see it."""
    try:
        stats = [file.stat() for file in sorted(folder.glob("db.sqlite*")) if not file.name.endswith("-shm")]
    except OSError:
        return None
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats if stat.st_size) or None


def _read_sizes(output: bytes) -> dict[str, int]:
    """The size of each store path."""
    return {path.decode(): int(size) for path, size in (line.split() for line in output.splitlines())}


def _oldest(listing: bytes, dead: bytes, excess: float) -> list[str]:
    """The store paths that go: of the dead ones the oldest, until their sizes are as much as is too many."""
    paths = _read(listing)
    chosen: list[str] = []
    size = 0
    for path in sorted(paths.keys() & set(dead.decode().split()), key=lambda path: (paths[path][1], path)):
        if size >= excess:
            break
        chosen.append(path)
        size += paths[path][0]
    return chosen


def _read(output: bytes) -> dict[str, tuple[int, int]]:
    """Size and time of registration of each store path. Nix from 2.19 on prints an object, older ones a list."""
    document: Any = json.loads(output)
    infos = document.items() if isinstance(document, dict) else ((info["path"], info) for info in document)
    return {path: (info["narSize"], info.get("registrationTime") or 0) for path, info in infos if info}
