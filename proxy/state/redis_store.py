"""Commands to one database of Redis: with our prefix before each key, and behind `outage`.

Whatever is no record of ours is a lost record: a read finds nothing, and a write takes its place.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from proxy.core.errors import SettingsInvalid
from proxy.state import parse
from proxy.state.outage import WriteBehind

_log = logging.getLogger(__name__)
_PREFIX = "nixfront:"
_SCHEMA = 1
_GONE = (RedisError, OSError)
_FOREIGN = "WRONGTYPE"  # says Redis of a key that holds another type
_TYPES = {"HSET": "hash", "HSETNX": "hash", "HDEL": "hash", "EVAL": "hash", "ZADD": "zset", "ZREM": "zset"}

Word = str | int | float


class RedisStore:
    """One database of Redis."""

    def __init__(self, redis: Redis, name: str) -> None:
        """`name` is for the log."""
        self._redis = redis
        self._commands: set[asyncio.Task[Any]] = set()
        self._border = WriteBehind(name, _GONE, lambda: self._ask("SET", "probe", ""))

    async def check(self) -> None:
        """Raises `StateUnavailable` if Redis does not answer."""
        await self._border.check(lambda: self._ask("PING"))

    async def close(self) -> None:
        """Writes that still wait are lost; those that Redis has come to their end."""
        await self._border.close()
        await asyncio.gather(*self._commands, return_exceptions=True)

    async def upgrade(self) -> None:
        """Migrate the records to our schema version. Raises `SettingsInvalid` if theirs is newer."""
        await self._write(("SET", "schema", _SCHEMA, "NX"))
        version = parse.number(await self._read("", "GET", "schema")) or _SCHEMA
        if version > _SCHEMA:
            raise SettingsInvalid(
                f"state.url: what is there is of a newer nixfront (schema {version:g}, this one knows {_SCHEMA})"
            )

    async def _read(self, default: Any, *words: Word) -> Any:
        """The answer to one command, or `default` while Redis is gone, and for a key of another type."""

        async def ask() -> Any:
            try:
                return await self._ask(*words)
            except ResponseError as error:
                if _FOREIGN not in str(error):
                    raise
                _log.warning("no record of ours, so it is lost command=%s key=%s", words[0], words[1])
                return default

        return await self._border.read(ask, default)

    async def _write(self, *commands: Sequence[Word]) -> None:
        """Send these commands, in order and with nothing between them."""
        if commands:
            await self._border.write(lambda: self._put(*commands))

    async def _put(self, *commands: Sequence[Word]) -> None:
        """The same; keys of another type are deleted first."""
        try:
            await self._together(*commands)
        except ResponseError as error:
            if _FOREIGN not in str(error):
                raise
            for command in commands:
                key = command[3] if command[0] == "EVAL" else command[1]
                if await self._ask("TYPE", key) != _TYPES.get(str(command[0]), "string"):
                    await self._ask("DEL", key)
            await self._together(*commands)

    async def _together(self, *commands: Sequence[Word]) -> None:
        async def send() -> None:
            async with self._redis.pipeline(transaction=True) as together:
                for command in commands:
                    together.execute_command(*_prefixed(command))
                await together.execute()

        await self._whole(send())

    async def _ask(self, *words: Word) -> Any:
        async def send() -> Any:
            return await self._redis.execute_command(*_prefixed(words))  # type: ignore[no-untyped-call]

        return await self._whole(send())

    async def _whole(self, command: Coroutine[Any, Any, Any]) -> Any:
        """The answer to a command, which goes on to its end where its caller is cancelled.

        redis-py may lose a cancellation while it reconnects. The caller would then go on as if nobody had ended it.
        """
        task = asyncio.create_task(command)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        return await asyncio.shield(task)


def _prefixed(words: Sequence[Word]) -> list[Word]:
    """The command with our prefix before its key: the first argument, but for a script."""
    at = 3 if words[0] == "EVAL" else 1
    return [*words[:at], *(f"{_PREFIX}{word}" for word in words[at : at + 1]), *words[at + 1 :]]
