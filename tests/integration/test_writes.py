"""Who may write to the registry through nixfront: `access.push`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from proxy import settings
from proxy.wiring import server
from tests.support import handmade
from tests.support.front import PACKAGES, Front
from tests.support.guarded import PASSWORDS, basic, htpasswd_registry
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]
OURS = {"username": "nixfront", "password": PASSWORDS["nixfront"]}
UPLOAD = "/v2/team/tool/blobs/uploads/"
STRANGER = {"X-Forwarded-For": "203.0.113.5"}
WRITES = (
    ("POST", UPLOAD),
    ("POST", "//v2/team/tool/blobs/uploads/"),
    ("POST", "/%76%32/team/tool/blobs/uploads/"),
    ("POST", "/x/../v2/team/tool/blobs/uploads/"),
    ("PUT", "/v2/team/tool/manifests/v1"),
    ("PATCH", f"{UPLOAD}1"),
    ("DELETE", "/v2/team/tool/manifests/sha256:" + "0" * 64),
)


@asynccontextmanager
async def embedded(folder: Path, **access: object) -> AsyncIterator[Front]:
    """A nixfront with its own registry."""
    chosen = settings.load(
        None,
        {},
        http={"addr": "127.0.0.1:0"},
        data={"dir": str(folder / "data")},
        nix={"store": str(folder / "store")},
        packages={"kind": "path", "path": str(PACKAGES)},
        access=access,
    )
    async with server.serve(chosen) as url:
        yield Front(url, [], folder / "nix-starts")


async def test_only_this_host_writes_to_the_embedded_registry(tmp_path: Path) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    async with embedded(tmp_path) as front:
        await handmade.push(front.url, "team/tool", "v1", made)
        refused = [await front.get(path, method, headers=STRANGER) for method, path in WRITES]
        also = await front.get(UPLOAD, "POST", headers={"X-Forwarded-For": "127.0.0.1, 203.0.113.5"})
        logged_in = await front.get(UPLOAD, "POST", headers={**STRANGER, **basic("alice")})
        read = await front.get("/v2/team/tool/manifests/v1", headers={**STRANGER, "Accept": "*/*"})
        await front.pull("hello", headers=STRANGER)

    assert [answer[0] for answer in (*refused, also, logged_in)] == [403] * (len(WRITES) + 2)
    assert b'"DENIED"' in refused[0][2]
    assert b"access.push" in refused[0][2]
    assert read[0] == 200, "everybody reads"


@pytest.mark.parametrize(("push", "status"), [("all", 202), ("none", 403)])
async def test_the_operator_may_let_everybody_or_nobody(tmp_path: Path, push: str, status: int) -> None:
    async with embedded(tmp_path, push=push) as front:
        answers = [await front.get(UPLOAD, "POST", headers=headers) for headers in ({}, STRANGER)]
        await front.pull("hello")

    assert [answer[0] for answer in answers] == [status] * 2


async def test_a_foreign_registry_decides_itself(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        answer = await front.get(UPLOAD, "POST", headers=STRANGER)

    assert answer[0] == 202


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 403, id="nobody"),
        pytest.param(basic("alice"), 202, id="a user"),
        pytest.param(basic("alice", "guessed"), 401, id="a wrong password"),
        pytest.param({"Authorization": "Bearer x"}, 403, id="a token of nobody"),
    ],
)
async def test_users_of_the_registry(
    start: Start, tmp_path: Path, headers: Mapping[str, str], status: int
) -> None:
    (tmp_path / "registry").mkdir()
    async with (
        htpasswd_registry(tmp_path / "registry") as closed,
        start(closed.url, registry=OURS, access={"push": "users"}) as front,
    ):
        answer = await front.get(UPLOAD, "POST", headers=headers)

    assert answer[0] == status


async def test_a_registry_that_checks_nobody_has_no_users(start: Start, registry: Server) -> None:
    async with start(registry.url, access={"push": "users"}) as front:
        answers = await asyncio.gather(
            *(front.get(UPLOAD, "POST", headers=headers) for headers in ({}, basic("alice")))
        )

    assert [answer[0] for answer in answers] == [403, 403]
