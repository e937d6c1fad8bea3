"""A moving tag of ours follows what it means; a tag that a person pushed is never touched."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.core.events import BuildEnded, BuildStarted, RefreshFailed
from tests.support import handmade, wait
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import Held, Rule, shim
from tests.support.wait import AT_THE_GATE, Gate, at_redirect

Start = Callable[..., AbstractAsyncContextManager[Front]]
PATH = "/v2/tool/manifests/latest"
TYPES = ", ".join(
    f"application/vnd.{kind}"
    for kind in ("docker.distribution.manifest.v2+json", "oci.image.manifest.v1+json")
)


class Set:
    """A folder that is a package set, whose one tool changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, version: str, script: str = "mkdir -p $out/bin; echo $version > $out/bin/tool") -> None:
        (self.folder / "default.nix").write_text(
            f"""{{ system }}: {{ tool = derivation {{
                inherit system; name = "tool-{version}"; version = "{version}"; builder = "/bin/sh";
                args = [ "-euc" ''{script}; chmod +x $out/bin/tool'' ]; PATH = "/usr/bin:/bin";
            }}; }}""",
            encoding="ascii",
        )


@pytest.fixture
def packages(tmp_path: Path) -> Set:
    made = Set(tmp_path / "set")
    made.write("1")
    return made


def settings(packages: Set, **more: object) -> dict[str, dict[str, object]]:
    return {
        "packages": {"path": str(packages.folder), "time_to_live": 0.2, **more},
        "answers": {"seconds": 0.1},
    }


async def digest(origin: str, tag: str = "latest") -> str | None:
    """What the registry itself says, or nixfront."""
    async with (
        aiohttp.ClientSession() as session,
        session.head(f"{origin}/v2/tool/manifests/{tag}", headers={"Accept": TYPES}) as answer,
    ):
        return answer.headers["Docker-Content-Digest"] if answer.status == 200 else None


async def until(front: Front, kind: type[BuildStarted] | type[BuildEnded], count: int) -> None:
    await wait.until(lambda: len(front.told(kind)) >= count)


async def old_and_stale(front: Front) -> str:
    """The digest of a first image, whose time to live is over."""
    await wait.until(lambda: digest(front.url))  # it may take longer than a HEAD is held
    await asyncio.sleep(0.3)
    (first,) = {event.digest for event in front.told(BuildEnded)}
    return first


async def test_the_old_image_at_once_and_the_new_one_behind_it(
    start: Start, registry: Server, packages: Set
) -> None:
    push = Held()
    second = Rule("PUT", r"/manifests/latest", push, nth=2)
    async with shim(registry.url, second) as relay, start(relay.url, **settings(packages)) as front:
        old = await old_and_stale(front)
        packages.write("2")

        assert await digest(front.url) == old, "the answer does not wait"
        await wait.until(lambda: relay.held)
        assert len(front.told(BuildEnded)) == 1
        push.go.set()
        await until(front, BuildEnded, 2)
        new = await digest(front.url)
        image = await front.pull("tool")

    assert new != old
    assert image.digest == new
    assert image.files["bin/tool"].target.endswith("tool-2/bin/tool")
    assert len(front.told(BuildStarted)) == 2, "one look, however many ask"


async def test_wait_answers_with_the_new_one(start: Start, registry: Server, packages: Set) -> None:
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        old = await old_and_stale(front)
        packages.write("2")

        answers = await asyncio.gather(*(digest(front.url) for _ in range(5)))
        assert len(set(answers)) == 1
        assert answers[0] not in (old, None)
        assert len(front.told(BuildStarted)) == 2


async def test_who_waits_for_the_new_one_is_sent_on_meanwhile(
    start: Start, registry: Server, packages: Set, gate: Gate
) -> None:
    patient = {"patience": 0.3, "hop_seconds": 0.3}
    async with start(registry.url, **settings(packages, refresh="wait"), builds=patient) as front:
        old = await old_and_stale(front)
        packages.write("2", f"{AT_THE_GATE}; mkdir -p $out/bin; echo $version > $out/bin/tool")

        head, _, _ = await front.get(PATH, "HEAD", headers={"Accept": TYPES})
        async with (
            aiohttp.ClientSession(trace_configs=[at_redirect(1, gate.open)]) as session,
            session.get(front.url + PATH, headers={"Accept": TYPES}) as answer,
        ):
            new, history = answer.headers["Docker-Content-Digest"], answer.history
        assert len(front.told(BuildStarted)) == 2

    assert head == 405
    assert {hop.status for hop in history} == {307}
    assert new != old


async def test_who_waits_longer_than_anybody_gets_the_old_one(
    start: Start, registry: Server, packages: Set, gate: Gate
) -> None:
    hurried = {"hops": 0, "hold_seconds": 0.3}
    async with start(registry.url, **settings(packages, refresh="wait"), builds=hurried) as front:
        old = await old_and_stale(front)
        packages.write("2", f"{AT_THE_GATE}; mkdir -p $out/bin; echo $version > $out/bin/tool")

        assert await digest(front.url) == old
        gate.open()
        await until(front, BuildEnded, 2)
        assert await digest(front.url) not in (old, None)


async def test_never_leaves_it(start: Start, registry: Server, packages: Set) -> None:
    async with start(registry.url, **settings(packages, refresh="never")) as front:
        old = await old_and_stale(front)
        packages.write("2")

        assert await digest(front.url) == old
        await asyncio.sleep(0.5)
        assert await digest(front.url) == old
        assert len(front.told(BuildStarted)) == 1


