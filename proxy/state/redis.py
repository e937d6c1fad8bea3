"""The state in Redis, which several nixfronts before one registry share.

All keys start with `nixfront:`; another database number (`redis://host/1`) separates two groups of nixfronts. Leases are
keys with an expiry; small scripts take and release them, so that only its holder prolongs or ends a lease.

Whatever is no record of ours is a lost record: a read finds nothing, and a write takes its place.

    layer:<key>        hash: digest, size, diff_id, store_paths      blob:<digest>    sorted set of repositories
    tags:<repository>  hash: tag -> [digest, key, checked, ...]      images           sorted set of "repository digest"
    image:<member>     hash: made, pulled, revision, settings, ...   deleted          sorted set of "repository digest" by time
    revisions          hash: [set, reference] -> [revision, when]
    board              sorted set of builds' ids by start            board:record     hash: id -> the record
    failure:<key>      [kind, message], expires                      lease:<key>      the holder, expires
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, astuple, replace

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from proxy.core.errors import SettingsInvalid
from proxy.core.model import Layer, LayerPlan, canonical_json, without_credentials
from proxy.state import (
    INTERRUPTED,
    MOST_BUILDS,
    MOST_DELETED,
    MOST_ORIGINS,
    MOST_REVISIONS,
    BuildRecord,
    Failure,
    ImageRecord,
    TagRecord,
    parse,
)
from proxy.state.redis_store import RedisStore

_PATIENCE = 2.0  # seconds for one answer
_PAGE = 500  # members of a listing in one answer

# A lease of ours is a string that expires.
_TAKE = """
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('PTTL', KEYS[1]) == -1 then redis.call('DEL', KEYS[1]) end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_PULLED = """
local before = redis.call('HGET', KEYS[1], 'pulled')
if not before then return end
if (tonumber(before) or 0) < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'pulled', ARGV[1]) end
local times = tonumber(redis.call('HGET', KEYS[1], 'pulls') or '0') or 0
redis.call('HSET', KEYS[1], 'pulls', string.format('%.0f', times + tonumber(ARGV[2])))
"""
# What the record of a deleted image says of its pulls stays; its image counts as made now.
_RECORD_IMAGE = """
if (tonumber(redis.call('HGET', KEYS[1], 'deleted') or '0') or 0) > 0 then redis.call('HDEL', KEYS[1], 'made') end
redis.call('HSETNX', KEYS[1], 'made', ARGV[1])
redis.call('HSETNX', KEYS[1], 'pulled', '0')
redis.call('HSET', KEYS[1], 'deleted', '0')
if tonumber(ARGV[4]) > 0 then redis.call('HSET', KEYS[1], 'due', ARGV[4]) end
for number, name in ipairs({'revision', 'settings'}) do
    if ARGV[number + 1] ~= '' then redis.call('HSET', KEYS[1], name, ARGV[number + 1]) end
end
"""


