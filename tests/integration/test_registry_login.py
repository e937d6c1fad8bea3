"""How nixfront comes to a registry: what it is asked for, and what it sends to whom."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from proxy.core.errors import RegistryRefused, RegistryUnavailable
from proxy.registry.client import Registry
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import Credentials, Login, pull_scopes, push_scopes
from tests.support.guarded import basic
from tests.support.streams import Stream

SCOPES = pull_scopes("x")
OURS = Credentials("nixfront", "between us")
NOBODY = Credentials()


@pytest.fixture
def nix_count() -> None:
    """Nothing is built here."""


@dataclass
class Stub:
    """A token service, or a registry: what it answers, and what came."""

    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.path_qs, request.headers.get("Authorization", "")))
        return await self.answer(request)


@asynccontextmanager
async def serving(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[Stub]:
    stub = Stub(answer)
    runner = web.ServerRunner(web.Server(stub.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stub
    finally:
        await runner.cleanup()


def registry_client(session: aiohttp.ClientSession, url: str, credentials: Credentials = NOBODY) -> Registry:
    return Registry(OpenEndpoint(url, session, Login(session, credentials, secure=False)))


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


class Clock:
    """The time, by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Tokens:
    """A token service: each token says its number."""

    def __init__(self) -> None:
        self._count = 0

    async def __call__(self, _: web.BaseRequest) -> web.StreamResponse:
        self._count += 1
        return web.json_response({"access_token": f"token-{self._count}", "expires_in": 100})


def bearer(url: str) -> list[str]:
    return [f'Bearer realm="{url}/token?a=b",service="some registry",scope="ignored"']


async def test_nothing_is_sent_to_a_registry_that_wants_nothing(session: aiohttp.ClientSession) -> None:
    login = Login(session, OURS, secure=False)

    assert await login.authorization(SCOPES) == ""


async def test_a_password_is_sent_where_one_is_wanted(session: aiohttp.ClientSession) -> None:
    login = Login(session, OURS, secure=False)

    assert login.learn(['Basic realm="x"'], SCOPES, "")
    assert await login.authorization(SCOPES) == basic("nixfront", "between us")["Authorization"]
    assert not login.learn(['Basic realm="x"'], SCOPES, "Basic x"), "it is wrong, and stays so"


@pytest.mark.parametrize("challenge", [[], ["Negotiate"], ['Basic realm="x"']])
async def test_who_has_nothing_to_send_does_not_try_again(
    session: aiohttp.ClientSession, challenge: list[str]
) -> None:
    login = Login(session, Credentials(), secure=False)

    assert not login.learn(challenge, SCOPES, "")
    assert await login.authorization(SCOPES) == ""


async def test_a_token_is_fetched_for_each_scope_and_kept_while_it_lives(
    session: aiohttp.ClientSession,
) -> None:
    clock = Clock()
    login = Login(session, OURS, secure=False, clock=clock)
    async with serving(Tokens()) as service:
        assert login.learn(bearer(service.url), SCOPES, "")
        both = await asyncio.gather(login.authorization(SCOPES), login.authorization(SCOPES))
        other = await login.authorization(push_scopes("x", "y"))
        clock.now = 69
        kept = await login.authorization(SCOPES)
        clock.now = 71  # 30 seconds before its end
        fresh = await login.authorization(SCOPES)

    assert [*both, other, kept, fresh] == [f"Bearer token-{number}" for number in (1, 1, 2, 1, 3)]
    paths = [path for path, _ in service.asked]
    assert paths[0] == "/token?a=b&service=some+registry&scope=repository:x:pull"
    assert paths[1].endswith("&scope=repository:x:pull,push&scope=repository:y:pull")
    assert {sent for _, sent in service.asked} == {basic("nixfront", "between us")["Authorization"]}


