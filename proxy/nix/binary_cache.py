"""Copy what was built or fetched to a binary cache of the operator's, so that no other machine has to build it.

The copies run one at a time beside the image, and nobody waits for them. Where a copy fails, the log says so, and the next
image with these packages tries again. Garbage-collector roots of its own hold what is still to be copied.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from cachetools import LRUCache

from proxy.core.errors import NixfrontError, ProcessFailed
from proxy.core.model import without_credentials
from proxy.nix.store import NixStore
from proxy.tools.scratch import scratch_folder

_log = logging.getLogger(__name__)
_SETS = 4096  # how many sets of paths are remembered as copied


class BinaryCache:
    """The operator's binary cache, to which images' packages are copied."""

    def __init__(self, store: NixStore, url: str, roots: Path) -> None:
        """`url` as `nix copy --to` takes it, empty to copy nothing; `roots` is for garbage-collector roots."""
        self._store = store
        self._url = url
        self._roots = roots
        self._turn = asyncio.Lock()
        self._copied: LRUCache[tuple[str, ...], bool] = LRUCache(_SETS)
        self._running: set[asyncio.Task[None]] = set()

    def add(self, paths: Sequence[str]) -> None:
        """Begin to copy the closure of these store paths, which the caller holds by roots at this moment."""
        key = tuple(sorted(paths))
        if self._url and key and key not in self._copied:
            self._copied[key] = True
            task = asyncio.create_task(self._copy(key))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Stop copying."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _copy(self, paths: tuple[str, ...]) -> None:
        try:
            async with scratch_folder(self._roots) as roots:
                await self._store.keep(paths, roots / "copied")
                async with self._turn:
                    await self._store.copy(paths, self._url)
        except (NixfrontError, OSError) as error:
            self._copied.pop(paths, None)
            reason = error.tail[-1] if isinstance(error, ProcessFailed) and error.tail else error
            _log.warning("not copied to the binary cache: %s", without_credentials(str(reason)))
        else:
            _log.info("copied to the binary cache paths=%s", " ".join(paths))
