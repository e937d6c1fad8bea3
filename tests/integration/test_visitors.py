"""What a visitor of the page sees: no word of a log without the right to read logs, no repository that the registry refuses."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from proxy import cli
from proxy.core.model import DOCKER_MANIFEST
from tests.support import handmade
from tests.support.front import PACKAGES, Front
from tests.support.guarded import PASSWORDS, Right, TokenService, basic, htpasswd_registry, token_registry
from tests.support.servers import Server
from tests.support.wait import AT_THE_GATE, Gate, until

Start = Callable[..., AbstractAsyncContextManager[Front]]
OURS = {"registry": {"username": "nixfront", "password": PASSWORDS["nixfront"]}}
SECRET = "hunter2"
WORDS = {**PASSWORDS, "bob": "builder"}
RIGHTS = (
    Right("", "public/*"),
    Right("alice", "*"),
    Right("bob", "team/*"),
    Right("nixfront", "*", ("pull", "push", "*")),
)


def made() -> handmade.HandmadeImage:
    return handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])


def bearer(tokens: TokenService, user: str, scope: str) -> dict[str, str]:
    """The header with which a user comes who has a token for this scope."""
    return {"Authorization": f"Bearer {tokens.token(user, [scope])}"}


async def seen(front: Front, headers: Mapping[str, str], *paths: str) -> str:
    """All that these pages say."""
    texts = []
    for path in paths or ("/", "/images", "/status.json", "/compose?names=hello"):
        status, _, body = await front.get(path, headers=headers)
        assert status == 200, path
        texts.append(body.decode())
    return "\n".join(texts)


async def stream(front: Front, path: str, headers: Mapping[str, str] | None = None) -> str:
    """The beginning of a stream."""
    async with aiohttp.ClientSession() as session, session.get(front.url + path, headers=headers) as answer:
        text = ""
        async with asyncio.timeout(30):
            while "event: " not in text or not text.endswith("\n\n"):
                chunk = await answer.content.readany()
                if not chunk:
                    break
                text += chunk.decode()
        return text


async def status(front: Front, headers: Mapping[str, str] | None = None) -> list[dict[str, object]]:
    return list(json.loads((await front.get("/status.json", headers=headers))[2])["builds"])


async def test_no_view_has_a_word_of_a_log_for_those_who_may_not_read_it(
    start: Start, registry: Server, gate: Gate, tmp_path: Path
) -> None:
    own = tmp_path / "set"
    own.mkdir()
    script = f"echo error: {SECRET} >&2; {AT_THE_GATE}; exit 1"
    (own / "default.nix").write_text(
        f"""{{ system, ... }}: {{ leaky = derivation {{ name = "leaky"; inherit system; builder = "/bin/sh";
              PATH = "/bin:/usr/bin"; args = [ "-c" {json.dumps(script)} ]; }}; }}""",
        encoding="utf-8",
    )
    for_nobody = {"networks": ("*",), "log_networks": ()}
    async with start(registry.url, packages={"path": str(own)}, page=for_nobody) as front:
        pull = asyncio.create_task(front.get("/v2/leaky/manifests/latest"))
        await until(lambda: status(front))
        (build,) = await status(front)
        paths = ("/", "/status.json", f"/builds/{build['id']}")
        log = tmp_path / "data" / "logs" / f"{build['id']}.log"
        await until(lambda: asyncio.to_thread(lambda: log.exists() and SECRET in log.read_text()))
        running = await seen(front, {}, *paths)
        running += await stream(front, "/events") + await stream(
            front, f"/builds/{build['id']}/events?seen=0"
        )
        gate.open()
        answer = await pull
        ended = await seen(front, {}, *paths)
        ended += await stream(front, "/events") + await stream(front, f"/builds/{build['id']}/events?seen=0")
        text = await front.get(f"/builds/{build['id']}/log")

    assert SECRET in answer[2].decode(), "the client that pulls gets the end of the log, as before"
    assert "leaky" in running
    assert SECRET not in running
    assert "building leaky failed; its log says why" in ended
    assert SECRET not in ended
    assert text[0] == 403


@pytest.mark.without_documents("its page is that of an image without documents")
async def test_a_password_registry_shows_its_images_to_those_who_log_in(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    async with htpasswd_registry(folder) as server, start(server.url, **OURS) as front:
        await handmade.push(server.url, "team/app", "latest", made(), headers=basic("alice"))
        headers = {"Accept": DOCKER_MANIFEST, **basic("alice")}
        status_of, manifest, _ = await front.get("/v2/alpha/manifests/latest", headers=headers)
        assert status_of == 200
        (build,) = await status(front, basic("alice"))
        user = await seen(front, basic("alice"))
        others = [await seen(front, each) for each in ({}, basic("alice", "guess"), basic("mallory"))]
        details = [
            (await front.get(f"/builds/{build['id']}{part}", headers=each))[0]
            for part in ("", "/log")
            for each in ({}, basic("mallory"), basic("alice"))
        ]
        digest = manifest["Docker-Content-Digest"]
        images, downloads = [
            [await front.get(f"/images/{part}{digest}/alpha", headers=each) for each in ({}, basic("alice"))]
            for part in ("", "spdx/")
        ]
        streams = [await stream(front, "/events", each) for each in ({}, basic("alice"))]
        logins = [
            await front.get("/login", headers=each) for each in ({}, basic("alice", "x"), basic("alice"))
        ]
        for name, value in {
            "HTTP_ADDR": front.url.removeprefix("http://"),
            "REGISTRY_URL": server.url,
            "REGISTRY_USERNAME": "nixfront",
            "REGISTRY_PASSWORD": PASSWORDS["nixfront"],
            "DATA_DIR": str(tmp_path / "data"),
        }.items():
            monkeypatch.setenv(f"NIXFRONT_{name}", value)
        assert await asyncio.to_thread(cli.main, ["status"]) == 0
        shown = capsys.readouterr().out

    assert "team/app" in user
    assert "alpha" in user
    for other in others:
        assert "team/app" not in other
        assert "alpha" not in other
    assert 'href="/login"' in others[0]
    assert details == [404, 404, 200, 404, 404, 200]
    assert [answer[0] for answer in images] == [404, 200]
    assert b"No document is attached" in images[1][2]
    assert b"has no image" in downloads[0][2], "as if there were no such image"
    assert b"has no document" in downloads[1][2]
    assert ["alpha" in each for each in streams] == [False, True]
    assert [answer[0] for answer in logins] == [401, 401, 303]
    assert logins[0][1]["WWW-Authenticate"].startswith("Basic realm=")
    assert "alpha:latest" in shown, "the operator's own command sees what nixfront sees"


async def test_a_token_registry_decides_for_each_visitor(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    tokens = TokenService(WORDS, RIGHTS)
    async with token_registry(folder, tokens) as server, start(server.url, **OURS) as front:
        for name in ("public/a", "team/b", "private/c"):
            scope = f"repository:{name}:pull,push"
            await handmade.push(server.url, name, "latest", made(), headers=bearer(tokens, "nixfront", scope))
        # Twice in this order: nobody gets an answer that is cached for another.
        visitors: tuple[dict[str, str], ...] = (
            basic("alice", WORDS["alice"]),
            {},
            basic("bob", "builder"),
            basic("bob", "guess"),
        ) * 2
        lists = [await seen(front, each, "/images") for each in visitors]
        logins = [(await front.get("/login", headers=each))[0] for each in visitors[:4]]

    names = [[name for name in ("public/a", "team/b", "private/c") if name in text] for text in lists]
    assert names == [["public/a", "team/b", "private/c"], ["public/a"], ["public/a", "team/b"], []] * 2
    assert logins == [303, 401, 303, 401]
    assert ("bob", ()) in tokens.asked


async def test_names_of_a_private_set_are_for_those_who_may_pull_from_it(
    start: Start, tmp_path: Path
) -> None:
    folder, own = tmp_path / "registry", tmp_path / "set"
    folder.mkdir()
    own.mkdir()
    (own / "default.nix").write_text(
        """{ system, ... }: { secretplan = derivation { name = "secretplan"; inherit system; builder = "/bin/sh"; }
             // { meta.description = "takes over the world"; }; }""",
        encoding="utf-8",
    )
    sets = {"team": {"kind": "path", "path": str(own)}}
    tokens = TokenService(WORDS, RIGHTS)
    paths = (
        "/",
        "/suggest?q=secret&set=team",
        "/packages?q=&set=team",
        "/packages/team/secretplan",
        "/packages/team/secretplam",
        "/compose?names=secretplan&set=team",
        "/compose?names=team/secretplam",
    )

    async def all_of_it(headers: dict[str, str]) -> str:
        texts = [(await front.get(path, headers=headers))[2].decode() for path in paths]
        return "\n".join(texts)

    async def is_listed() -> bool:
        answer = await front.get("/suggest?q=secret&set=team", headers=basic("bob", "builder"))
        return "secretplan" in answer[2].decode()

    async with token_registry(folder, tokens) as server, start(server.url, sets=sets, **OURS) as front:
        await until(is_listed)
        bob = await all_of_it(basic("bob", "builder"))
        others = [await all_of_it(each) for each in ({}, basic("bob", "guess"))]
        pressed = await front.get("/make", "POST", data={"repository": "team/secretplan"})
        searches = [
            (await front.get(f"/v1/search?q={name}/secret", headers=bearer(tokens, user, scope)))[2].decode()
            for name in ("team", "nosuch")
            for user, scope in (("bob", "repository:team/team:pull"), ("", "repository:team/team:pull"))
        ]

    assert "takes over the world" in bob
    assert "<option>team</option>" in bob
    for other in others:
        assert "world" not in other
        assert "did you mean" not in other, "a suggestion is a name"
        assert "<option>team</option>" not in other
    assert pressed[0] == 404
    assert "takes over the world" in searches[0]
    of_nobody, of_no_set = (json.loads(text)["results"] for text in (searches[1], searches[3]))
    assert of_nobody == of_no_set == [], "as on a host without the set"


async def test_a_token_that_nobody_verified_begins_no_build(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    tokens, forger = TokenService(WORDS, RIGHTS), TokenService(WORDS, RIGHTS)
    sets = {"public": {"kind": "path", "path": str(PACKAGES)}}
    forms = (
        bearer(forger, "alice", "repository:public/hello:pull"),
        bearer(tokens, "alice", "repository:public/hello:pull"),
        basic("bob", "builder"),
        basic("alice", WORDS["alice"]),
    )
    access = {"users": ("alice",)}
    async with (
        token_registry(folder, tokens) as server,
        start(server.url, sets=sets, access=access, **OURS) as front,
    ):
        answers = [
            await front.get("/make", "POST", data={"repository": "public/hello"}, headers=each)
            for each in forms
        ]

    assert [answer[0] for answer in answers] == [403, 403, 403, 303]
    assert "<h1>Not allowed</h1>" in answers[0][2].decode()
