"""Tags that move (`latest`, branches, channels, days): when their time to live is over, they are looked at again.

Told of every answer of the registry that names a manifest by its tag. The look is in memory: a tag whose turn it is not
costs a dictionary. What is due is done behind the answer, or before it, as the operator wants. An image that cannot be made
anew stays as it was: a puller is better served with last week's than with nothing, and the log says so.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

from cachetools import TTLCache

from proxy.builds.coordinator import Coordinator
from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.events import RefreshFailed, Sink
from proxy.core.names import Vocabulary
from proxy.pipeline.build import Pipeline
from proxy.pipeline.own_tags import OwnTags
from proxy.state import State

_MOST_TAGS = 1 << 16  # that are known not to be due
_LONGEST_PAUSE = 60.0  # seconds in which a tag is not looked at again, whatever came of it

When = Literal["behind", "wait", "never"]


class MovingTags:
    """The moving tags of one application."""

    def __init__(
        self,
        state: State,
        own: OwnTags,
        pipeline: Pipeline,
        builds: Coordinator,
        words: Vocabulary,
        sink: Sink,
        *,
        time_to_live: float,
        when: When,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`time_to_live` in seconds; `now` since the epoch."""
        self._state = state
        self._own = own
        self._pipeline = pipeline
        self._builds = builds
        self._words = words
        self._sink = sink
        self._time_to_live = time_to_live
        self._when = when
        self._now = now
        self._looked: TTLCache[tuple[str, str], bool] = TTLCache(
            _MOST_TAGS, min(time_to_live, _LONGEST_PAUSE), time.monotonic
        )
        self._looking: dict[tuple[str, str], asyncio.Task[bool]] = {}

    async def refresh_if_due(self, repository: str, tag: str) -> bool:
        """Look after a tag that the registry has just answered for; whether it names another image since."""
        key = (repository, tag)
        if self._when == "never":
            return False
        looking = self._looking.get(key)
        if looking is None:
            if key in self._looked:
                return False
            self._looked[key] = True
            looking = asyncio.create_task(self._look(repository, tag))
            self._looking[key] = looking
            looking.add_done_callback(lambda _: self._looking.pop(key))
        return await asyncio.shield(looking) if self._when == "wait" else False

    async def close(self) -> None:
        """Stop looking."""
        looking = list(self._looking.values())
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    async def _look(self, repository: str, tag: str) -> bool:
        record = await self._state.recall_tag(repository, tag)
        if record is None or not record.moving or self._now() - record.checked < self._time_to_live:
            return False
        try:
            request = names.parse(repository, tag, self._words)
            if request is None or (present := await self._own.present(record)) is None:
                return False
            if record.key == await self._pipeline.key(request) and present == record.digest:
                await self._own.checked(record)
                return False
            await self._builds.refresh(request, record)
        except NixfrontError as error:
            self._sink(RefreshFailed(repository, tag, str(error)))
            return False
        renewed = await self._state.recall_tag(repository, tag)
        return renewed is not None and renewed.digest != present
