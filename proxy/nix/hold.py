"""Store paths that a process of Nix holds, so that no garbage collection takes them: those that are there, and those still to come.

`nix-store --serve` answers questions about a store, as for copies by ssh. With `lock` a question for valid paths first makes all
of the paths temporary roots, which last as long as the process. Only then it looks which of them are valid. So a path that it calls
valid stays whole. Every Nix 2 has this protocol (its source: `serve-protocol`): numbers of eight bytes, and texts with their
length in front, filled up to eight.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar

from proxy.core.errors import ProcessFailed
from proxy.nix import commands
from proxy.nix.runner import NixRunner
from proxy.tools.process import Child

A = TypeVar("A")

_CLIENT, _SERVER = 0x390C9DEB, 0x5452EECB
_VERSION = 0x205
_VALID_PATHS, _LOCK, _NO_SUBSTITUTES = 1, 1, 0
_LONGEST_PATH = 4096
_SECONDS = 120.0  # deadline of one question


class StoreHold:
    """A process of Nix that holds store paths."""

    def __init__(self, nix: Child) -> None:
        self._nix = nix
        self._held: frozenset[str] = frozenset()

    async def greet(self) -> None:
        """Begin the conversation. Raises `ProcessFailed`."""
        await self._ask(_numbers(_CLIENT, _VERSION), self._greeting)

    async def valid(self, paths: Collection[str]) -> frozenset[str]:
        """Those of these store paths that are valid. All of them are held from now on. Raises `ProcessFailed`.

        A new root may meet the first or the last moment of a garbage collection, where older Nix gives up. So there is one for each path.
        """
        lock = 0 if self._held.issuperset(paths) else _LOCK
        question = _numbers(_VALID_PATHS, lock, _NO_SUBSTITUTES, len(paths))
        valid = await self._ask(question + b"".join(map(_text, paths)), self._paths)
        self._held |= frozenset(paths)
        return valid

    async def _ask(self, question: bytes, read: Callable[[], Awaitable[A]]) -> A:
        try:
            async with asyncio.timeout(_SECONDS):
                await self._nix.write(question)
                return await read()
        except (OSError, EOFError, ValueError) as error:  # a TimeoutError is an OSError
            raise ProcessFailed(" ".join(commands.HOLD[:2]), -1, (repr(error),)) from error

    async def _greeting(self) -> None:
        if await self._number() != _SERVER:
            raise ValueError("no server of Nix")
        await self._number()  # its version

    async def _paths(self) -> frozenset[str]:
        return frozenset([await self._path() for _ in range(await self._number())])

    async def _path(self) -> str:
        length = await self._number()
        if length > _LONGEST_PATH:
            raise ValueError(f"a store path of {length} bytes")
        return (await self._nix.stdout.readexactly(length + -length % 8))[:length].decode()

    async def _number(self) -> int:
        (number,) = struct.unpack("<Q", await self._nix.stdout.readexactly(8))
        return int(number)


@asynccontextmanager
async def hold(runner: NixRunner) -> AsyncIterator[StoreHold]:
    """What holds store paths until the context ends. Raises `ProcessFailed`."""
    async with runner.conversation(commands.HOLD) as nix:
        holder = StoreHold(nix)
        await holder.greet()
        yield holder


def _numbers(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def _text(text: str) -> bytes:
    data = text.encode()
    return _numbers(len(data)) + data + bytes(-len(data) % 8)
