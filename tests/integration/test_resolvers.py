"""Scripts and updaters that ask what a tag is: whatever they accept, they get a digest that can be pulled."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import chain

import aiohttp
import pytest

from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST, EVERY_MANIFEST_TYPE, OCI_INDEX, OCI_MANIFEST
from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import shim
from tests.support.wait import Gate, at_redirect

Start = Callable[..., AbstractAsyncContextManager[Front]]
Answer = tuple[int, dict[str, str], bytes]
PATH = "/v2/hello/manifests/latest"
LONG = {"seconds": 600}
ACCEPTED: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "any": {"Accept": "*/*"},
    "oci": {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"},
    "docker": {"Accept": f"{DOCKER_MANIFEST}, {DOCKER_LIST}"},
    "every": {"Accept": EVERY_MANIFEST_TYPE},
}


async def ask(front: Front, path: str, accept: Mapping[str, str], method: str = "GET", **more: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return await front.get(path, method, headers={**accept, **named}, skip_auto_headers=["Accept"])


@pytest.mark.parametrize("seconds", [0, 600])
@pytest.mark.parametrize(("kind", "media_type"), [("docker", DOCKER_MANIFEST), ("oci", OCI_MANIFEST)])
async def test_whatever_is_accepted_an_image_of_ours_comes_as_it_is_stored(
    start: Start, registry: Server, kind: str, media_type: str, seconds: int
) -> None:
    """The first one has no Accept, and waits for the build."""
    async with start(registry.url, image={"format": kind}, answers={"seconds": seconds}) as front:
        answers = [
            await ask(front, PATH, accept, method)
            for _ in range(2)
            for method in ("GET", "HEAD")
            for accept in ACCEPTED.values()
        ]
        digest = answers[0][1]["Docker-Content-Digest"]
        by_digest = [
            await ask(front, f"/v2/hello/manifests/{digest}", accept) for accept in ACCEPTED.values()
        ]

    assert {status for status, _, _ in (*answers, *by_digest)} == {200}
    assert {headers["Content-Type"] for _, headers, _ in (*answers, *by_digest)} == {media_type}
    assert {headers["Docker-Content-Digest"] for _, headers, _ in (*answers, *by_digest)} == {digest}
    assert {headers["Vary"] for _, headers, _ in answers} == {"Accept"}
    assert {handmade.digest_of(body) for _, _, body in (*answers, *by_digest) if body} == {digest}


async def test_the_second_one_is_answered_from_the_cache(start: Start, registry: Server) -> None:
    async with shim(registry.url) as relay, start(relay.url, answers=LONG) as front:
        await front.pull("hello")
        for accept in ACCEPTED.values():
            first = await ask(front, PATH, accept)
            asked = relay.counts.copy()
            second = await ask(front, PATH, accept)
            assert relay.counts == asked
            assert (second[0], second[2], second[1]["Vary"]) == (200, first[2], "Accept")


@pytest.mark.parametrize("through", [True, False])
async def test_an_image_that_somebody_pushed_is_the_registrys_affair(
    start: Start, registry: Server, through: bool
) -> None:
    """It takes the tag of one of ours: through nixfront, whose cache knows, or past it."""
    image = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    alone = Front(registry.url, [], registry.process.log)
    async with start(registry.url, answers=LONG if through else {"seconds": 0}) as front:
        await front.pull("hello")
        for accept in ACCEPTED.values():
            assert (await ask(front, PATH, accept))[1]["Vary"] == "Accept"
        await handmade.push(front.url if through else registry.url, "hello", "latest", image)
        for accept in ACCEPTED.values():
            behind, straight = [await ask(each, PATH, accept, "HEAD") for each in (front, alone)]
            names = ("Docker-Content-Digest", "Content-Type", "Content-Length", "Vary")
            assert behind[0] == straight[0]
            assert [behind[1].get(name) for name in names] == [straight[1].get(name) for name in names]
        every = await ask(alone, PATH, ACCEPTED["every"], "HEAD")
    assert every[1]["Docker-Content-Digest"] == handmade.digest_of(image.manifest)


@pytest.mark.parametrize("seconds", [0, 600])
async def test_a_condition_is_met_by_the_answer_that_this_client_would_get(
    start: Start, registry: Server, seconds: int
) -> None:
    async with start(registry.url, answers={"seconds": seconds}) as front:
        digest = (await front.pull("hello")).digest
        etag = f'"{digest}"'
        for accept in ACCEPTED.values():
            for condition in (etag, f"W/{etag}", f'"x", {etag}', f'"x",W/{etag}', "*", digest):
                for method in ("GET", "HEAD"):
                    status, headers, body = await ask(front, PATH, accept, method, If_None_Match=condition)
                    assert (status, body) == (304, b""), (condition, accept)
                    assert (headers["Etag"], headers["Vary"]) == (etag, "Accept")
                    assert "Content-Type" not in headers
            assert (await ask(front, PATH, accept, If_None_Match='"x", W/"y"'))[0] == 200


async def test_no_304_for_another_document(start: Start, registry: Server) -> None:
    """Without Accept the registry converts what others pushed, into a document with another digest."""
    image = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    digest = await handmade.push(registry.url, "team/tool", "v1", image)
    path = "/v2/team/tool/manifests/v1"
    async with start(registry.url) as front:
        for accept, status in (("none", 200), ("docker", 304)):
            answer = await ask(front, path, ACCEPTED[accept], If_None_Match=f'"{digest}"')
            assert answer[0] == status
            assert (answer[1]["Etag"] == f'"{digest}"') is (status == 304)
    assert not registry.process.log_text().count(" 304 ")


async def test_a_head_that_is_only_a_question_waits_for_the_build(
    start: Start, registry: Server, gate: Gate
) -> None:
    scaled = {"patience": 0.3, "hop_seconds": 0.3, "hops": 9}
    agents = {"User-Agent": "Renovate/41.0.0 (https://github.com/renovatebot/renovate)"}
    opening = at_redirect(2, gate.open)
    async with start(registry.url, builds=scaled) as front:
        refused = await front.get("/v2/gated/manifests/latest", "HEAD", headers=ACCEPTED["every"])
        async with (
            aiohttp.ClientSession(headers=agents, trace_configs=[opening]) as session,
            session.head(f"{front.url}/v2/gated/manifests/latest", allow_redirects=True) as answer,
        ):
            assert [hop.status for hop in answer.history][:2] == [307, 307]
            assert (answer.status, answer.url.path) == (200, "/v2/gated/manifests/latest")
            digest = answer.headers["Docker-Content-Digest"]

        assert refused[0] == 405, "an engine is to send GET"
        assert digest == (await front.pull("gated")).digest


async def listed(front: Front, path: str) -> list[list[str]]:
    """The tags of each page, from this one on."""
    pages = []
    following: str | None = path
    while following is not None:
        status, headers, body = await front.get(following)
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        pages.append(json.loads(body)["tags"])
        link = re.fullmatch('<(.+)>; rel="next"', headers.get("Link", ""))
        following = link[1] if link else None
    return pages


async def test_the_tags_of_a_repository_of_ours_are_sorted_and_in_pages(
    start: Start, registry: Server
) -> None:
    image = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    mirror = {"allow": ("hello",)}
    async with start(registry.url, mirror=mirror) as front:
        await front.pull("hello")
        for tag in ("zz", "0", "Up"):
            await handmade.push(registry.url, "hello", tag, image)
        whole = await listed(front, "/v2/hello/tags/list")
        pages = await listed(front, "/v2/hello/tags/list?n=2")
        mirrored = await listed(front, "/v2/library/hello/tags/list?ns=docker.io&n=4")
        behind = await listed(front, "/v2/hello/tags/list?last=z")

    assert len(whole) == 1
    assert whole[0] == sorted(whole[0])
    assert {"0", "Up", "latest", "zz"} < set(whole[0])
    assert {len(page) for page in pages[:-1]} == {2}
    assert 1 <= len(pages[-1]) <= 2
    assert [*chain(*pages)] == [*chain(*mirrored)] == whole[0]
    assert len(mirrored) == 2
    assert len(mirrored[0]) == 4
    assert behind == [["zz"]]


async def test_no_tag_left_is_an_empty_list(start: Start, registry: Server) -> None:
    image = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    async with start(registry.url) as front:
        ours = (await front.pull("hello")).digest
        theirs = await handmade.push(registry.url, "team/tool", "v1", image)
        for name, digest in (("hello", ours), ("team/tool", theirs)):
            assert (await front.get(f"/v2/{name}/manifests/{digest}", "DELETE"))[0] == 202
            assert await listed(front, f"/v2/{name}/tags/list") == [[]]
            assert await listed(front, f"/v2/{name}/tags/list?n=1") == [[]]
