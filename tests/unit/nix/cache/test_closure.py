"""The requests that binary caches get: once, with their own login, on their own host, and no longer than they answer."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from proxy.core.errors import CacheUnusable
from proxy.nix.cache.access import Cache, Source, cache_session
from proxy.nix.cache.closure import BinaryCaches
from proxy.nix.cache.files import CacheFiles
from proxy.nix.cache.tree_cache import TreeCache
from tests.support.nars import PUBLIC, HandmadeCache, store_path

OUTPUT = store_path("program-1")


class Nix:
    """What Nix prints of its settings, and how often it was run."""

    def __init__(self, **settings: object) -> None:
        self.settings: object = {name.replace("_", "-"): {"value": value} for name, value in settings.items()}
        self.runs = 0

    async def run(self, argv: tuple[str, ...], deadline: float, **options: bool) -> bytes:
        self.runs += 1
        await asyncio.sleep(0)
        return json.dumps(self.settings).encode()


class Server:
    """A cache by HTTP, and the requests to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = URL()
        self.elsewhere: str | None = None
        self.status = 200
        self.requests: list[tuple[str, str | None]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, request.headers.get("Authorization")))
        if self.elsewhere is not None and request.path.startswith("/nar/"):
            return web.Response(status=302, headers={"Location": self.elsewhere})
        file = self.folder / request.path.lstrip("/")
        if self.status != 200:
            return web.Response(status=self.status)
        return web.FileResponse(file) if await asyncio.to_thread(file.is_file) else web.Response(status=404)


@pytest.fixture
def cache(tmp_path: Path) -> HandmadeCache:
    made = HandmadeCache(tmp_path / "cache")
    made.add("glibc-1", {"lib": {"c": b"x"}})
    made.add("program-1", {"bin": {"run": ("x", b"y")}}, ("glibc-1",))
    return made


@pytest_asyncio.fixture
async def server(cache: HandmadeCache) -> AsyncIterator[Server]:
    served = Server(cache.folder)
    app = web.Application()
    app.router.add_get("/{path:.*}", served.answer)
    async with TestServer(app) as started:
        served.url = started.make_url("")
        yield served


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with cache_session() as session:
        yield session


async def pack(caches: BinaryCaches) -> None:
    places = await caches.closure([OUTPUT], substitutes=True)
    assert places is not None
    files = CacheFiles(caches, places, [OUTPUT], substitutes=True)
    await asyncio.to_thread(lambda: list(files.entries([OUTPUT])))


