"""Folders for one piece of work, deleted when it ends."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def scratch_folder(parent: Path | None = None, prefix: str = "") -> AsyncIterator[Path]:
    """A new folder in `parent`, or among the host's temporary files, whose name begins with `prefix`.

    It is deleted when the context ends. Raises `OSError`.
    """
    # Both steps are tasks of their own. A caller who is cancelled would not learn what its thread has created.
    creating = asyncio.create_task(
        asyncio.to_thread(tempfile.TemporaryDirectory, dir=parent, prefix=prefix or None)
    )
    try:
        yield Path((await asyncio.shield(creating)).name)
    finally:
        await asyncio.shield(asyncio.create_task(_delete(creating)))


async def _delete(creating: asyncio.Task[tempfile.TemporaryDirectory[str]]) -> None:
    folder = await creating
    await asyncio.to_thread(folder.cleanup)
