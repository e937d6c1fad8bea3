"""The registry decides who sees what and who lets build; nixfront's own rights are nobody else's."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from proxy import settings
from proxy.core.errors import RegistryUnavailable
from proxy.core.events import BuildStarted
from proxy.core.model import DOCKER_MANIFEST
from proxy.registry.client import Registry
from proxy.registry.endpoint import Endpoint
from proxy.registry.login import Credentials
from proxy.upkeep import warm
from proxy.upkeep.explain import explain
from proxy.wiring import registry as wiring_registry
from tests.support import handmade, stored
from tests.support.front import Front
from tests.support.guarded import PASSWORDS, Right, TokenService, basic, htpasswd_registry, token_registry
from tests.support.servers import Server
from tests.support.wait import Gate, until

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
OURS = {"registry": {"username": "nixfront", "password": PASSWORDS["nixfront"]}}
ACCEPT = {"Accept": DOCKER_MANIFEST}
SECRETS = ("between us", basic("nixfront")["Authorization"].removeprefix("Basic "))


def made() -> handmade.HandmadeImage:
    return handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])


async def said(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str | None, bytes]:
    """Status, challenge and body of an answer."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url + path, headers={**ACCEPT, **headers}) as answer,
    ):
        return answer.status, answer.headers.get("WWW-Authenticate"), await answer.read()


# --- passwords --------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def closed(tmp_path: Path) -> AsyncIterator[Server]:
    folder = tmp_path / "registry"
    folder.mkdir()
    async with htpasswd_registry(folder) as server:
        yield server


@pytest.mark.parametrize(
    "headers", [{}, basic("alice", "guessed"), basic("mallory"), {"Authorization": "Bearer x"}]
)
async def test_who_has_no_password_gets_the_registrys_challenge_and_nothing_else(
    start: Start, closed: Server, headers: Mapping[str, str]
) -> None:
    image = made()
    digest = await handmade.push(closed.url, "private/thing", "v1", image, headers=basic("alice"))
    layer = handmade.digest_of(image.layers[0])
    paths = [
        "/v2/",
        "/v2/_catalog",
        "/v2/hello/manifests/latest",
        "/v2/hello/tags/list",
        "/v2/private/thing/manifests/v1",
        "/v2/private/thing/manifests/nosuch",
        f"/v2/private/thing/manifests/{digest}",
        f"/v2/private/thing/blobs/{layer}",
        "/v2/private/thing/tags/list",
        "/v2/private/nothing/tags/list",
    ]
    async with start(closed.url, **OURS, answers={"seconds": 60}) as front:
        # What somebody else was told is in no memory that this client is answered from.
        assert (await said(front.url, paths[4], **basic("alice")))[0] == 200
        assert (await said(front.url, paths[7], **basic("alice")))[0] == 200
        for path in paths:
            for method in ("GET", "HEAD"):
                through = await said(front.url, path, method, **headers)
                assert through == await said(closed.url, path, method, **headers), path
                assert through[0] == 401
                assert through[1] is not None
        posted = await said(front.url, "/v2/hello/blobs/uploads/", "POST", **headers)

        assert posted[0] == 401
        assert front.told(BuildStarted) == []
        assert front.nix_starts() == 0


async def test_who_has_a_password_has_images_made(start: Start, closed: Server, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORDS["nixfront"] + "\n", encoding="ascii")
    async with start(closed.url, registry={"username": "nixfront", "password_file": str(file)}) as front:
        image = await front.pull("hello", headers=basic("alice"))
        anonymous = await said(front.url, "/v2/hello/manifests/latest")

    assert image.files
    assert anonymous[0] == 401
    log = closed.process.log_text().splitlines()
    pushed = [line for line in log if '"PUT ' in line or "http.request.method=PUT" in line]
    assert pushed
    assert all("alice" not in line for line in pushed), "the push is nixfront's, not the client's"


