"""What was built or fetched goes to a binary cache of the operator's, so that no other machine has to build it.

Behind the image, one at a time: nobody waits for it, and where it fails a line in the log says so and the next image with
these packages tries again. Roots of its own hold what is still to be copied.
"""

import asyncio
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cachetools import LRUCache

from proxy.core.errors import NixfrontError, ProcessFailed
from proxy.core.model import without_credentials
from proxy.nix.store import Nix

_log = logging.getLogger(__name__)
_REMEMBERED = 4096  # sets of paths that are in the cache already


class CacheCopies:
    """The copies to one binary cache."""

    def __init__(self, nix: Nix, url: str, roots: Path) -> None:
        """`url` as `nix copy --to` takes it; `roots` is for garbage-collector roots."""
        self._nix = nix
        self._url = url
        self._roots = roots
        self._turn = asyncio.Lock()
        self._copied: LRUCache[tuple[str, ...], bool] = LRUCache(_REMEMBERED)
        self._running: set[asyncio.Task[None]] = set()

    def add(self, paths: Sequence[str]) -> None:
        """Copy these store paths, and all that they need; they are rooted at this moment."""
        key = tuple(sorted(paths))
        if key and key not in self._copied:
            self._copied[key] = True
            task = asyncio.create_task(self._copy(key))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Break off what is being copied."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _copy(self, paths: tuple[str, ...]) -> None:
        roots = await asyncio.to_thread(tempfile.TemporaryDirectory, dir=self._roots)
        try:
            await self._nix.keep(paths, Path(roots.name, "copied"))
            async with self._turn:
                await self._nix.copy(paths, self._url)
        except (NixfrontError, OSError) as error:
            self._copied.pop(paths, None)
            told = error.tail[-1] if isinstance(error, ProcessFailed) and error.tail else error
            _log.warning("not copied to the binary cache: %s", without_credentials(str(told)))
        else:
            _log.info("copied to the binary cache paths=%s", " ".join(paths))
        finally:
            await asyncio.to_thread(roots.cleanup)
