"""The logs of builds on disk. Each build has a log of bounded length and a summary; the oldest are deleted.

A task writes the lines a few times a second, in a thread. A log that is too long keeps its beginning and its end. If
the disk is full, the build goes on without its log. A power failure may damage logs and summaries: what is no summary any
more is left out, and deleted with its log when they are among the oldest.
"""

import asyncio
import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cachetools import TTLCache

from proxy.tools.files import write_whole

_log = logging.getLogger(__name__)
_PAUSE = 0.3  # seconds between two writes
_MOST_BYTES = 2 << 20  # of the beginning of a log
_TAIL = 200  # lines of the end of a log that is longer
_MOST_LOGS = 200
_MOST_RECENT = 1000  # lines in memory, of the log of a running build
_WATCHERS_READ = 30.0  # seconds in which those who watch a build read the last lines after its end
_MOST_ENDED = 16  # builds whose last lines are in memory after their end


class _Open:
    """The log of a running build."""

    def __init__(self) -> None:
        self.pending: list[str] = []
        self.written = 0
        self.left_out = 0
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.recent: deque[str] = deque(maxlen=_MOST_RECENT)
        self.count = 0


class BuildLogs:
    """The logs in one folder."""

    def __init__(self, folder: Path) -> None:
        """The first write creates the folder."""
        self._folder = folder
        self._open: dict[str, _Open] = {}
        self._ended: TTLCache[str, _Open] = TTLCache(_MOST_ENDED, _WATCHERS_READ)
        self._writing: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    def add(self, identity: str, line: str) -> None:
        """Append a line to the log of this build."""
        log = self._open.setdefault(identity, _Open())
        log.recent.append(line)
        log.count += 1
        size = len(line.encode(errors="replace")) + 1
        if not log.tail and log.written + size <= _MOST_BYTES:
            log.written += size
            log.pending.append(line)
        else:
            log.left_out += len(log.tail) == _TAIL
            log.tail.append(line)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    def lines_since(self, identity: str, seen: int) -> tuple[Sequence[str], int]:
        """The lines after the first `seen` that memory has; and how many lines there are.

        Memory has the lines of a build while it runs, and for a while after its end.
        """
        log = self._open.get(identity) or self._ended.get(identity)
        if log is None:
            return (), seen
        first = log.count - len(log.recent)
        return tuple(itertools.islice(log.recent, max(0, seen - first), None)), log.count

    def end(self, identity: str, summary: Mapping[str, Any]) -> None:
        """Close the log of a build that has ended, and write its summary."""
        task = asyncio.create_task(self._end(identity, summary))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def read(self, identity: str) -> str:
        """The whole log up to now; empty if there is none."""
        await self._write()
        log = self._open.get(identity)
        text = await asyncio.to_thread(self._read, identity)
        return text + (_ending_of(log) if log is not None else "")

    async def summaries(self) -> list[dict[str, Any]]:
        """The summaries of builds that have ended, in any order; a power failure may have changed what is in them."""
        return await asyncio.to_thread(self._summaries)

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._write()

    async def _write_soon(self) -> None:
        await asyncio.sleep(_PAUSE)
        await self._write()

    async def _write(self) -> None:
        async with self._lock:
            pending = {identity: log.pending for identity, log in self._open.items() if log.pending}
            for identity in pending:
                self._open[identity].pending = []
            if pending:
                await self._in_thread(self._append, pending)

    async def _end(self, identity: str, summary: Mapping[str, Any]) -> None:
        await self._write()
        if (log := self._open.pop(identity, None)) is not None:
            self._ended[identity] = log
        async with self._lock:
            await self._in_thread(self._finish, identity, _ending_of(log) if log is not None else "", summary)

    @staticmethod
    async def _in_thread(write: Callable[..., None], *arguments: object) -> None:
        try:
            await asyncio.to_thread(write, *arguments)
        except OSError as error:
            _log.warning("cannot write the log of a build error=%s", error)

    def _append(self, pending: Mapping[str, list[str]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        for identity, lines in pending.items():
            with self._file(identity).open("a", encoding="utf-8", errors="replace") as file:
                file.write("".join(f"{line}\n" for line in lines))

    def _finish(self, identity: str, ending: str, summary: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        if ending:
            with self._file(identity).open("a", encoding="utf-8", errors="replace") as file:
                file.write(ending)
        write_whole(self._file(identity).with_suffix(".json"), json.dumps(summary).encode())
        ended = sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in ended[_MOST_LOGS:]:
            old.with_suffix(".log").unlink(missing_ok=True)
            old.unlink(missing_ok=True)
        # A build that died with nixfront has no summary, and one that runs has none yet.
        summaries = {file.stem for file in ended} | set(self._open)
        rest = [file for file in self._folder.glob("*.log") if file.stem not in summaries]
        for old in sorted(rest, key=lambda file: file.stat().st_mtime, reverse=True)[_MOST_LOGS:]:
            old.unlink(missing_ok=True)

    def _read(self, identity: str) -> str:
        try:
            return self._file(identity).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _summaries(self) -> list[dict[str, Any]]:
        summaries = []
        for file in self._folder.glob("*.json"):
            with suppress(OSError, ValueError, RecursionError):
                summary = json.loads(file.read_bytes())
                if isinstance(summary, dict) and summary.get("id") == file.stem:
                    summaries.append(summary)
        return summaries

    def _file(self, identity: str) -> Path:
        return self._folder / f"{identity}.log"


def _ending_of(log: _Open) -> str:
    """The end of a log that is too long; empty for any other."""
    if not log.tail:
        return ""
    gap = [f"[... {log.left_out} lines are left out ...]"] if log.left_out else []
    return "".join(f"{line}\n" for line in (*gap, *log.tail))
