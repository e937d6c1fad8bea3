"""What the registry told everybody a moment ago is told again, and nothing else is."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.integration.test_passthrough import raw
from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server, stock_registry
from tests.support.shim import AnswerHeld, Cut, Rule, Shim, Status, shim
from tests.support.wait import until

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
Answer = tuple[int, dict[str, str], bytes]
PATH = "/v2/team/tool/manifests/v1"
DOCKER = {"Accept": DOCKER_MANIFEST}
ID = "X-Request-ID"  # as aiohttp spells it when it reads it
LONG = {"seconds": 600}  # no test is so slow that an answer ends by its age


@pytest_asyncio.fixture
async def relay(registry: Server) -> AsyncIterator[Shim]:
    """A relay before the registry that counts."""
    async with shim(registry.url) as relay:
        yield relay


def made(program: bytes = b"#!/bin/sh\n", media_type: str = DOCKER_MANIFEST) -> handmade.HandmadeImage:
    layers = [handmade.tar(entries) for entries in handmade.store_layers(program)]
    return handmade.image(layers, media_type=media_type)


async def ask(front: Front, path: str, method: str = "GET", **options: Any) -> Answer:
    """The answer without the id that is each one's own."""
    status, headers, body = await front.get(path, method, **options)
    return status, {name: value for name, value in headers.items() if name != ID}, body


def direct(registry: Server) -> Front:
    """The registry, asked as nixfront is."""
    return Front(registry.url, [], registry.process.log)


async def test_the_second_pull_is_the_first_answer_and_asks_nobody(
    start: Start, registry: Server, relay: Shim
) -> None:
    image = made()
    digest = await handmade.push(registry.url, "team/tool", "v1", image)
    async with start(relay.url, answers=LONG) as front:
        first, second = [await ask(front, PATH, headers=DOCKER) for _ in range(2)]
        heads = [await ask(front, PATH, "HEAD", headers=DOCKER) for _ in range(2)]
        counts = relay.counts.copy()
        straight = await ask(direct(registry), PATH, headers=DOCKER)

    assert first == second, "the Date too"
    assert first[2] == image.manifest
    assert first[1]["Docker-Content-Digest"] == digest
    own = {"Date": "", "Server": ""}  # the relay names itself
    assert {**first[1], **own} == {**straight[1], **own}
    assert heads == [(200, first[1], b"")] * 2
    assert (counts["GET", "manifest"], counts["HEAD", "manifest"]) == (1, 0)


async def test_a_head_is_remembered_for_heads_and_for_manifests_that_are_known(
    start: Start, registry: Server, relay: Shim
) -> None:
    digest = await handmade.push(registry.url, "team/tool", "v1", made())
    by_digest = f"/v2/team/tool/manifests/{digest}"
    async with start(relay.url, answers=LONG) as front:
        heads = [await ask(front, PATH, "HEAD", headers=DOCKER) for _ in range(2)]
        assert relay.counts["HEAD", "manifest"] == 1
        pulled = await ask(front, by_digest, headers=DOCKER)
        by_tag = await ask(front, PATH, headers=DOCKER)

    assert relay.counts["GET", "manifest"] == 1, "the tag's HEAD and the digest's GET say all"
    assert heads[0] == heads[1]
    assert pulled[2] == by_tag[2]
    assert by_tag[1] == heads[0][1]


async def test_an_answer_from_memory_has_an_id_of_its_own(start: Start, registry: Server) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(registry.url, answers=LONG) as front:
        chosen = [{}, {}, {ID: "chosen-by-nginx"}]
        given = [(await front.get(PATH, headers={**DOCKER, **own}))[1][ID] for own in chosen]

    assert len(set(given)) == 3
    assert given[2] == "chosen-by-nginx"


async def test_an_id_of_the_registrys_is_told_once(start: Start) -> None:
    """It stays as it is where the registry was asked, and is not told again for another request."""
    manifest = made().manifest
    head = (
        f"HTTP/1.1 200 OK\r\nX-Request-Id: of-the-registry\r\nContent-Type: {DOCKER_MANIFEST}\r\n"
        f"Docker-Content-Digest: {handmade.digest_of(manifest)}\r\nContent-Length: {len(manifest)}\r\n"
        "Connection: close\r\n\r\n"
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + manifest)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, start(url, answers=LONG) as front:
        first, second = [await front.get(PATH, headers=DOCKER) for _ in range(2)]

    assert first[1][ID] == "of-the-registry"
    assert second[1][ID] != "of-the-registry"
    assert first[2] == second[2] == manifest