async def test_what_did_not_change_is_not_built(start: Start, registry: Server, packages: Set) -> None:
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        old = await old_and_stale(front)
        evaluated = front.nix_starts("nix-instantiate")
        looked = await digest(front.url)
        after = front.nix_starts("nix-instantiate")

    assert looked == old
    assert len(front.told(BuildStarted)) == 1
    assert after == evaluated + 1, (
        "the folder is fetched anew, to see that it is the same; nothing is evaluated"
    )


async def test_a_refresh_that_fails_keeps_the_old_image_and_says_so(
    start: Start, registry: Server, packages: Set
) -> None:
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        old = await old_and_stale(front)
        packages.write("2", script="echo it went wrong >&2; exit 1")

        assert await digest(front.url) == old
        (failed,) = front.told(RefreshFailed)
        counted = (await front.get("/metrics"))[2].decode()
        packages.write("3")
        await asyncio.sleep(0.3)
        new = await digest(front.url)

    assert (failed.repository, failed.tag) == ("tool", "latest")
    assert "it went wrong" in failed.error
    assert "nixfront_refreshes_failed_total 1.0" in counted
    assert new not in (old, None), "and the next one that works is taken"


async def test_a_tag_that_a_person_pushed_stays(start: Start, registry: Server, packages: Set) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        await old_and_stale(front)
        pushed = await handmade.push(front.url, "tool", "latest", made)
        packages.write("2")

        for _ in range(3):
            assert await digest(front.url) == pushed
            await asyncio.sleep(0.3)
        assert len(front.told(BuildStarted)) == 1


async def test_a_tag_that_a_person_set_back_to_an_older_image_of_ours_stays(
    start: Start, registry: Server, packages: Set
) -> None:
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        old = await old_and_stale(front)
        packages.write("2")
        assert await digest(front.url) != old
        async with aiohttp.ClientSession() as session:
            async with session.get(
                f"{registry.url}/v2/tool/manifests/{old}", headers={"Accept": TYPES}
            ) as answer:
                manifest, kind = await answer.read(), answer.headers["Content-Type"]
            async with session.put(registry.url + PATH, data=manifest, headers={"Content-Type": kind}) as put:
                assert put.status == 201
        packages.write("3")

        for _ in range(3):
            await asyncio.sleep(0.3)
            assert await digest(front.url) == old, "our image, and not our doing"
        assert len(front.told(BuildStarted)) == 2


async def test_a_push_in_the_middle_of_a_refresh_wins(
    start: Start, registry: Server, packages: Set, gate: Gate
) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    async with start(registry.url, **settings(packages)) as front:
        old = await old_and_stale(front)
        packages.write("2", script=f"{AT_THE_GATE}; mkdir -p $out/bin; echo 2 > $out/bin/tool")
        assert await digest(front.url) == old
        await until(front, BuildStarted, 2)
        pushed = await handmade.push(registry.url, "tool", "latest", made)
        gate.open()
        await until(front, BuildEnded, 2)

        assert await digest(registry.url) == pushed


async def test_pinned_tags_do_not_move(start: Start, registry: Server, packages: Set) -> None:
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        old = await old_and_stale(front)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{front.url}/v2/tool/tags/list") as answer,
        ):
            pinned = [tag for tag in (await answer.json())["tags"] if tag not in ("latest", "1")]
        packages.write("2")

        for tag in pinned:
            assert await digest(front.url, tag) == old
        assert len(pinned) == 2
        assert len(front.told(BuildStarted)) == 1
        assert await digest(front.url) != old
        for tag in pinned:
            assert await digest(front.url, tag) == old


async def test_what_the_last_one_knew_outlives_it(start: Start, registry: Server, packages: Set) -> None:
    async with start(registry.url, **settings(packages)) as front:
        old = await old_and_stale(front)
    packages.write("2")
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        assert await digest(front.url) not in (old, None)


async def test_a_version_is_served_and_put_beside_latest(
    start: Start, registry: Server, packages: Set
) -> None:
    packages.write("2.39.5")
    async with start(registry.url, **settings(packages)) as front:
        image = await front.pull("tool")
        version = await digest(registry.url, "2.39.5")
        status, _, body = await front.get("/v2/tool/manifests/2.40")
        other = await front.pull("tool/tool", "2.39.5")

    labels: Any = image.config["config"]["Labels"]  # type: ignore[index]
    assert labels["org.opencontainers.image.version"] == "2.39.5"
    assert version == image.digest
    assert other.config["config"] == image.config["config"]
    assert status == 404
    assert b"tool has the version 2.39.5 at latest" in body


async def test_a_version_moves_while_it_stays_and_is_left_alone_after(
    start: Start, registry: Server, packages: Set
) -> None:
    packages.write("1.0")
    async with start(registry.url, **settings(packages, refresh="wait")) as front:
        first = (await front.pull("tool")).digest
        packages.write("1.0", "mkdir -p $out/bin; echo again $version > $out/bin/tool")
        await asyncio.sleep(0.3)
        moved = await digest(front.url, "1.0")
        await asyncio.sleep(0.3)
        assert await digest(front.url) == moved, "the same image, whichever tag moves first"
        packages.write("1.1")
        await asyncio.sleep(0.3)
        assert await digest(front.url, "1.0") == moved
        latest = await digest(front.url)
        assert await digest(registry.url, "1.1") == latest
        assert await digest(registry.url, "1.0") == moved

    assert moved not in (None, first)
    assert latest not in (None, moved)


async def test_a_version_that_a_person_pushed_stays(start: Start, registry: Server, packages: Set) -> None:
    packages.write("1.0")
    async with start(registry.url, **settings(packages)) as front:
        own = await handmade.push(
            registry.url,
            "tool",
            "1.0",
            handmade.image([handmade.tar(entries) for entries in handmade.store_layers()]),
        )
        image = await front.pull("tool")

        assert await digest(registry.url, "1.0") == own != image.digest
