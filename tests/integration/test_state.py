"""One contract for every state: in memory, in a real SQLite file, in a real Redis; then what concerns Redis alone."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from proxy import state
from proxy.core.errors import SettingsInvalid, StateUnavailable
from proxy.core.model import Layer, LayerPlan
from proxy.state import BuildRecord, Failure, ImageRecord, State, TagRecord, layer_key, memory, outage, sqlite
from proxy.state import redis as state_redis
from proxy.state.memory import MemoryState
from tests.support.processes import free_port
from tests.support.servers import redis
from tests.support.wait import until

PLAN = LayerPlan(("/nix/store/a", "/nix/store/b"))
LAYER = Layer("sha256:aa", 123, "sha256:bb")
KEY = layer_key(PLAN, "tar1")
TAG = TagRecord("shell/git", "latest", "sha256:cc", "key", 100.5)


class Opener:
    """Opens one and the same state again and again."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self.memory: State = MemoryState()

    def __call__(self) -> AbstractAsyncContextManager[State]:
        if self.kind == "memory":
            return contextlib.nullcontext(self.memory)
        if self.kind == "sqlite":
            return sqlite.open_state(self.folder / "state.sqlite")
        return state_redis.open_state(f"redis://127.0.0.1:{self.port}/1")


@pytest_asyncio.fixture(params=["memory", "sqlite", "redis"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    opener = Opener(request.param, tmp_path)
    async with AsyncExitStack() as stack:
        if request.param == "redis":
            await stack.enter_async_context(redis(tmp_path / "redis", opener.port))
        yield opener


async def test_layers(opened: Opener) -> None:
    other = Layer("sha256:cc", 456, "sha256:dd")
    async with opened() as known:
        assert await known.recall([KEY], "git") == {}
        await known.record(KEY, PLAN, LAYER, "z")
        for repository in ("c", "a", "d", "b", "a"):
            await known.seen(repository, LAYER.digest)

        assert await known.recall([KEY], "git") == {KEY: (LAYER, ("a", "b", "c"))}, "a few, in a fixed order"
        assert await known.recall([KEY], "z") == {KEY: (LAYER, ("z", "a", "b", "c"))}, "its own first"
        assert await known.recall([layer_key(PLAN, "tar2")], "git") == {}

        for repository in ("a", "b", "c", "d", "never"):
            await known.forget(LAYER.digest, repository)
    async with opened() as known:
        assert await known.recall([KEY], "git") == {KEY: (LAYER, ("z",))}, "records outlive the program"
        await known.forget(LAYER.digest, "z")
        assert await known.recall([KEY], "git") == {KEY: (LAYER, ())}, "the layer stays"

        await known.record(KEY, PLAN, other, "git")
        assert await known.recall([KEY], "git") == {KEY: (other, ("git",))}, (
            "a later record takes an earlier one's place"
        )


async def test_many_layers_at_once_are_all_kept(opened: Opener) -> None:
    plans = [LayerPlan((f"/nix/store/{number}",)) for number in range(50)]
    layers = [Layer(f"sha256:{number}", number, f"sha256:{number}") for number in range(50)]
    keys = [layer_key(plan, "tar1") for plan in plans]
    async with opened() as known:
        await asyncio.gather(
            *(
                known.record(key, plan, layer, "git")
                for key, plan, layer in zip(keys, plans, layers, strict=True)
            )
        )
        recalled = await known.recall([*keys, KEY], "git")

    assert recalled == {key: (layer, ("git",)) for key, layer in zip(keys, layers, strict=True)}


async def test_how_an_image_is_made_outlives_the_image(opened: Opener) -> None:
    one, two = (
        ImageRecord("git", f"sha256:{name}", made, revision="r1", settings="{}")
        for name, made in (("a", 1.0), ("b", 2.0))
    )
    async with opened() as known:
        await known.record_image(one)
        await known.record_image(two)
        await known.record_tag(TagRecord("git", "latest", "sha256:a", "key", 9.0))
        await known.record_image(ImageRecord("gita", "sha256:a", 3.0))
        await known.record_image(replace(one, made=5.0, settings="new"))
        await known.record_image(replace(two, made=5.0, revision="", settings=""))
        await known.record_pulls({("git", "sha256:a"): (7.0, 3)})
    async with opened() as known:
        kept = ImageRecord("git", "sha256:a", 1.0, 7.0, "r1", "new", pulls=3)
        assert await known.recall_image("git", "sha256:a") == kept
        assert await known.recall_image("git", "sha256:b") == two, (
            "nothing takes the place of what was recorded"
        )
        assert await known.recall_image("git", "sha256:c") is None
        assert list(await known.newest_images("git", 9)) == [two, kept]
        assert list(await known.newest_images("git", 1)) == [two]

        await known.retire_image("git", "sha256:a", 50.0)
        await known.retire_image("git", "sha256:none", 50.0)
        assert await known.recall_image("git", "sha256:a") == replace(kept, deleted=50.0)
        assert await known.recall_image("git", "sha256:none") is None
        assert list(await known.newest_images("git", 9)) == [two]
        assert [image.digest async for image in known.images()] == ["sha256:b", "sha256:a"], "the others"

        await known.record_tag(TagRecord("git", "again", "sha256:a", "key", 55.0))
        assert list(await known.newest_images("git", 9)) == [two], "a tag's record alone brings no image back"
        assert len([image async for image in known.images()]) == 2

        await known.record_image(ImageRecord("git", "sha256:a", 60.0))
        assert await known.recall_image("git", "sha256:a") == replace(kept, made=60.0)
        assert len([image async for image in known.images()]) == 3

        await known.retire_image("git", "sha256:a", 70.0)
        await known.forget_image("git", "sha256:a")
        assert await known.recall_image("git", "sha256:a") is None


async def test_documents_are_due_until_they_are_attached(opened: Opener) -> None:
    image = ImageRecord("git", "sha256:a", 1.0, revision="r1", settings="{}", due=2.0)
    async with opened() as known:
        await known.record_image(image)
        await known.record_image(replace(image, made=3.0, due=0.0))  # as `reindex` does
    async with opened() as known:
        assert await known.recall_image("git", "sha256:a") == image
        await known.record_attached("git", "sha256:a")
        await known.record_attached("git", "sha256:none")
    async with opened() as known:
        assert await known.recall_image("git", "sha256:a") == replace(image, due=0.0)
        assert await known.recall_image("git", "sha256:none") is None
        await known.record_image(replace(image, due=0.0))
        assert await known.recall_image("git", "sha256:a") == replace(image, due=0.0), "the mark stays"
        await known.record_image(replace(image, due=4.0))
        assert [each.due for each in await known.newest_images("git", 9)] == [4.0]


async def test_the_newest_images_are_those_of_the_whole_repository(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read a page at a time, by name."""
    for module in (sqlite, state_redis):
        monkeypatch.setattr(module, "_PAGE", 3)
    images = [ImageRecord("git", f"sha256:{number}", float(number)) for number in range(8)]
    async with opened() as known:
        for image in images:
            await known.record_image(image)
        assert list(await known.newest_images("git", 2)) == [images[7], images[6]]
        assert len(await known.newest_images("git", 9)) == len(images)


async def test_records_of_deleted_images_are_bounded(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, sqlite, state_redis):
        monkeypatch.setattr(module, "MOST_DELETED", 2)
    async with opened() as known:
        for number in range(4):
            await known.record_image(ImageRecord("git", f"sha256:{number}", 1.0))
        for number in range(4):
            await known.retire_image("git", f"sha256:{number}", 10.0 + number)

        left = [number for number in range(4) if await known.recall_image("git", f"sha256:{number}")]
        assert left == [2, 3]


async def test_tags_and_images(opened: Opener) -> None:
    newer = TagRecord("shell/git", "latest", "sha256:dd", "key2", 200.0, moving=True, replaced="sha256:cc")
    pinned = TagRecord("shell/git", "0123", "sha256:cc", "key", 100.5)
    before = TagRecord("shell", "latest", "sha256:ee", "key3", 50.0)
    async with opened() as known:
        assert await known.recall_tag("shell/git", "latest") is None
        for record in (TAG, pinned, newer, before):
            await known.record_tag(record)

        assert await known.recall_tag("shell/git", "latest") == newer
        assert await known.recall_tag("shell", "latest") == before
        assert await known.tags("shell/git") == (pinned, newer)
        assert await known.tags("nothing") == ()

        await known.record_pulls(
            {
                ("shell/git", "sha256:cc"): (300.0, 2),
                ("shell/git", "sha256:00"): (300.0, 1),
                ("shell", "sha256:cc"): (1.0, 1),
            }
        )
        await known.record_pulls({("shell/git", "sha256:cc"): (250.0, 5)})
        await known.record_pulls({})
    async with opened() as known:
        assert [image async for image in known.images()] == [
            ImageRecord("shell", "sha256:ee", 50.0),
            ImageRecord("shell/git", "sha256:cc", 100.5, 300.0, pulls=7),
            ImageRecord("shell/git", "sha256:dd", 200.0),
        ], "what is not ours was passed over, and no pull is ever unmade"

        await known.forget_tag("shell/git", "latest")
        await known.forget_image("shell/git", "sha256:dd")
        assert await known.recall_tag("shell/git", "latest") is None
        assert [image.digest async for image in known.images()] == ["sha256:ee", "sha256:cc"]


async def test_a_tag_that_is_put_again_keeps_what_is_known_of_its_image(opened: Opener) -> None:
    async with opened() as known:
        await known.record_tag(TAG)
        await known.record_pulls({(TAG.repository, TAG.digest): (150.0, 1)})
        await known.record_tag(TagRecord(TAG.repository, TAG.tag, TAG.digest, TAG.key, 900.0))

        assert [image async for image in known.images()] == [
            ImageRecord(TAG.repository, TAG.digest, 100.5, 150.0, pulls=1)
        ]


async def test_the_tags_of_an_image_are_recorded_together(opened: Opener) -> None:
    first, second, third = (
        TagRecord("git", tag, digest, "key", made)
        for tag, digest, made in (("a", "sha256:1", 1.0), ("b", "sha256:1", 2.0), ("c", "sha256:2", 3.0))
    )
    async with opened() as known:
        await known.record_tag()
        await known.record_tag(first, second, third)
    async with opened() as known:
        assert await known.tags("git") == (first, second, third)
        assert [image async for image in known.images()] == [
            ImageRecord("git", "sha256:1", 1.0),
            ImageRecord("git", "sha256:2", 3.0),
        ]


@pytest.mark.parametrize("separator", ["-", ".", "_", "/", "0"])
async def test_images_are_listed_page_by_page_in_one_order(opened: Opener, separator: str) -> None:
    names = sorted({"a", *(f"a{separator}{number:03}" for number in range(40))})
    async with opened() as known:
        await asyncio.gather(
            *(known.record_tag(TagRecord(name, "latest", "sha256:cc", "", 1.0)) for name in reversed(names))
        )
        assert [image.repository async for image in known.images()] == names


async def test_more_images_than_a_page(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite, state_redis):
        monkeypatch.setattr(module, "_PAGE", 7)
    async with opened() as known:
        for number in range(21):
            await known.record_tag(TagRecord("a", "latest", f"sha256:{number:02}", "", 1.0))
        assert [image.digest async for image in known.images()] == [
            f"sha256:{number:02}" for number in range(21)
        ]


async def test_revisions(opened: Opener) -> None:
    async with opened() as known:
        assert await known.recall_revision("", "latest") is None
        await known.record_revision("", "latest", "0123", 10.5)
        await known.record_revision("team", "latest", "4567", 20.0)
        await known.record_revision("", "latest", "89ab", 30.0)
    async with opened() as known:
        assert await known.recall_revision("", "latest") == ("89ab", 30.0)
        assert await known.recall_revision("team", "latest") == ("4567", 20.0)


async def test_revisions_have_a_bound(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, sqlite, state_redis):
        monkeypatch.setattr(module, "MOST_REVISIONS", 10)
    async with opened() as known:
        for number in range(30):
            await known.record_revision("", f"branch{number}", "0123", float(number))
        names = [name for name in range(30) if await known.recall_revision("", f"branch{name}")]

    assert names[-1] == 29
    assert 9 <= len(names) <= 10


async def test_failures_are_forgotten_after_a_while(opened: Opener) -> None:
    failure = Failure("PackageUnknown", "no package helo, did you mean hello?")
    async with opened() as known:
        await known.record_failure("long", failure, 60)
        await known.record_failure("short", failure, 0.05)
        await known.record_failure("never", failure, 0)
        assert await known.recall_failure("long") == failure
        assert await known.recall_failure("never") is None

        async def forgotten() -> bool:
            return not await known.recall_failure("short")

        await until(forgotten)
        assert await known.recall_failure("long") == failure


async def test_builds(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_BUILDS", 3)
    monkeypatch.setattr(sqlite, "MOST_BUILDS", 3)
    monkeypatch.setattr(state_redis, "MOST_BUILDS", 3)
    running = [
        BuildRecord(f"id{number}", "git", f"v{number}", "one", started=float(number)) for number in range(4)
    ]
    done = BuildRecord("id2", "git", "v2", "one", started=2.0, ended=5.0, digest="sha256:cc")
    elsewhere = BuildRecord("id9", "git", "v9", "two", started=9.0)
    async with opened() as known:
        assert list(await known.builds(10)) == []
        for build in (*running, done):
            await known.record_build(build)
        assert list(await known.builds(10)) == [running[3], done, running[1]], (
            "newest first, no more than these"
        )
        assert list(await known.builds(1)) == [running[3]]

        await known.record_build(elsewhere)
        await known.end_builds("one", 7.0)
    async with opened() as known:
        interrupted = BuildRecord("id3", "git", "v3", "one", 3.0, ended=7.0, error=state.INTERRUPTED)
        assert list(await known.builds(10)) == [elsewhere, interrupted, done]


async def test_a_lease_is_one_holders(opened: Opener) -> None:
    async with opened() as known:
        assert await known.take("key", "one", 60)
        assert not await known.take("key", "two", 60)
        assert await known.take("other", "two", 60)
        assert await known.take("key", "one", 60), "its holder prolongs it"

        await known.release("key", "two")
        assert not await known.take("key", "two", 60), "nobody else can end it"
        await known.release("key", "one")
        await known.release("key", "one")
        assert await known.take("key", "two", 60)


async def test_a_lease_that_is_not_prolonged_ends(opened: Opener) -> None:
    async with opened() as known:
        assert await known.take("key", "one", 0.05)
        await until(lambda: known.take("key", "two", 60))
        assert not await known.take("key", "one", 60)


async def test_it_answers(opened: Opener) -> None:
    async with opened() as known:
        await known.check()


async def test_redis_may_come_later_and_go_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outage, "_PAUSE", 0.02)
    port = free_port()
    async with state_redis.open_state(f"redis://:secret-word@127.0.0.1:{port}/0") as known:
        assert await known.recall([KEY], "git") == {}
        assert await known.take("key", "one", 60), "everybody builds"
        assert [image async for image in known.images()] == []
        with pytest.raises(StateUnavailable, match="does not answer"):
            await known.check()
        await known.record(KEY, PLAN, LAYER, "git")
        await known.record_tag(TAG)

    async with state_redis.open_state(f"redis://127.0.0.1:{port}/0") as known:
        await known.record(KEY, PLAN, LAYER, "git")
        await known.record_tag(TAG)
        async with redis(tmp_path, port) as server:
            await back(known)
            assert await known.recall([KEY], "git") == {KEY: (LAYER, ("git",))}, (
                "what was written before it came is there"
            )
            assert await known.recall_tag(TAG.repository, TAG.tag) == TAG

            os.kill(server.process.pid, signal.SIGKILL)
            await known.seen("beta", LAYER.digest)
            assert await known.recall([KEY], "git") == {}
        async with redis(tmp_path, port):
            await back(known)
            await known.check()
            await known.record(KEY, PLAN, LAYER, "git")
            assert await known.recall([KEY], "git") == {KEY: (LAYER, ("git", "beta"))}, (
                "nothing that was told is lost"
            )

    assert "secret-word" not in caplog.text


async def test_a_caller_that_is_cancelled_leaves_whatever_redis_does(tmp_path: Path) -> None:
    """redis-py may lose a cancellation where Redis stands still: a build then waited for ever for its lease's prolongation."""
    port, chosen = free_port(), random.Random(4)

    async def prolong(known: state_redis.RedisState) -> None:
        while True:
            await asyncio.sleep(chosen.random() / 100)
            await known.take("a", "me", 3.0)

    async def stand_still(pid: int) -> None:
        while True:
            await asyncio.sleep(chosen.uniform(0.05, 0.5))
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(chosen.choice((0.1, 0.1, 2.5)))
            os.kill(pid, signal.SIGCONT)

    async with (
        redis(tmp_path, port) as server,
        state_redis.open_state(f"redis://127.0.0.1:{port}/0") as known,
    ):
        weather = asyncio.create_task(stand_still(server.process.pid))
        try:
            for _ in range(30):
                tasks = [asyncio.create_task(prolong(known)) for _ in range(20)]
                await asyncio.sleep(chosen.uniform(0, 0.3))
                for task in tasks:
                    task.cancel()
                done, _ = await asyncio.wait(tasks, timeout=60)
                assert done == set(tasks)
        finally:
            weather.cancel()
            os.kill(server.process.pid, signal.SIGCONT)


async def test_a_record_that_redis_gets_late_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is put again while Redis stands still, so nobody can look what its record says."""
    monkeypatch.setattr(outage, "_PAUSE", 0.02)
    monkeypatch.setattr(state_redis, "_PATIENCE", 0.2)
    port, old = free_port(), ImageRecord("git", "sha256:a", 1.0, revision="r1", settings="{}")
    async with (
        redis(tmp_path, port) as server,
        state_redis.open_state(f"redis://127.0.0.1:{port}/0") as known,
    ):
        await known.record_image(old)
        await known.record_pulls({("git", "sha256:a"): (7.0, 2)})
        await back(known)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            await known.record_image(ImageRecord("git", "sha256:a", 9.0, settings="new"))
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        await back(known)
        await until(lambda: known.recall_image("git", "sha256:a"))
        assert await known.recall_image("git", "sha256:a") == replace(
            old, pulled=7.0, settings="new", pulls=2
        )


async def back(known: state_redis.RedisState) -> None:
    await until(lambda: known._border._looking is None)


async def test_what_a_newer_nixfront_wrote_is_left_alone(tmp_path: Path) -> None:
    port = free_port()
    async with redis(tmp_path, port):
        async with state_redis.open_state(f"redis://127.0.0.1:{port}") as known:
            await known._ask("SET", "schema", 99)
        with pytest.raises(SettingsInvalid, match="schema 99, this one knows 1"):
            async with state_redis.open_state(f"redis://127.0.0.1:{port}"):
                pass


async def test_an_address_that_is_none() -> None:
    with pytest.raises(SettingsInvalid, match=r"state\.url"):
        async with state_redis.open_state("http://127.0.0.1"):
            pass
