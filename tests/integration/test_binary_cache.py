"""A second machine, whose store is empty, builds nothing: it fetches what the first one copied to the binary cache."""

import asyncio
import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import pytest
from typing_extensions import override

from proxy.core.events import LogLine
from proxy.tools.process import run
from tests.support.front import Front, machine
from tests.support.wait import until

Start = Callable[..., AbstractAsyncContextManager[Front]]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of this folder, by HTTP."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def built(machine: Front) -> list[str]:
    return [event.line for event in machine.told(LogLine) if event.line.startswith("building '")]


async def copied(caplog: pytest.LogCaptureFixture, times: int = 1) -> None:
    await until(lambda: caplog.text.count("copied to the binary cache paths=") >= times)


@pytest.mark.parametrize("scheme", ["file", "http"])
async def test_a_second_machine_builds_nothing(
    tmp_path: Path, nix_count: Path, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    caplog.set_level("INFO")
    cache, key, public = tmp_path / "cache", tmp_path / "key", tmp_path / "key.pub"
    await run(("nix-store", "--generate-binary-cache-key", "test-1", str(key), str(public)), deadline=60)
    trusted = (public.read_text(encoding="ascii"),)

    async with machine(tmp_path / "one", nix_count, copy_to=f"file://{cache}?secret-key={key}") as first:
        image = await first.pull("shell/beta")
        assert built(first), "somebody has to"
        await copied(caplog)
    with served(cache) as url:
        where = f"file://{cache}" if scheme == "file" else url
        async with machine(tmp_path / "two", nix_count, substituters=(where,), public_keys=trusted) as second:
            again = await second.pull("shell/beta")
            assert built(second) == []
        async with machine(tmp_path / "three", nix_count, substituters=(where,)) as third:
            await third.pull("hello")
            assert built(third), "what nobody signed whom we trust is not taken"

    assert (again, again.documents) == (image, image.documents)


async def test_a_cache_that_cannot_be_written_holds_up_nobody(
    tmp_path: Path, nix_count: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no-folder").write_text("in the way")
    async with machine(tmp_path / "one", nix_count, copy_to=f"file://{tmp_path}/no-folder/cache") as first:
        await first.pull("hello")
        await until(lambda: "not copied to the binary cache: error" in caplog.text)
        roots = tmp_path / "one" / "data" / "gcroots"
        await until(lambda: not [*roots.iterdir()])


async def test_another_store_builds_for_this_one(
    tmp_path: Path, nix_count: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remote builder, as far as Nix is concerned: what this machine may not build itself is built there."""
    other = tmp_path / "builder"
    monkeypatch.setenv(
        "NIX_CONFIG",
        "substituters =\nsandbox = true\nmax-jobs = 0\nextra-sandbox-paths = /bin /usr /lib /lib64\n",
    )
    async with machine(
        tmp_path / "one", nix_count, builders=f"{other} x86_64-linux,aarch64-linux - 4 1"
    ) as first:
        await first.pull("hello")

    there = await asyncio.to_thread(lambda: [*(other / "nix" / "store").glob("*-hello-1.0")])
    assert there, "it was built in the other store"
