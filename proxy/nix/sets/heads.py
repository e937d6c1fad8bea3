"""The commits that this host has seen at the head of a channel: a bounded file, which the newest of them stay in.

No server tells the past of a channel, so the file outlasts a power failure.
"""

import json
import threading
from pathlib import Path

from proxy.core.model import canonical_json
from proxy.tools.files import write_whole

_MOST = 2000


class Heads:
    """The heads of the channels of one package set. The methods block: they read and write a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._channels: dict[str, list[str]] | None = None

    def channels(self, commit: str) -> tuple[str, ...]:
        """The channels at whose head this commit was seen."""
        with self._lock:
            return tuple(self._read().get(commit, ()))

    def add(self, commit: str, channel: str) -> None:
        """This commit is at the head of the channel now."""
        with self._lock:
            heads = self._read()
            if channel in heads.get(commit, ()):
                return
            heads[commit] = [*heads.pop(commit, []), channel]
            while len(heads) > _MOST:
                del heads[next(iter(heads))]
            write_whole(self._file, canonical_json([[commit, heads[commit]] for commit in heads]), lasts=True)

    def _read(self) -> dict[str, list[str]]:
        if self._channels is None:
            try:
                records = json.loads(self._file.read_bytes())
            except (OSError, ValueError, RecursionError):
                records = []
            self._channels = {}
            for record in records if isinstance(records, list) else ():
                match record:
                    case [str(commit), [*names]] if all(isinstance(name, str) for name in names):
                        self._channels[commit] = list(names)
        return self._channels
