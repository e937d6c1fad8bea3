"""Opens the state of the settings: Redis for several machines, else a file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.state import State, sqlite


@asynccontextmanager
async def open_state(url: str, file: Path) -> AsyncIterator[State]:
    """The state in the Redis at `url`; with an empty `url` the one in `file`. Raises `SettingsInvalid`."""
    if url:
        from proxy.state import redis  # its client takes longer to import than all of ours

        async with redis.open_state(url) as shared:
            yield shared
        return
    async with sqlite.open_state(file) as own:
        yield own