ACCEPTED = {
    "docker": [DOCKER_MANIFEST],
    "oci": [OCI_MANIFEST],
    "both": [OCI_MANIFEST, DOCKER_MANIFEST],
    "lists": [DOCKER_LIST, OCI_INDEX],
    "anything": ["*/*"],
    "nothing": [],
    "quality": [f"{DOCKER_MANIFEST};q=0.1", "*/*"],
}


def unsigned(manifest: bytes) -> bytes:
    """A manifest of schema 1, into which the stock registry converts, without the signature that each one gets anew."""
    return manifest.partition(b'"signatures"')[0]


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, OCI_MANIFEST])
async def test_what_is_accepted_decides_as_it_does_without_us(
    start: Start, registry: Server, media_type: str
) -> None:
    """The stock registry converts, or says 404 or 400, by what is accepted; each set is answered for itself."""
    await handmade.push(registry.url, "team/tool", "v1", made(media_type=media_type))
    async with start(registry.url, answers=LONG) as front:
        for again in range(2):
            for name, accepted in ACCEPTED.items():
                lines = [("Accept", kind) for kind in accepted]
                through = await ask(front, PATH, headers=lines, skip_auto_headers=["Accept"])
                straight = await ask(direct(registry), PATH, headers=lines, skip_auto_headers=["Accept"])
                assert (through[0], unsigned(through[2])) == (straight[0], unsigned(straight[2])), (
                    name,
                    again,
                )
                assert through[1].get("Content-Type") == straight[1].get("Content-Type"), (name, again)


async def test_the_same_types_in_another_order_are_one_question(
    start: Start, registry: Server, relay: Shim
) -> None:
    """docker sends its Accept lines in random order."""
    await handmade.push(registry.url, "team/tool", "v1", made())
    types = [DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST]
    orders = [
        [("Accept", kind) for kind in types],
        [("accept", kind) for kind in reversed(types)],
        [("Accept", ", ".join([*types[1:], types[0]]))],
        [("Accept", f"{types[0]},{types[1]}"), ("Accept", types[2])],
    ]
    async with start(relay.url, answers=LONG) as front:
        answers = [await ask(front, PATH, headers=lines) for lines in orders]

    assert relay.counts["GET", "manifest"] == 1
    assert answers == [answers[0]] * len(answers)


@pytest.mark.parametrize("option", ["accept", "close, Accept", "Accept, keep-alive"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_connection_cannot_make_others_get_another_answer(
    start: Start, registry: Server, method: str, option: str
) -> None:
    """Without its Accept the registry answers a manifest of schema 1, with another digest."""
    digest = await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(registry.url, answers=LONG) as front:
        attack = f"{method} {PATH} HTTP/1.1\r\nHost: x\r\nAccept: {DOCKER_MANIFEST}\r\nConnection: {option}\r\n\r\n"
        last = "" if "close" in option else "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        own = await raw(front.url, attack + last)
        others = [await ask(front, PATH, each, headers=DOCKER) for each in ("HEAD", "GET")]

    assert f"Docker-Content-Digest: {digest}".encode() in own, "nor does the attacker get it"
    assert {(status, headers["Docker-Content-Digest"]) for status, headers, _ in others} == {(200, digest)}
    assert {headers["Content-Type"] for _, headers, _ in others} == {DOCKER_MANIFEST}


async def test_an_answer_of_a_type_that_the_client_does_not_accept_is_not_repeated(start: Start) -> None:
    """A registry, or a proxy before it, that does not look at Accept."""
    manifest = made().manifest
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {OCI_MANIFEST}\r\nDocker-Content-Digest: {handmade.digest_of(manifest)}\r\n"
        f"Content-Length: {len(manifest)}\r\nConnection: close\r\n\r\n"
    )
    count = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await reader.readuntil(b"\r\n\r\n")
        count += 1
        writer.write(head.encode() + manifest)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, start(url, answers=LONG) as front:
        for accepted, questions in ((DOCKER_MANIFEST, 2), (f"{OCI_MANIFEST};q=0.5", 1), ("*/*", 1)):
            before = count
            for _ in range(2):
                assert (await ask(front, PATH, headers={"Accept": accepted}))[2] == manifest
            assert count - before == questions, accepted


BASIC = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}
# bcrypt of "secret"
HTPASSWD = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


