"""Documents that are due to an image whose maker ended before it attached them: this machine attaches them after a pull.

The state says since when documents are due to an image. Its maker has some seconds for them. Who serves a pull later makes the
image again, which costs an evaluation, as the registry has its layers. Nothing is due to an image that was made without documents, so no
pull makes this host work for more than what it began itself.

A pull costs one look-up in a dictionary here. All else happens behind its answer.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from cachetools import TTLCache

from proxy.builds.coordinator import Coordinator
from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.foreign import DocumentInvalid
from proxy.core.names import Vocabulary
from proxy.pipeline.attachments import referrers
from proxy.pipeline.destination import Destination
from proxy.state import ImageRecord, State

_log = logging.getLogger(__name__)
_MOST_IMAGES = 1 << 16  # at which nobody looks again for a while
_PAUSE = 600.0  # seconds of that while, whatever came of the look
_MOST_AT_ONCE = 256  # images at which this machine looks; the next pull tells of the others


class LateDocuments:
    """The late documents of one machine."""

    def __init__(
        self,
        state: State,
        registry: Destination,
        builds: Coordinator,
        words: Vocabulary,
        *,
        patience: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`patience`: the seconds that the maker of an image has; `now` is in seconds since the epoch."""
        self._state = state
        self._registry = registry
        self._builds = builds
        self._words = words
        self._patience = patience
        self._now = now
        self._recent: TTLCache[tuple[str, str], bool] = TTLCache(_MOST_IMAGES, _PAUSE, time.monotonic)
        self._looks: set[asyncio.Task[None]] = set()

    def pulled(self, repository: str, digest: str) -> None:
        """A client just got this manifest from the registry."""
        if (repository, digest) in self._recent or len(self._looks) >= _MOST_AT_ONCE:
            return
        self._recent[repository, digest] = True
        look = asyncio.create_task(self._look(repository, digest))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def close(self) -> None:
        """Cancel the looks that are under way."""
        looks = list(self._looks)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    async def _look(self, repository: str, digest: str) -> None:
        record = await self._state.recall_image(repository, digest)
        if record is None or not record.due:
            return
        # The clock of its maker may be another one than ours.
        await asyncio.sleep(min(max(record.due + self._patience - self._now(), 0.0), self._patience))
        record = await self._state.recall_image(repository, digest)
        if record is None or not record.due:
            return
        try:
            await self._attach(record)
        except (NixfrontError, DocumentInvalid) as error:  # another machine may know more; the mark stays
            _log.warning("no late documents image=%s@%s error=%s", repository, digest, error)

    async def _attach(self, record: ImageRecord) -> None:
        """Raises a `NixfrontError`, and `DocumentInvalid`."""
        repository, digest = record.repository, record.digest
        if not await referrers.lacking(self._registry, repository, digest):
            await self._state.record_attached(repository, digest)
            return
        request = names.parse(repository, record.revision, self._words)
        if request is not None:
            _log.info("late documents begin image=%s@%s", repository, digest)
            await self._builds.attach(replace(request, digest=digest), record.due)