class RedisState(RedisStore):
    """The state in one database of Redis; the methods are described in `State`."""

    async def recall(
        self, keys: Sequence[str], repository: str
    ) -> Mapping[str, tuple[Layer, tuple[str, ...]]]:
        layers = await asyncio.gather(*(self._recall(key, repository) for key in keys))
        return {key: layer for key, layer in zip(keys, layers, strict=True) if layer is not None}

    async def _recall(self, key: str, repository: str) -> tuple[Layer, tuple[str, ...]] | None:
        fields = await self._read({}, "HGETALL", f"layer:{key}")
        layer = parse.layer(fields)
        if layer is None:
            return None
        blob = f"blob:{layer.digest}"
        here = await self._read(None, "ZSCORE", blob, repository) is not None
        names = await self._read([], "ZRANGE", blob, 0, MOST_ORIGINS)
        others = [name for name in names if name != repository][:MOST_ORIGINS]
        return layer, (*((repository,) if here else ()), *others)

    async def record(self, key: str, plan: LayerPlan, layer: Layer, repository: str) -> None:
        fields = {**asdict(layer), "store_paths": canonical_json(list(plan.paths)).decode()}
        await self._write(("HSET", f"layer:{key}", *(word for field in fields.items() for word in field)))
        await self.seen(repository, layer.digest)

    async def seen(self, repository: str, *digests: str) -> None:
        await self._write(*(("ZADD", f"blob:{digest}", 0, repository) for digest in digests))

    async def forget(self, digest: str, repository: str) -> None:
        await self._write(("ZREM", f"blob:{digest}", repository))

    async def recall_tag(self, repository: str, tag: str) -> TagRecord | None:
        value = await self._read(None, "HGET", f"tags:{repository}", tag)
        return parse.record(TagRecord, repository, tag, *parse.words(value))

    async def record_tag(self, *records: TagRecord) -> None:
        await self._write(*(command for record in records for command in _commands(record)))

    async def forget_tag(self, repository: str, tag: str) -> None:
        await self._write(("HDEL", f"tags:{repository}", tag))

    async def tags(self, repository: str) -> tuple[TagRecord, ...]:
        values = await self._read({}, "HGETALL", f"tags:{repository}")
        return parse.tags(repository, values)

    async def images(self) -> AsyncIterator[ImageRecord]:
        async for member in self._members("-", "+"):
            image = await self._image(member)
            if image is not None and not image.deleted:  # else it was just deleted
                yield image

    async def _members(self, first: str, last: str) -> AsyncIterator[str]:
        """The members of `images` between these, sorted."""
        after = first
        while members := await self._read([], "ZRANGEBYLEX", "images", after, last, "LIMIT", 0, _PAGE):
            for member in members:
                yield member
            before, after = after, f"({members[-1]}"
            if after == before:
                return  # a member is no text: the pages behind it are out of reach

    async def _image(self, member: str) -> ImageRecord | None:
        return parse.image(member, await self._read({}, "HGETALL", f"image:{member}"))

    async def recall_image(self, repository: str, digest: str) -> ImageRecord | None:
        return await self._image(f"{repository} {digest}")

    async def newest_images(self, repository: str, most: int) -> Sequence[ImageRecord]:
        images: list[ImageRecord] = []
        # "!" comes after the space
        members = [member async for member in self._members(f"[{repository} ", f"({repository}!")]
        for start in range(0, len(members), _PAGE):
            page = await asyncio.gather(*map(self._image, members[start : start + _PAGE]))
            images += [image for image in page if image is not None and not image.deleted]
        return sorted(images, key=lambda image: (-image.made, image.digest))[:most]

    async def record_image(self, record: ImageRecord) -> None:
        member = f"{record.repository} {record.digest}"
        new = (str(record.made), record.revision, record.settings, str(record.due))
        await self._write(
            ("EVAL", _RECORD_IMAGE, 1, f"image:{member}", *new),
            ("ZREM", "deleted", member),
            ("ZADD", "images", 0, member),
        )

    async def retire_image(self, repository: str, digest: str, when: float) -> None:
        member = f"{repository} {digest}"
        await self._write(
            ("HSET", f"image:{member}", "deleted", str(when)),
            ("ZADD", "deleted", when, member),
            ("ZREM", "images", member),
        )
        for old in await self._read([], "ZRANGE", "deleted", 0, -MOST_DELETED - 1):
            await self._write(("ZREM", "deleted", old), ("DEL", f"image:{old}"))

    async def record_attached(self, repository: str, digest: str) -> None:
        await self._write(("HDEL", f"image:{repository} {digest}", "due"))

    async def record_pulls(self, pulls: Mapping[tuple[str, str], tuple[float, int]]) -> None:
        await self._write(
            *(
                ("EVAL", _PULLED, 1, f"image:{repository} {digest}", str(when), times)
                for (repository, digest), (when, times) in sorted(pulls.items())
            )
        )

    async def forget_image(self, repository: str, digest: str) -> None:
        member = f"{repository} {digest}"
        await self._write(("ZREM", "images", member), ("ZREM", "deleted", member), ("DEL", f"image:{member}"))

    async def recall_revision(self, package_set: str, reference: str) -> tuple[str, float] | None:
        value = await self._read(None, "HGET", "revisions", json.dumps([package_set, reference]))
        return parse.revision(value)

    async def record_revision(self, package_set: str, reference: str, revision: str, when: float) -> None:
        field, value = json.dumps([package_set, reference]), json.dumps([revision, when])
        await self._write(("HSET", "revisions", field, value))
        if await self._read(0, "HLEN", "revisions") > MOST_REVISIONS:
            values = await self._read({}, "HGETALL", "revisions")
            newest = sorted(values, key=lambda key: (parse.revision(values[key]) or ("", 0))[1], reverse=True)
            if old := newest[MOST_REVISIONS * 9 // 10 :]:  # a tenth at once, as this reads them all
                await self._write(("HDEL", "revisions", *old))

    async def recall_failure(self, key: str) -> Failure | None:
        value = await self._read(None, "GET", f"failure:{key}")
        return parse.record(Failure, *parse.words(value))

    async def record_failure(self, key: str, failure: Failure, seconds: float) -> None:
        if seconds > 0:
            value = json.dumps(astuple(failure))
            await self._write(("SET", f"failure:{key}", value, "PX", int(seconds * 1000) or 1))

    async def record_build(self, build: BuildRecord) -> bool:
        async def write() -> bool:
            await self._put(
                ("HSET", "board:record", build.id, json.dumps(asdict(build))),
                ("ZADD", "board", build.started, build.id),
            )
            if old := await self._ask("ZRANGE", "board", 0, -MOST_BUILDS - 1):
                await self._put(("HDEL", "board:record", *old), ("ZREM", "board", *old))
            return True

        return await self._border.read(write, False)

    async def builds(self, most: int) -> Sequence[BuildRecord]:
        ids = await self._read([], "ZREVRANGE", "board", 0, most - 1)
        values = await self._read([], "HMGET", "board:record", *ids) if ids else []
        builds = (parse.build(value) for value in values)
        return [build for build in builds if build is not None]

    async def end_builds(self, machine: str, when: float) -> None:
        for build in await self.builds(MOST_BUILDS):
            if build.machine == machine and not build.ended:
                await self.record_build(replace(build, ended=when, error=INTERRUPTED))

    async def take(self, key: str, holder: str, seconds: float) -> bool:
        # Without Redis every machine builds for itself: that costs time, and the digests are the same.
        return bool(await self._read(1, "EVAL", _TAKE, 1, f"lease:{key}", holder, int(seconds * 1000) or 1))

    async def release(self, key: str, holder: str) -> None:
        # A read, so that it happens now or never: a later release could end a new lease, and this lease ends by itself.
        await self._read(None, "EVAL", _RELEASE, 1, f"lease:{key}", holder)


@asynccontextmanager
async def open_state(url: str) -> AsyncIterator[RedisState]:
    """The state at this address. No answer (yet) is no error: see `outage`.

    Raises `SettingsInvalid` if `url` is no address, and if a newer nixfront wrote the records.
    """
    try:
        redis = Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="replace",  # what is no text is no record
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            health_check_interval=30,
            driver_info=None,  # else it reads the versions of packages on disk, on the event loop
            retry=Retry(NoBackoff(), 1),  # once, for an idle connection that Redis has closed
        )
    except ValueError as error:
        raise SettingsInvalid(f"state.url: {error}") from error
    try:
        state = RedisState(redis, without_credentials(url))
        try:
            await state.upgrade()
            yield state
        finally:
            await state.close()
    finally:
        await redis.aclose()


def _commands(record: TagRecord) -> tuple[tuple[str | int, ...], ...]:
    """The commands that write the record of a tag, and one of its image if there is none."""
    image = f"image:{record.repository} {record.digest}"
    return (
        ("HSETNX", image, "made", str(record.checked)),
        ("HSETNX", image, "pulled", "0"),
        ("ZADD", "images", 0, f"{record.repository} {record.digest}"),
        ("HSET", f"tags:{record.repository}", record.tag, json.dumps(astuple(record)[2:])),
    )
