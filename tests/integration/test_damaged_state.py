"""Records that somebody else wrote, or that a power failure cut: they are lost records, and nothing fails by them."""

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.core.model import Layer, LayerPlan
from proxy.state import BuildRecord, Failure, State, TagRecord, layer_key
from proxy.state import redis as state_redis
from proxy.state.sqlite import open_state
from tests.support.processes import free_port
from tests.support.servers import redis

PLAN = LayerPlan(("/nix/store/a",))
LAYER = Layer("sha256:aa", 1, "sha256:bb")
KEY = layer_key(PLAN, "tar1")
TAG = TagRecord("shell/git", "latest", "sha256:cc", "key", 100.5)
IMAGE = f"{TAG.repository} {TAG.digest}"
BUILD = BuildRecord("id", "git", "latest", "one", 1.0)
#: Every key that the state has after `fill`, with the field of a hash that holds a record.
KEYS = {
    f"layer:{KEY}": "size",
    f"blob:{LAYER.digest}": "",
    f"tags:{TAG.repository}": TAG.tag,
    "images": "",
    f"image:{IMAGE}": "made",
    "revisions": '["", "latest"]',
    "board": "",
    "board:record": "id",
    "failure:f": "",
    "lease:l": "",
    "schema": "",
}
VALUES = (
    b"", b"{", b"null", b"[]", b"{}", b"7", b"[7, 7, 7]", b'"text"', b"nan", b"[NaN, NaN]", b"\xff\xfe\x00",
    b'["sha256:cc", "key", "soon"]', b"[" * 60_000, b"x" * 1_000_000, b'{"id": 7}', b"1e999",
)  # fmt: skip


async def fill(state: State) -> None:
    await state.record(KEY, PLAN, LAYER, "git")
    await state.record_tag(TAG)
    await state.record_pulls({(TAG.repository, TAG.digest): (5.0, 0)})
    await state.record_revision("", "latest", "0123", 10.5)
    await state.record_failure("f", Failure("PackageUnknown", "no"), 60)
    await state.record_build(BUILD)
    await state.take("l", "one", 60)


async def read(state: State) -> list[object]:
    return [
        await state.recall([KEY], "git"),
        await state.recall_tag(TAG.repository, TAG.tag),
        await state.tags(TAG.repository),
        [image async for image in state.images()],
        await state.recall_revision("", "latest"),
        await state.recall_failure("f"),
        list(await state.builds(10)),
        await state.take("l", "one", 60),
    ]


@pytest.mark.parametrize("key", KEYS)
async def test_no_method_fails_by_a_record_that_is_none(
    tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    async with redis(tmp_path, port), state_redis.open_state(url) as state:
        command: Callable[..., Awaitable[Any]] = state._redis.execute_command
        await fill(state)
        whole = await read(state)
        full = f"nixfront:{key}"
        damages: list[tuple[object, ...]] = [
            ("SADD", full, "a"),
            ("RPUSH", full, "a"),
            ("XADD", full, "*", "a", "b"),
        ]
        damages += [("SET", full, value) for value in VALUES]
        damages += [("ZADD", full, "7", value) for value in VALUES[1:]]
        damages += [("HSET", full, KEYS[key] or "field", value) for value in VALUES]
        if key == "schema":  # a number says that a newer nixfront wrote the records
            damages = [damage for damage in damages if damage[-1] not in (b"7", b"1e999")]
        for damage in damages:
            await command("DEL", full)
            await command(*damage)
            async with asyncio.timeout(20):
                async with state_redis.open_state(url) as again:
                    await read(again)
                    await again.check()
                    await again.end_builds("one", 2.0)
                await fill(state)
                await command("DEL", "nixfront:board", "nixfront:board:record")
                if damage[0] == "ZADD" or key.startswith("image"):
                    await command("FLUSHALL")  # members of ours, and times, stay
                await fill(state)
                assert await read(state) == whole, damage[:3]
    assert "state gone" not in caplog.text


async def test_a_copy_of_any_moment_opens_again(tmp_path: Path) -> None:
    """The log, the file, or both are cut or zeroed at random, as by a power failure without a flush."""
    chosen = random.Random(20261129)
    live = tmp_path / "state.sqlite"
    copies = []
    async with open_state(live) as state:
        for number in range(60):
            await state.record_tag(TagRecord("a", f"v{number}", f"sha256:{number}", "key" * 99, 1.0))
            if number % 3 == 0:
                folder = tmp_path / str(number)
                await asyncio.to_thread(folder.mkdir)
                for file in (live, Path(f"{live}-wal"), Path(f"{live}-shm")):
                    await asyncio.to_thread(shutil.copy, file, folder)
                copies.append(folder)
    for folder in copies * 3:
        for file in folder.glob("state.sqlite*"):
            damage(file, chosen)
        async with open_state(folder / "state.sqlite") as state:
            for tag in await state.tags("a"):
                assert tag.digest == f"sha256:{tag.tag[1:]}", "no record says what was never written"
            await state.record_tag(TAG)
            assert await state.recall_tag(TAG.repository, TAG.tag) == TAG
            await state.check()


def damage(file: Path, chosen: random.Random) -> None:
    data = bytearray(file.read_bytes())
    at = chosen.randrange(len(data) + 1)
    match chosen.randrange(4):
        case 0:
            del data[at:]
        case 1:
            data[at : at + 4096] = bytes(len(data[at : at + 4096]))
        case 2:
            page = at // 4096 * 4096
            data[page : page + 4096] = data[:4096]
        case _:
            pass  # as it was copied
    file.write_bytes(data)