async def test_a_login_in_an_address_counts_and_is_in_no_log(
    server: Server, session: aiohttp.ClientSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password hidden2\ndefault login third password hidden3\n")
    address = server.url.with_user("me").with_password("hidden1")
    nix = Nix(substituters=[str(address)], trusted_public_keys=[PUBLIC], netrc_file=str(netrc))
    caches = BinaryCaches(nix, session, TreeCache(tmp_path / "trees"))
    await pack(caches)
    assert {login for _, login in server.requests} == {f"Basic {base64.b64encode(b'me:hidden1').decode()}"}

    caplog.set_level(logging.DEBUG)
    server.status = 500
    again = BinaryCaches(nix, session, TreeCache(tmp_path / "trees"))
    assert await again.closure([OUTPUT], substitutes=True) is None
    assert "does not answer: status 500" in caplog.text
    assert "hidden" not in caplog.text


async def test_a_cache_leads_to_no_other_host(
    server: Server, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    nix = Nix(substituters=[str(server.url)], trusted_public_keys=[PUBLIC])
    caches = BinaryCaches(nix, session, TreeCache(tmp_path / "trees"))
    server.elsewhere = f"http://localhost:{server.url.port}/taken"

    for _ in range(2):
        with pytest.raises(CacheUnusable, match="redirects to another host without https"):
            await pack(caches)
    assert "/taken" not in [path for path, _ in server.requests]


async def test_the_log_says_once_that_nobody_trusts_a_signature(
    cache: HandmadeCache, session: aiohttp.ClientSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caches = BinaryCaches(Nix(substituters=[cache.url]), session, TreeCache(tmp_path / "trees"))

    for _ in range(2):
        assert await caches.closure([OUTPUT], substitutes=True) is None
    assert caplog.text.count("no signature of a key that we trust") == 1


async def test_nix_is_run_once_for_all_who_wait(
    cache: HandmadeCache, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    nix = Nix(substituters=[cache.url], trusted_public_keys=[PUBLIC])
    caches = BinaryCaches(nix, session, TreeCache(tmp_path / "trees"))

    closures = await asyncio.gather(*(caches.closure([OUTPUT], substitutes=True) for _ in range(5)))

    assert all(closures)
    assert nix.runs == 1


@pytest.mark.parametrize("settings", [[], {"substituters": []}, {"substituters": {"value": 7}}, 7])
async def test_settings_of_another_shape_are_no_caches(
    session: aiohttp.ClientSession, tmp_path: Path, settings: object
) -> None:
    nix = Nix()
    nix.settings = settings

    assert await BinaryCaches(nix, session, TreeCache(tmp_path)).closure([OUTPUT], substitutes=True) is None


async def test_an_address_that_is_none_is_no_harm(
    cache: HandmadeCache, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    wrong = ["http://[", "http://h:99999", "https://h:x/"]
    nix = Nix(substituters=[*wrong, cache.url], trusted_public_keys=[PUBLIC])

    assert await BinaryCaches(nix, session, TreeCache(tmp_path)).closure([OUTPUT], substitutes=True)


async def test_a_cache_that_goes_away_is_one_line_of_the_log(
    server: Server,
    cache: HandmadeCache,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    needs = tuple(f"library-{number}" for number in range(40))
    for need in needs:
        cache.add(need, b"")
    cache.add("program-1", {}, needs)
    nix = Nix(substituters=[str(server.url)], trusted_public_keys=[PUBLIC])
    caches = BinaryCaches(nix, session, TreeCache(tmp_path))
    assert await caches.closure([store_path("library-1")], substitutes=True)

    server.status = 503
    assert await caches.closure([OUTPUT], substitutes=True) is None
    assert await caches.closure([OUTPUT], substitutes=True) is None

    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"binary cache {str(server.url).rstrip('/')} does not answer: status 503"]


async def test_the_verdict_about_a_narinfo_is_kept(
    server: Server, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A signature costs a hash of all that it signs, and a rogue cache may send many."""
    for keys, found in (([PUBLIC], True), ([], False)):
        server.requests.clear()
        nix = Nix(substituters=[str(server.url)], trusted_public_keys=keys)
        caches = BinaryCaches(nix, session, TreeCache(tmp_path))
        for _ in range(3):
            assert (await caches.closure([OUTPUT], substitutes=True) is not None) is found
        narinfos = [path for path, _ in server.requests if path.endswith(".narinfo")]
        assert len(narinfos) == len(set(narinfos))


async def test_a_cache_gets_time_for_the_size_of_the_nar(
    cache: HandmadeCache, session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody signs the size of the file, which may be absent, too small or without end."""
    sizes: list[int] = []
    opening = Cache.open

    def note(opened: Cache, file: str, size: int, loop: asyncio.AbstractEventLoop) -> Source:
        sizes.append(size)
        return opening(opened, file, size, loop)

    monkeypatch.setattr(Cache, "open", note)
    info = cache.folder / f"{OUTPUT[11:43]}.narinfo"
    text = info.read_text()
    lines = {line.partition(": ")[0]: line for line in text.splitlines()}
    nar_size = int(lines["NarSize"].partition(": ")[2])
    for change in ("", f"FileSize: {1 << 37}\n"):
        info.write_text(text.replace(f"{lines['FileSize']}\n", change))
        nix = Nix(substituters=[cache.url], trusted_public_keys=[PUBLIC])
        await pack(BinaryCaches(nix, session, TreeCache(tmp_path / "trees")))

    assert sizes == [nar_size, nar_size]
