"""The child process that makes documents. It stays for some seconds, as it takes far longer to start than to work.

It reads one line for each question. Each answer is a line with a size, and then so many bytes; see `proxy.trust.__main__`.
"""

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from proxy.core.errors import ProcessFailed
from proxy.tools import process

_DEADLINE = 600.0  # seconds for one answer
_STAYS = 10.0  # seconds without a question until the child ends, which has some 40 MB of memory
_MOST_ANSWERS = 256  # until another child takes its place, as libraries may keep what they read
_LARGEST = 256 << 20  # bytes of an answer
_TAIL = 50  # lines of its standard error


class Maker:
    """Makes documents, for one caller at a time."""

    def __init__(self) -> None:
        self._conversation: _Conversation | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ends: set[asyncio.Task[None]] = set()

    async def documents(self, files: Sequence[Path]) -> dict[str, dict[str, str]]:
        """What the child says of these files of facts. Raises `ProcessFailed`."""
        if self._timer is not None:
            self._timer.cancel()
        stayed = self._conversation is not None
        try:
            answer = await self._answer(files)
        except ProcessFailed as error:
            if not stayed or error.timed_out:
                raise
            answer = await self._answer(files)  # the host may have ended it while it had nothing to do
        self._timer = asyncio.get_running_loop().call_later(_STAYS, self._leave)
        made: dict[str, dict[str, str]] = await asyncio.to_thread(json.loads, answer)
        return made

    async def close(self) -> None:
        """End the child."""
        if self._timer is not None:
            self._timer.cancel()
        self._leave()
        await asyncio.gather(*self._ends)

    def _leave(self) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            end = asyncio.create_task(conversation.end())
            self._ends.add(end)
            end.add_done_callback(self._ends.discard)

    async def _answer(self, files: Sequence[Path]) -> bytes:
        if self._conversation is None:
            self._conversation = await _begin()
        try:
            answer = await self._conversation.ask([str(file) for file in files])
        except ProcessFailed:
            self._conversation = None
            raise
        except BaseException:
            self._leave()
            raise
        if self._conversation.answers >= _MOST_ANSWERS:
            self._leave()
        return answer


class _Conversation:
    """Questions to one child, and its answers."""

    def __init__(self, child: process.Child) -> None:
        self.answers = 0
        self._child = child
        self._errors: deque[str] = deque(maxlen=_TAIL)
        self._listener = asyncio.create_task(process.read_lines(child.stderr, self._errors.append))

    async def ask(self, files: list[str]) -> bytes:
        """The answer. Raises `ProcessFailed` if the child gives none, which is its end."""
        try:
            async with asyncio.timeout(_DEADLINE):
                answer = await self._ask(json.dumps(files).encode() + b"\n")
        except (OSError, EOFError, ValueError) as error:
            await self.end()
            late = isinstance(error, TimeoutError)
            returncode = self._child.returncode or 0
            raise ProcessFailed(sys.executable, returncode, self._errors, timed_out=late) from error
        self.answers += 1
        return answer

    async def end(self) -> None:
        """End the child, and read what it wrote to standard error."""
        if self._child.returncode is None:
            await process.kill_group(self._child)
        await self._listener
        self._child.close()

    async def _ask(self, question: bytes) -> bytes:
        await self._child.write(question)
        size = int(await self._child.stdout.readline())
        if size > _LARGEST:
            raise ValueError(f"an answer of {size} bytes")
        return await self._child.stdout.readexactly(size)


async def _begin() -> _Conversation:
    # An installed program may have more folders of modules than its Python knows by itself.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = (sys.executable, "-P", "-m", "proxy.trust")
    return _Conversation(await process.start(argv, environment, reads=True))