async def test_a_token_that_is_refused_is_fetched_anew_once(session: aiohttp.ClientSession) -> None:
    login = Login(session, OURS, secure=False)
    async with serving(Tokens()) as service:
        login.learn(bearer(service.url), SCOPES, "")
        first = await login.authorization(SCOPES)
        assert login.learn(bearer(service.url), SCOPES, first)
        second = await login.authorization(SCOPES)

    assert (first, second) == ("Bearer token-1", "Bearer token-2")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"wrong", "answered 401 to nixfront; see registry.username"),
        (302, b"", "answered 302"),
        (200, b"{}", "gave no token"),
        (200, b"[]", "gave no token"),
        (200, b"no JSON", "gave no token"),
        (200, b'{"token": 1}', "gave no token"),
        (200, b'{"token": "a\\nb"}', "gave no token"),
        (200, b'{"token": "a", "expires_in": "soon"}', "gave no token"),
    ],
)
async def test_a_service_that_gives_no_token(
    session: aiohttp.ClientSession, status: int, body: bytes, message: str
) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"Location": "http://127.0.0.1:1/"})

    login = Login(session, OURS, secure=False)
    async with serving(answer) as service:
        login.learn(bearer(service.url), SCOPES, "")
        with pytest.raises(RegistryUnavailable, match=message) as refused:
            await login.authorization(SCOPES)

    assert len(service.asked) == 1
    assert "between" not in str(refused.value)


@pytest.mark.parametrize(
    ("realm", "secure"),
    [
        ("", False),
        ("token", False),
        ("file:///etc/passwd", False),
        ("http://u:p@127.0.0.1:1/", False),
        ("http://127.0.0.1:1/token", True),
        ("http://[", False),
    ],
)
async def test_a_service_that_gets_no_password(
    session: aiohttp.ClientSession, realm: str, secure: bool
) -> None:
    login = Login(session, OURS, secure=secure)
    login.learn([f'Bearer realm="{realm}"'], SCOPES, "")

    with pytest.raises(RegistryUnavailable, match="names no token service that may get nixfront's password"):
        await login.authorization(SCOPES)


async def test_a_service_that_is_away(session: aiohttp.ClientSession) -> None:
    login = Login(session, OURS, secure=False)
    login.learn(bearer("http://127.0.0.1:1"), SCOPES, "")

    with pytest.raises(
        RegistryUnavailable,
        match=r"the registry's token service http://127.0.0.1:1/token did not answer \(connection refused\)",
    ):
        await login.authorization(SCOPES)


async def test_an_upload_that_meets_a_401_is_to_be_begun_again(session: aiohttp.ClientSession) -> None:
    """Its bytes are gone; `publish` makes them anew."""

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        async for _ in request.content.iter_any():
            pass
        challenge = {"WWW-Authenticate": bearer(service.url)[0]}
        if request.method == "POST" and "Authorization" in request.headers:
            return web.Response(status=202, headers={"Location": "/v2/x/blobs/uploads/1"})
        return web.Response(status=401, headers=challenge)

    async def data() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(1 << 20)

    async with serving(Tokens()) as service, serving(registry) as stub:
        client = registry_client(session, stub.url, OURS)
        with pytest.raises(RegistryUnavailable, match="another token in the middle of PATCH"):
            await client.upload("x", Stream(data(), "sha256:x"))


@pytest.mark.parametrize("status", [400, 403, 404, 405])
async def test_a_mount_that_is_refused_is_none(session: aiohttp.ClientSession, status: int) -> None:
    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status if "from=y" in request.path_qs else 500)

    async with serving(registry) as stub:
        assert not await registry_client(session, stub.url).mount("x", "sha256:x", "y")


async def test_a_refusal_says_whose_rights_are_wanting(session: aiohttp.ClientSession) -> None:
    async def registry(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"errors": []}, status=403)

    async with serving(registry) as stub:
        with pytest.raises(
            RegistryRefused, match=r"403 .*; check which rights registry\.username has there$"
        ):
            await registry_client(session, stub.url).manifest_digest("x", "latest")