async def test_what_a_user_may_see_is_told_to_nobody_else(start: Start, tmp_path: Path) -> None:
    """A registry with htpasswd: the owner's answers are never given to one who comes without a password."""
    folder = tmp_path / "closed"
    folder.mkdir()
    users = folder / "htpasswd"
    users.write_text(HTPASSWD, encoding="ascii")
    guarded = {"auth": {"htpasswd": {"realm": "ours", "path": str(users)}}}
    async with (
        stock_registry(folder, sections=guarded) as registry,
        shim(registry.url) as relay,
        start(relay.url, answers=LONG) as front,
    ):
        await handmade.push(registry.url, "team/tool", "v1", made(), headers=BASIC)
        wrong = {"Authorization": "Basic " + base64.b64encode(b"user:wrong").decode()}
        seen = []
        for _ in range(2):
            for headers in (BASIC, {}, wrong):
                status, _, body = await ask(front, PATH, headers={**DOCKER, **headers})
                seen.append((status, body == made().manifest))

    assert seen == [(200, True), (401, False), (401, False)] * 2
    assert relay.counts["GET", "manifest"] == 6


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        pytest.param({"Authorization": "Bearer x"}, PATH, id="a token"),
        pytest.param({"Cookie": "session=1"}, PATH, id="a cookie"),
        pytest.param({"Proxy-Authorization": "Basic eDp5"}, PATH, id="for a proxy"),
        pytest.param({"X-Api-Key": "x"}, PATH, id="a header that we do not know"),
        pytest.param({"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, PATH, id="a condition"),
        pytest.param({"Range": "bytes=0-1"}, PATH, id="a part"),
        pytest.param({"Cache-Control": "no-cache"}, PATH, id="no memory wanted"),
        pytest.param({}, PATH + "?n=1", id="a query"),
        pytest.param({}, PATH.replace("team", "te%61m"), id="escaped"),
        pytest.param({"Content-Length": "0"}, PATH, id="with a body"),
    ],
)
async def test_the_registry_is_asked(
    start: Start, registry: Server, relay: Shim, headers: Mapping[str, str], path: str
) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(relay.url, answers=LONG) as front:
        # What is known already is not told to such a request, and what it is told is not told to others.
        await ask(front, PATH, headers=DOCKER)
        plain = relay.counts["GET", "manifest"]
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                url = URL(front.url + path, encoded=True)
                async with session.get(url, headers={**DOCKER, **headers}) as answer:
                    assert answer.status == 200

    assert (plain, relay.counts["GET", "manifest"]) == (1, 3)


async def test_a_condition_is_the_registrys_to_judge(start: Start, registry: Server) -> None:
    digest = await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(registry.url, answers=LONG) as front:
        await ask(front, PATH, headers=DOCKER)
        status, _, body = await ask(front, PATH, headers={**DOCKER, "If-None-Match": f'"{digest}"'})

    assert (status, body) == (304, b"")


async def test_clients_of_a_web_server_in_front_are_told_apart(
    start: Start, registry: Server, relay: Shim
) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(relay.url, answers=LONG, http={"trusted_proxies": ("127.0.0.1",)}) as front:
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            await ask(front, PATH, headers={**DOCKER, "X-Forwarded-For": address})

    assert relay.counts["GET", "manifest"] == 2


async def test_who_only_says_to_be_another_is_not(start: Start, registry: Server, relay: Shim) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(relay.url, answers=LONG) as front:
        for address in ("192.0.2.1", "192.0.2.2"):
            await ask(front, PATH, headers={**DOCKER, "X-Forwarded-For": address})

    assert relay.counts["GET", "manifest"] == 1


async def test_a_mirrors_clients_and_direct_ones_share_what_is_known(
    start: Start, registry: Server, relay: Shim
) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(relay.url, answers=LONG, mirror={"allow": ("team/*",)}) as front:
        answers = [await ask(front, path, headers=DOCKER) for path in (PATH, f"{PATH}?ns=docker.io")]
        refused = await ask(front, f"{PATH}?ns=other.example", headers=DOCKER)

    # A mirror also asks, for another repository, whether the registry lets anybody pull.
    assert relay.requests.count(("GET", PATH)) == 1
    assert answers[0] == answers[1]
    assert refused[0] == 404


