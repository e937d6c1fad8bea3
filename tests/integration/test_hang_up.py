"""Clients that hang up, at many points of every way of an answer: a line with 499, and nothing is left of them.

containerd's parallel fetch and `crane validate` do this all day.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support import handmade
from tests.support.counts import plain_counts
from tests.support.front import PACKAGES
from tests.support.handmade import HandmadeImage
from tests.support.servers import FROM_CHECKOUT, Server, nixfront
from tests.support.wait import Gate, until

SIZE = 30_000_000  # bytes of a blob: far more than the sockets between us hold
#: The setting of `registry` for each way of a blob, and what its path ends with. A query takes every shorter way away.
WAYS = {
    "spliced": ({}, ""),
    "plain": ({}, "?x=1"),
    "shared disk": ({"storage": ""}, ""),
    "redirect": ({"public_url": "https://blobs.example"}, ""),
}
OFFSETS = (1, 1000, 100_000, 3_000_000)


@dataclass(frozen=True, slots=True)
class Held:
    """What nixfront has in use."""

    descriptors: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Host:
    """A nixfront, and the path of a large blob on one of its ways."""

    server: Server
    blob: str
    way: str

    async def held(self) -> Held:
        counts = await plain_counts(self.server.url)
        return Held(int(counts["process_open_fds"]), int(counts["nixfront_tasks"]))

    async def get(self, path: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.server.url + path, allow_redirects=False) as answer,
        ):
            await answer.read()
            return answer.status

    async def hang_up(self, head: bytes, after: int, *, abort: bool) -> None:
        """Send this, read so many bytes of what comes, and hang up."""
        reader, writer = await asyncio.open_connection(*self.server.host.split(":"))
        writer.write(head)
        with contextlib.suppress(asyncio.IncompleteReadError):  # the whole answer was shorter
            async with asyncio.timeout(60):
                await reader.readexactly(after)
        writer.transport.abort() if abort else writer.close()

    def lines(self, identity: str) -> list[str]:
        """What the log says of this request: the status of each line."""
        return re.findall(
            rf" request .* status=(\d+) .*request_id={identity}\b", self.server.process.log_text()
        )

    async def nothing_is_left(self, before: Held) -> None:
        async def as_before() -> bool:
            now = await self.held()
            return now.descriptors <= before.descriptors and now.tasks <= before.tasks

        await until(as_before)
        log = await asyncio.to_thread(self.server.process.log_text)
        assert "Traceback" not in log
        assert not re.findall(r"^\S+ (?:error|critical) .*", log, re.MULTILINE)
        assert "does not answer" not in log
        assert "broke off" not in log


def request(path: str, identity: str, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-Request-Id: {identity}\r\n{more}\r\n".encode()


@pytest.fixture(scope="module")
def large() -> HandmadeImage:
    """An image whose layer no codec makes smaller."""
    return handmade.image([random.Random(7).randbytes(SIZE)])


@pytest_asyncio.fixture(params=list(WAYS))
async def host(
    request: pytest.FixtureRequest, tmp_path: Path, registry: Server, large: HandmadeImage
) -> AsyncIterator[Host]:
    section, ending = WAYS[request.param]
    if "storage" in section:
        section = {"storage": str(tmp_path / "registry" / "data")}
    settings = {
        "registry": {"url": registry.url, **section},
        "nix": {"store": str(tmp_path / "store")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "log": {"requests": True},
    }
    await handmade.push(registry.url, "team/tool", "v1", large)
    async with nixfront(tmp_path, settings=settings, command=FROM_CHECKOUT) as server:
        blob = f"/v2/team/tool/blobs/{handmade.digest_of(large.layers[0])}"
        yield Host(server, blob + ending, request.param)


async def test_a_client_that_hangs_up_is_one_line_and_leaves_nothing(host: Host) -> None:
    manifest = "/v2/team/tool/manifests/v1"
    for path in (host.blob, host.blob, manifest):  # the file on the disk is known after the first
        assert await host.get(path) in (200, 307)
    before = await host.held()
    expected: dict[str, set[str]] = {}
    logged: list[str] = []

    async def hang_up(
        path: str, after: int, statuses: set[str], method: str = "GET", more: str = "", cut: int | None = None
    ) -> None:
        for abort in (True, False):
            identity = f"hangup{len(expected):04}"
            expected[identity] = statuses
            if statuses and (
                after or not abort
            ):  # of others a reset may come before anybody read the request
                logged.append(identity)
            await host.hang_up(request(path, identity, method, more)[:cut], after, abort=abort)

    whole = {"499", "200", "307"}  # what is short may be on its way before its client is gone
    for path in (host.blob, manifest):
        for cut in (1, 20, 70):
            await hang_up(path, 0, set(), cut=cut)  # a head without its end is no request
        for method in ("GET", "HEAD"):
            await hang_up(path, 0, whole, method)
            await hang_up(path, 12, whole, method)
    for after in OFFSETS if host.way != "redirect" else OFFSETS[:1]:  # that answer has no body
        statuses = whole if host.way == "redirect" else {"499"}
        await hang_up(host.blob, after, statuses)
        await hang_up(host.blob, after, statuses, more="Range: bytes=5-\r\n")
    await hang_up(host.blob, 1, {"206", "307", "499"}, more="Range: bytes=5-9\r\n")

    await host.nothing_is_left(before)

    async def all_logged() -> bool:
        return all([await asyncio.to_thread(host.lines, identity) for identity in logged])

    await until(all_logged)
    wrong = {
        identity: lines
        for identity, statuses in expected.items()
        if len(lines := host.lines(identity)) > 1 or not set(lines) <= statuses
    }
    assert wrong == {}


@pytest.mark.parametrize("host", ["spliced"], indirect=True)
async def test_clients_that_hang_up_during_a_build(host: Host, gate: Gate) -> None:
    path = "/v2/gated/manifests/latest"
    assert await host.get("/v2/hello/manifests/latest") == 200
    before = await host.held()
    first = asyncio.create_task(host.get(path))
    identities = [f"building{number:04}" for number in range(6)]
    for number, identity in enumerate(identities):
        _reader, writer = await asyncio.open_connection(*host.server.host.split(":"))
        writer.write(request(path, identity, "HEAD" if number % 2 else "GET"))
        await writer.drain()
        await asyncio.sleep(0.2 * number)  # at another moment of its way each time
        writer.transport.abort() if number % 3 == 0 else writer.close()

    async def all_logged() -> bool:
        return all(
            [
                await asyncio.to_thread(host.lines, identity)
                for number, identity in enumerate(identities)
                if number % 3
            ]
        )

    await until(all_logged)
    gate.open()
    assert await first == 200
    for number, identity in enumerate(identities):
        lines = await asyncio.to_thread(host.lines, identity)
        # After a reset, the request may be one that nobody has read.
        assert lines == ["499"] or (lines == [] and number % 3 == 0), identity
    await host.nothing_is_left(before)
    assert await host.get(path) == 200
