"""Scripts and updaters that ask what a tag is: whatever they accept, they get a digest that can be pulled."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import pytest

from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST, EVERY_MANIFEST_TYPE, OCI_INDEX, OCI_MANIFEST
from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import shim

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