@pytest.mark.parametrize("path", ["/v2/team/tool", "/v2/te%61m/tool"], ids=["plain", "escaped"])
async def test_a_push_through_us_is_seen_at_once(start: Start, registry: Server, path: str) -> None:
    old, new = made(), made(b"#!/bin/sh\nexit 0\n")
    await handmade.push(registry.url, "team/tool", "v1", old)
    async with start(registry.url, answers=LONG) as front:
        before = await ask(front, PATH, headers=DOCKER)
        await handmade.push(registry.url, "team/tool", "v2", new)
        async with aiohttp.ClientSession() as session:
            url = URL(f"{front.url}{path}/manifests/v1", encoded=True)
            async with session.put(
                url, data=new.manifest, headers={"Content-Type": DOCKER_MANIFEST}
            ) as answer:
                assert answer.status == 201
        after = await ask(front, PATH, headers=DOCKER)
        head = await ask(front, PATH, "HEAD", headers=DOCKER)

    assert (before[2], after[2]) == (old.manifest, new.manifest)
    assert head[1] == after[1]


async def test_a_delete_through_us_is_seen_at_once(start: Start, registry: Server) -> None:
    """A digest is deleted, and with it every tag of it."""
    digest = await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(registry.url, answers=LONG) as front:
        before, _, _ = await ask(front, PATH, headers=DOCKER)
        deleted, _, _ = await ask(front, f"/v2/team/tool/manifests/{digest}", "DELETE")
        after, _, _ = await ask(front, PATH, headers=DOCKER)
        by_digest, _, _ = await ask(front, f"/v2/team/tool/manifests/{digest}", headers=DOCKER)

    assert (before, deleted, after, by_digest) == (200, 202, 404, 404)


async def test_an_upload_makes_nothing_forgotten(start: Start, registry: Server, relay: Shim) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(relay.url, answers=LONG) as front:
        await ask(front, PATH, headers=DOCKER)
        await ask(front, "/v2/team/tool/blobs/uploads/", "POST")
        await handmade.push(front.url, "team/other", "v1", made())
        await ask(front, PATH, headers=DOCKER)

    assert relay.counts["GET", "manifest"] == 1


async def test_an_answer_that_was_on_its_way_during_a_push_is_not_kept(
    start: Start, registry: Server
) -> None:
    old, new = made(), made(b"#!/bin/sh\nexit 0\n")
    await handmade.push(registry.url, "team/tool", "v1", old)
    late = AnswerHeld()
    async with (
        shim(registry.url, Rule("GET", "/manifests/v1", late)) as relay,
        start(relay.url, answers=LONG) as front,
    ):
        asked = asyncio.create_task(front.get(PATH, headers=DOCKER))
        await until(lambda: relay.held)
        await handmade.push(front.url, "team/tool", "v1", new)
        assert not asked.done()
        late.go.set()
        first = await asked
        second = await ask(front, PATH, headers=DOCKER)

    assert first[2] == old.manifest, "else this tried nothing"
    assert second[2] == new.manifest


@pytest.mark.without_documents("it counts manifests that the registry is asked for, behind a build")
async def test_a_build_is_seen_at_once_and_then_remembered(
    start: Start, registry: Server, relay: Shim
) -> None:
    async with start(relay.url, answers=LONG) as front:
        built = await ask(front, "/v2/hello/manifests/latest", headers=DOCKER)
        asked = relay.counts["GET", "manifest"]
        again = await ask(front, "/v2/hello/manifests/latest", headers=DOCKER)

    assert built[0] == 200
    assert again == built
    assert relay.counts["GET", "manifest"] == asked


@pytest.mark.without_documents("it counts manifests that the registry is asked for, behind a build")
async def test_many_who_waited_for_one_build_are_one_question(
    start: Start, registry: Server, relay: Shim
) -> None:
    path = "/v2/hello/manifests/latest"
    async with start(relay.url, answers=LONG) as front:
        answers = await asyncio.gather(*(ask(front, path, headers=DOCKER) for _ in range(10)))
        straight = await ask(direct(registry), path, headers=DOCKER)

    assert {(status, body) for status, _, body in answers} == {(200, straight[2])}
    assert relay.counts["GET", "manifest"] == 10 + 1, "each before the build, one after it"