@pytest.mark.parametrize(
    "registry", [{}, {"username": "nixfront", "password": "between them"}], ids=["none", "wrong"]
)
async def test_without_credentials_of_its_own_nixfront_makes_nothing_and_says_so(
    start: Start, closed: Server, registry: dict[str, Any]
) -> None:
    async with start(closed.url, registry=registry) as front:
        status, _, body = await said(front.url, "/v2/hello/manifests/latest", **basic("alice"))

    assert status == 503
    assert b"registry.username" in body
    assert b"between" not in body


async def test_the_password_is_told_to_nobody(
    start: Start, closed: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with start(closed.url, **OURS) as front:
        await front.pull("hello", headers=basic("alice"))
        told = [str(event) for event in front.events]
        closed_down = await said(front.url, "/v2/alpha/manifests/v1", **basic("alice"))

    everything = "\n".join((caplog.text, *told, str(closed_down), closed.process.log_text()))
    assert not any(secret in everything for secret in SECRETS)


# --- tokens -----------------------------------------------------------------------------------------------

RIGHTS = [
    Right("alice", "*"),
    Right("bob", "hello"),
    Right("bob", "shelf/*"),
    Right("", "alpha"),
    Right("nixfront", "*", ("pull", "push", "*")),
]
WORDS = {"alice": "one", "bob": "two", "nixfront": PASSWORDS["nixfront"]}


def service(**options: Any) -> TokenService:
    return TokenService(WORDS, RIGHTS, **options)


def bearer(tokens: TokenService, user: str, *scopes: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.token(user, scopes)}"}


@pytest_asyncio.fixture
async def tokens() -> TokenService:
    return service()


@pytest_asyncio.fixture
async def guarded(tmp_path: Path, tokens: TokenService) -> AsyncIterator[Server]:
    folder = tmp_path / "registry"
    folder.mkdir()
    async with token_registry(folder, tokens) as server:
        yield server


async def test_the_registrys_challenge_names_the_service_through_nixfront_too(
    start: Start, guarded: Server
) -> None:
    async with start(guarded.url, **OURS) as front:
        through = await said(front.url, "/v2/hello/manifests/latest")
        straight = await said(guarded.url, "/v2/hello/manifests/latest")

    assert through == straight
    assert through[1] is not None
    assert 'scope="repository:hello:pull"' in through[1]


async def test_a_token_for_the_repository_has_an_image_made_and_any_other_none(
    start: Start, guarded: Server, tokens: TokenService
) -> None:
    hello, beta = "repository:hello:pull", "repository:beta:pull"
    refused = [
        bearer(tokens, "", hello),
        bearer(tokens, "bob", beta),
        bearer(tokens, "bob", "repository:shelf/x:pull"),
        bearer(tokens, "alice", "repository:alpha:pull"),
        bearer(tokens, "alice", "repository:hello:push"),
        bearer(tokens, "alice"),
        bearer(service(), "alice", hello),  # signed by another service
        {"Authorization": f"Bearer {tokens.token('alice', (hello,))}x"},
        basic("alice", "one"),
    ]
    async with start(guarded.url, **OURS) as front:
        for headers in refused:
            path = "/v2/hello/manifests/latest"
            through = await said(front.url, path, **headers)
            assert through[0] == 401, headers
            assert through == await said(guarded.url, path, **headers)
        assert front.nix_starts() == 0
        image = await front.pull("hello", headers=bearer(tokens, "bob", hello))
        free = await front.pull("alpha", headers=bearer(tokens, "", "repository:alpha:pull"))

    assert image.digest != free.digest


async def test_whether_a_private_image_exists_is_not_told(
    start: Start, guarded: Server, tokens: TokenService
) -> None:
    """Not by nixfront's own rights, which see it, nor by a build that starts for one name and not for the other."""
    pushing = bearer(tokens, "nixfront", "repository:beta:pull,push")
    await handmade.push(guarded.url, "beta", "latest", made(), headers=pushing)
    async with start(guarded.url, **OURS, answers={"seconds": 60}) as front:
        seen = await said(
            front.url, "/v2/beta/manifests/latest", **bearer(tokens, "alice", "repository:beta:pull")
        )
        assert seen[0] == 200
        answers = []
        for name in ("beta", "gamma"):
            for path in (f"/v2/{name}/manifests/latest", f"/v2/{name}/tags/list"):
                for headers in ({}, bearer(tokens, "bob", f"repository:{name}:pull")):
                    status, challenge, body = await said(front.url, path, **headers)
                    answers.append(
                        (status, (challenge or "").replace(name, "X"), body.replace(name.encode(), b"X"))
                    )

        assert answers[:4] == answers[4:]
        assert {status for status, _, _ in answers} == {401}
        assert front.nix_starts() == 0


@pytest.mark.parametrize("way", ["spliced", "disk", "redirect"])
async def test_a_blob_by_any_way_is_for_those_alone_whose_token_is_for_it(
    start: Start, guarded: Server, tokens: TokenService, tmp_path: Path, way: str
) -> None:
    registry: dict[str, str] = {
        "spliced": {},
        "disk": {"storage": str(tmp_path / "registry" / "data")},
        "redirect": {"public_url": "https://images.example"},
    }[way]
    hello = "repository:hello:pull"
    allowed = bearer(tokens, "bob", hello)
    async with start(guarded.url, registry={**OURS["registry"], **registry}) as front:
        _, _, manifest = await said(front.url, "/v2/hello/manifests/latest", **allowed)
        layer = max(json.loads(manifest)["layers"], key=lambda each: each["size"])
        path = f"/v2/hello/blobs/{layer['digest']}"
        other = path.replace("hello", "beta", 1)  # where it is not, though the registry has it
        for _ in range(3):  # whatever the first answers left behind
            async with (
                aiohttp.ClientSession(front.url) as session,
                session.get(path, headers=allowed, allow_redirects=False) as given,
            ):
                assert given.status == (307 if way == "redirect" else 200)
            for refused in (
                {},
                bearer(tokens, "", hello),
                bearer(tokens, "bob", "repository:beta:pull"),
                bearer(service(), "bob", hello),
            ):
                for asked in (path, other):
                    through = await said(front.url, asked, **refused)
                    assert through[0] == 401
                    assert through == await said(guarded.url, asked, **refused)


async def test_a_token_that_ends_while_an_image_is_made_is_fetched_anew_and_the_build_goes_on(
    start: Start, guarded: Server, tokens: TokenService
) -> None:
    path, scope = "/v2/slow/manifests/latest", "repository:slow:pull"
    builds = {"patience": 0.3, "hop_seconds": 0.3}
    fresh = bearer(tokens, "alice", scope)
    tokens.lives = -120  # seconds; the registry lets one be late by a minute
    ended = bearer(tokens, "alice", scope)
    tokens.lives = 300
    async with start(guarded.url, **OURS, builds=builds) as front, aiohttp.ClientSession() as session:
        async with session.get(
            front.url + path, headers={**ACCEPT, **fresh}, allow_redirects=False
        ) as sent_on:
            there = path + sent_on.headers["Location"]
        through = await said(front.url, there, **ended)
        straight = await said(guarded.url, path, **ended)
        status, _, _ = await said(front.url, there, **fresh)

        assert sent_on.status == 307
        assert through == straight
        assert through[0] == 401
        assert through[1] is not None
        assert "invalid_token" in through[1]
        assert status == 200
        assert len(front.told(BuildStarted)) == 1


async def test_nixfront_fetches_tokens_for_what_it_does_and_keeps_them(
    start: Start, guarded: Server, tokens: TokenService
) -> None:
    alice = bearer(tokens, "alice", "repository:hello:pull")
    async with start(guarded.url, **OURS) as front:
        await front.pull("hello", headers=alice)

    asked = [scopes for account, scopes in tokens.asked if account == "nixfront"]
    assert {account for account, _ in tokens.asked} == {"nixfront"}
    assert set(asked) >= {("repository:hello:pull",), ("repository:hello:pull,push",)}
    assert len(asked) == len(set(asked)), "each once"


async def test_tokens_that_end_soon_are_fetched_anew(start: Start, tmp_path: Path) -> None:
    short = service(lives=1)
    folder = tmp_path / "short"
    folder.mkdir()
    async with token_registry(folder, short) as registry, start(registry.url, **OURS) as front:
        image = await front.pull("slow", headers=bearer(short, "alice", "repository:slow:pull"))

    assert image.digest
    assert len(short.asked) > len(set(short.asked))


async def test_layers_are_mounted_by_token_too(start: Start, guarded: Server, tokens: TokenService) -> None:
    async with start(guarded.url, **OURS) as front:
        for name in ("hello", "beta"):
            await front.pull(name, headers=bearer(tokens, "alice", f"repository:{name}:pull"))

    assert ("nixfront", ("repository:beta:pull,push", "repository:hello:pull")) in tokens.asked


async def test_an_upload_that_is_given_up_is_gone_by_token_too(tmp_path: Path) -> None:
    """The registry begins one where it has nothing to mount, and a right of its own ends it."""
    may_delete = TokenService(WORDS, [*RIGHTS, Right("nixfront", "*", ("delete",))])
    folder = tmp_path / "registry"
    folder.mkdir()
    async with token_registry(folder, may_delete) as server:
        reach = Endpoint(server.url, Credentials("nixfront", PASSWORDS["nixfront"]))
        async with reach.opened() as reached:
            registry = Registry(reached)
            mounted = await registry.mount("beta", "sha256:" + "0" * 64, "alpha")
        left = [*(folder / "data").rglob("beta/_uploads/*/startedat")]

    assert not mounted
    assert ("nixfront", ("repository:beta:delete",)) in may_delete.asked
    assert left == []


async def explained(registry: Endpoint, name: str) -> str:
    """The digest of the image."""
    async with registry.opened() as reached:
        return (await explain(reached, name, "v1")).digest


async def test_the_commands_come_to_the_registry_as_nixfront(guarded: Server, tokens: TokenService) -> None:
    for name in ("beta", "team/tool"):
        own = bearer(tokens, "nixfront", f"repository:{name}:pull,push")
        await handmade.push(guarded.url, name, "v1", made(), headers=own)
    registry = Endpoint(guarded.url, Credentials("nixfront", PASSWORDS["nixfront"]))

    listed = await stored.listed(registry)
    with pytest.raises(RegistryUnavailable, match="401"):
        await stored.listed(Endpoint(guarded.url))

    assert listed == {"beta": ("v1",), "team/tool": ("v1",)}
    assert await explained(registry, "beta") == handmade.digest_of(made().manifest)


async def test_the_commands_come_with_the_password_too(closed: Server) -> None:
    await handmade.push(closed.url, "beta", "v1", made(), headers=basic("nixfront"))
    registry = Endpoint(closed.url, Credentials("nixfront", PASSWORDS["nixfront"]))

    assert await stored.listed(registry) == {"beta": ("v1",)}
    assert await explained(registry, "beta") == handmade.digest_of(made().manifest)


async def test_warm_is_let_in_as_nixfront(start: Start, closed: Server, tmp_path: Path) -> None:
    own = {"username": "nixfront", "password": PASSWORDS["nixfront"]}
    async with start(closed.url, registry=own) as front:
        nobody = [one async for one in warm.warm(Endpoint(front.url), [("hello", "latest")], 1)]
        here = settings.load(
            None,
            {},
            http={"addr": front.url.removeprefix("http://")},
            data={"dir": str(tmp_path / "data")},
            registry={"url": closed.url, **own},
        )
        nixfront = await asyncio.to_thread(wiring_registry.nixfront_endpoint, here)
        us = [one async for one in warm.warm(nixfront, [("hello", "latest")], 1)]

    assert "401" in nobody[0].error
    assert us[0].digest, us[0].error
    stranger = await asyncio.to_thread(wiring_registry.nixfront_endpoint, here)
    assert stranger == Endpoint(front.url), "whoever answers there now gets no password"


# --- who may build ----------------------------------------------------------------------------------------

# Who is let through here is told that the tag means nothing, which costs no Nix.
LET_THROUGH = (404, True)


def outcome(answer: tuple[int, str | None, bytes]) -> tuple[int, bool]:
    return answer[0], b"names no revision" in answer[2]


async def test_names_that_are_not_made_are_served_if_they_are_there(start: Start, registry: Server) -> None:
    digest = await handmade.push(registry.url, "beta", "v1", made())
    async with start(registry.url, access={"repositories": ("user/*", "hello")}) as front:
        there = await said(front.url, "/v2/beta/manifests/v1")
        absent = await said(front.url, "/v2/beta/manifests/latest")
        tags = await said(front.url, "/v2/alpha/tags/list")
        others = [await said(front.url, f"/v2/{name}/manifests/v1") for name in ("user/hello", "hello")]

    assert handmade.digest_of(there[2]) == digest
    assert absent[0] == 404
    assert b"this host makes no image named 'beta' (access.repositories)" in absent[2]
    assert tags[0] == 404
    assert [outcome(answer) for answer in others] == [LET_THROUGH] * 2


@pytest.mark.parametrize(
    ("users", "user", "through"),
    [
        pytest.param(("alice",), "alice", True, id="named"),
        pytest.param(("carol", "*"), "bob", True, id="whoever is known"),
        pytest.param(("alice",), "bob", False, id="another"),
        pytest.param(("*",), "", False, id="a token for nobody"),
    ],
)
async def test_users_by_token(
    start: Start, guarded: Server, tokens: TokenService, users: tuple[str, ...], user: str, through: bool
) -> None:
    name = "hello" if user else "alpha"
    headers = bearer(tokens, user, f"repository:{name}:pull")
    async with start(guarded.url, **OURS, access={"users": users}) as front:
        answer = await said(front.url, f"/v2/{name}/manifests/v1", **headers)
        started = front.told(BuildStarted)

    if through:
        assert outcome(answer) == LET_THROUGH
    else:
        assert answer[0] == 403
        assert b'"DENIED"' in answer[2]
        assert b"access.users" in answer[2]
        assert started == []


async def test_users_by_password(start: Start, closed: Server) -> None:
    async with start(closed.url, **OURS, access={"users": ("alice",)}) as front:
        alice = await said(front.url, "/v2/hello/manifests/v1", **basic("alice"))
        other = await said(front.url, "/v2/alpha/manifests/latest", **basic("nixfront"))
        guessed = await said(front.url, "/v2/alpha/manifests/latest", **basic("alice", "guessed"))

    assert (outcome(alice), other[0], guessed[0]) == (LET_THROUGH, 403, 401)


async def test_a_name_that_nobody_checked_is_nobodys(start: Start, registry: Server) -> None:
    """An open registry takes any password, so what stands in the header proves nothing."""
    forged = [basic("alice", "x"), {"Authorization": "Bearer e30.eyJzdWIiOiJhbGljZSJ9.x"}]
    async with start(registry.url, access={"users": ("alice", "*")}) as front:
        answers = [await said(front.url, "/v2/hello/manifests/latest", **headers) for headers in forged]

    assert [status for status, _, _ in answers] == [403, 403]
    assert b"only for users who are logged in" in answers[0][2]


async def test_networks(start: Start, registry: Server) -> None:
    async with start(
        registry.url,
        http={"trusted_proxies": ("127.0.0.1",)},
        access={"networks": ("192.0.2.0/24",)},
    ) as front:
        path = "/v2/hello/manifests/v1"
        outside = await said(front.url, path)
        forged = await said(front.url, path, **{"X-Forwarded-For": "192.0.2.7, 198.51.100.1"})
        inside = await said(front.url, path, **{"X-Forwarded-For": "198.51.100.1, 192.0.2.7"})

    assert (outside[0], forged[0], outcome(inside)) == (403, 403, LET_THROUGH)
    assert b"clients at 198.51.100.1 (access.networks)" in forged[2]


SKOPEO, CONTAINERD = {"User-Agent": "skopeo/1.9"}, {"User-Agent": "containerd/1.7"}


async def test_a_client_begins_so_many_builds_in_a_minute(start: Start, registry: Server) -> None:
    async with (
        start(
            registry.url,
            http={"trusted_proxies": ("127.0.0.1",)},
            access={"builds_per_minute": 2},
        ) as front,
        aiohttp.ClientSession(front.url) as session,
    ):

        async def pull(name: str, **headers: str) -> tuple[int, bool]:
            return outcome(await said(front.url, f"/v2/{name}/manifests/v1", **headers))

        begun = [await pull("hello"), await pull("alpha")]
        again = [await pull("hello"), await pull("alpha"), await pull("alpha")]
        async with session.get("/v2/beta/manifests/v1", headers=SKOPEO) as answer:
            refused = answer.status, int(answer.headers["Retry-After"]), await answer.json()
        async with session.get("/v2/beta/manifests/v1", headers=CONTAINERD) as answer:
            shown = answer.status, answer.reason
        other = await pull("beta", **{"X-Forwarded-For": "192.0.2.1"})
        digest = await handmade.push(front.url, "beta", "v1", made())
        exists = await said(front.url, "/v2/beta/manifests/v1", **ACCEPT)

    assert begun + again == [LET_THROUGH] * 5
    assert refused[0] == 429
    assert 0 < refused[1] <= 60
    assert refused[2]["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert shown[0] == 503
    assert "access.builds_per_minute" in (shown[1] or "")
    assert other == LET_THROUGH
    assert (exists[0], handmade.digest_of(exists[2])) == (200, digest)


async def test_joining_a_build_costs_nothing(start: Start, registry: Server, gate: Gate) -> None:
    async with start(
        registry.url,
        http={"trusted_proxies": ("127.0.0.1",)},
        access={"builds_per_minute": 1},
    ) as front:
        path = "/v2/gated/manifests/latest"
        first = asyncio.create_task(said(front.url, path, **{"X-Forwarded-For": "192.0.2.1"}))
        await until(lambda: front.told(BuildStarted))
        joining = asyncio.create_task(said(front.url, path))
        own = await said(front.url, "/v2/hello/manifests/v1")
        gate.open()
        joined = await joining

    assert ((await first)[0], joined[0], outcome(own)) == (200, 200, LET_THROUGH)


async def test_users_are_counted_by_name_wherever_they_are(
    start: Start, guarded: Server, tokens: TokenService
) -> None:
    async with start(
        guarded.url,
        **OURS,
        http={"trusted_proxies": ("127.0.0.1",)},
        access={"builds_per_minute": 1},
    ) as front:

        async def pull(user: str, name: str, address: str) -> tuple[int, bool]:
            headers = {**bearer(tokens, user, f"repository:{name}:pull"), "X-Forwarded-For": address}
            return outcome(await said(front.url, f"/v2/{name}/manifests/v1", **headers))

        answers = [
            await pull("alice", "hello", "192.0.2.1"),
            await pull("alice", "beta", "192.0.2.2"),
            await pull("", "alpha", "192.0.2.1"),
        ]

    assert answers == [LET_THROUGH, (429, False), LET_THROUGH]
