"""Tags that move (`latest`, branches, channels, days): a pull after their time to live checks what they mean now.

A pull whose tag is not due costs one look-up in a dictionary. A tag that is due is checked behind the answer or before it,
as `packages.refresh` says. When the new image cannot be built, the tag keeps its old one: a client is better off with last
week's image than with none, and the log says so.
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

_MOST_TAGS = 1 << 16  # that are not due
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
        self._recent: TTLCache[tuple[str, str], bool] = TTLCache(
            _MOST_TAGS, min(time_to_live, _LONGEST_PAUSE), time.monotonic
        )
        self._checks: dict[tuple[str, str], asyncio.Task[bool]] = {}

    async def refresh_if_due(self, repository: str, tag: str) -> bool:
        """Check a tag that a client pulls, if it is due. True if it names another image now than before the check.

        With `when="behind"` the check goes on behind the answer, and the result is always False.
        """
        key = (repository, tag)
        if self._when == "never":
            return False
        check = self._checks.get(key)
        if check is None:
            if key in self._recent:
                return False
            self._recent[key] = True
            check = asyncio.create_task(self._check(repository, tag))
            self._checks[key] = check
            check.add_done_callback(lambda _: self._checks.pop(key))
        return await asyncio.shield(check) if self._when == "wait" else False

    async def close(self) -> None:
        """Cancel the checks that are under way."""
        checks = list(self._checks.values())
        for task in checks:
            task.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    async def _check(self, repository: str, tag: str) -> bool:
        record = await self._state.recall_tag(repository, tag)
        if record is None or not record.moving or self._now() - record.checked < self._time_to_live:
            return False
        try:
            request = names.parse(repository, tag, self._words)
            if request is None or (present := await self._own.present(record)) is None:
                return False
            if record.key == await self._pipeline.key(request) and present == record.digest:
                await self._own.confirm(record)
                return False
            await self._builds.refresh(request, record)
        except NixfrontError as error:
            self._sink(RefreshFailed(repository, tag, str(error)))
            return False
        renewed = await self._state.recall_tag(repository, tag)
        return renewed is not None and renewed.digest != present