@pytest.mark.without_documents("it counts manifests that the registry is asked for, behind a build")
async def test_many_who_waited_for_one_build_are_asked_for_where_nothing_is_remembered(
    start: Start, relay: Shim
) -> None:
    path = "/v2/hello/manifests/latest"
    personal = {**DOCKER, "Authorization": "Basic b25lOnR3bw=="}
    async with start(relay.url, answers=LONG) as front:
        answers = await asyncio.gather(*(ask(front, path, headers=personal) for _ in range(5)))

    assert {status for status, _, _ in answers} == {200}
    assert relay.counts["GET", "manifest"] == 5 + 5


async def test_what_is_not_there_is_never_remembered(start: Start, registry: Server) -> None:
    """`sha256-<hex>` is a referrers tag, which nobody builds."""
    path = "/v2/team/tool/manifests/sha256-" + "0" * 64
    async with start(registry.url, answers=LONG) as front:
        missing, _, _ = await ask(front, path, headers=DOCKER)
        await handmade.push(registry.url, "team/tool", "sha256-" + "0" * 64, made())
        found, _, _ = await ask(front, path, headers=DOCKER)

    assert (missing, found) == (404, 200)


@pytest.mark.parametrize("status", [429, 500])
async def test_a_refusal_is_never_remembered(start: Start, registry: Server, status: int) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with (
        shim(registry.url, Rule("GET", "/manifests/", Status(status))) as relay,
        start(relay.url, answers=LONG) as front,
    ):
        statuses = [(await ask(front, PATH, headers=DOCKER))[0] for _ in range(2)]

    assert statuses == [status, 200]


async def test_a_push_behind_our_back_is_seen_when_the_time_is_over(start: Start, registry: Server) -> None:
    old, new = made(), made(b"#!/bin/sh\nexit 0\n")
    await handmade.push(registry.url, "team/tool", "v1", old)
    async with start(registry.url, answers={"seconds": 0.5}) as front:
        await ask(front, PATH, headers=DOCKER)
        await handmade.push(registry.url, "team/tool", "v1", new)

        async def seen() -> bool:
            return (await ask(front, PATH, headers=DOCKER))[2] == new.manifest

        await until(seen)


@pytest.mark.parametrize("answers", [{"seconds": 0}, {"seconds": 600, "most_bytes": 0}])
async def test_without_memory_the_registry_is_asked_each_time(
    start: Start, registry: Server, relay: Shim, answers: Mapping[str, int]
) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with start(relay.url, answers=answers) as front:
        for _ in range(3):
            status, _, body = await ask(front, PATH, headers=DOCKER)
            assert (status, body) == (200, made().manifest)

    assert relay.counts["GET", "manifest"] == 3


async def test_a_registry_that_breaks_off_in_a_manifest(start: Start, registry: Server) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    async with (
        shim(registry.url, Rule("GET", "/manifests/", Cut(100))) as relay,
        start(relay.url, answers=LONG) as front,
    ):
        broken, _, _ = await ask(front, PATH, headers=DOCKER)
        whole = await ask(front, PATH, headers=DOCKER)

    assert broken == 503, "nothing had been sent: the client learns of it"
    assert whole[2] == made().manifest


async def test_connections_end_as_their_clients_wish(start: Start, registry: Server) -> None:
    await handmade.push(registry.url, "team/tool", "v1", made())
    head = f"GET {PATH} HTTP/%s\r\nHost: x\r\nAccept: {DOCKER_MANIFEST}\r\n"
    async with start(registry.url, answers=LONG) as front:
        await ask(front, PATH, headers=DOCKER)
        closed = await raw(front.url, head % "1.1" + "Connection: close\r\n\r\n")
        kept = await raw(front.url, (head + "\r\n" + head) % ("1.1", "1.1") + "Connection: close\r\n\r\n")
        older = await raw(front.url, head % "1.0" + "\r\n")
        older_kept = await raw(
            front.url, head % "1.0" + "Connection: keep-alive\r\n\r\n" + head % "1.0" + "\r\n"
        )

    assert closed.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in closed
    assert kept.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert kept.count(made().manifest) == 2
    assert kept.count(b"Connection: close") == 1
    assert older.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Connection" not in older
    assert older_kept.count(b"HTTP/1.0 200 OK\r\n") == 2
    assert older_kept.count(b"Connection: keep-alive\r\n") == 1
    assert older.endswith(made().manifest)
