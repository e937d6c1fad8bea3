"""Names that a package set lacks: cheap to ask, and cheap to answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest_asyncio
from aiohttp import web

from tests.integration.test_package_sets import files_over_http
from tests.integration.test_power_loss import channel
from tests.support.front import PACKAGES, Front
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NAMES = 25_000
LARGE = f"""{{ system }}@arguments:
let names = prefix: builtins.listToAttrs (builtins.genList
  (n: {{ name = "${{prefix}}${{toString n}}"; value = derivation {{ name = "x"; inherit system; builder = "/bin/sh"; }}; }}) {NAMES});
in import {PACKAGES}/default.nix arguments // names "Pkg-" // {{ "in" = names "Pkg-"; }}
"""


@pytest_asyncio.fixture
async def front(start: Start, registry: Server, tmp_path: Path) -> AsyncIterator[Front]:
    """nixfront with a set of 25,000 packages, and as many in a set inside it."""
    folder = tmp_path / "large"
    folder.mkdir()
    text = LARGE.replace(f"import {PACKAGES}/default.nix", "import ./tests.nix")
    (folder / "default.nix").write_text(text, encoding="utf-8")
    (folder / "tests.nix").write_bytes((PACKAGES / "default.nix").read_bytes())
    own = {"packages": {"path": str(folder), "always": ()}, "builds": {"failure_seconds": 0}}
    async with start(registry.url, **own) as front:
        yield front


async def missing(front: Front, *names: str) -> str:
    """The message of a pull of these names, all of which the set lacks."""
    status, _, body = await front.get(f"/v2/{'/'.join(names)}/manifests/latest")
    assert status == 404
    return str(json.loads(body)["errors"][0]["message"])


async def settled(front: Front) -> int:
    """How many evaluations there were, once the list of names for suggestions is done too."""
    before = -1
    while before != (now := front.nix_starts("nix-instantiate")):
        before = now
        await asyncio.sleep(3)
    return now


def wrong(prefix: str = "", start: int = 0) -> list[str]:
    """Twenty-five short names that are close to names of the set."""
    return [f"{prefix}pk-{start + number}" for number in range(25)]


async def test_many_missing_names_cost_one_evaluation_and_then_none(front: Front) -> None:
    started = time.monotonic()
    message = await missing(front, *wrong())
    first = time.monotonic() - started
    starts = await settled(front)

    started = time.monotonic()
    others = await asyncio.gather(*(missing(front, *wrong(start=100 * number)) for number in range(1, 9)))
    eight = time.monotonic() - started

    assert message.count("no package") == 25
    assert message.count("did you mean Pkg-") == 3, "the first few get suggestions"
    assert all(other.count("no package") == 25 for other in others)
    assert front.nix_starts("nix-instantiate") == starts, "the second question needs no Nix"
    assert first < 20
    assert eight < 8, "they took 45 s"


async def test_the_names_of_inner_sets_are_shipped_once_too(front: Front) -> None:
    first = await missing(front, *wrong("in.")[:15])
    starts = await settled(front)
    second = await missing(front, *wrong("in.", 500)[:15])

    assert "did you mean" in first
    assert second.count("no package in.") == 15
    assert front.nix_starts("nix-instantiate") == starts


async def test_a_name_that_is_there_is_found_after_one_that_is_not(front: Front) -> None:
    await missing(front, "nosuch", "in.nosuch")

    status, _, body = await front.get("/v2/hello/manifests/latest")
    assert status == 200, body
    assert "did you mean camelCase.innerPackage" in await missing(
        front, "hello", "camelcase.innerpackag", "nosuch2"
    )
    assert (await front.get("/v2/7zz/camelcase.innerpackage/manifests/latest"))[0] == 200


async def test_missing_images_cost_one_evaluation_and_then_none(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    file = tmp_path / "images.nix"
    file.write_text('{ ... }: { greeter = { packages = [ "hello" ]; }; }', encoding="utf-8")
    own: dict[str, Any] = {"images": {"file": str(file)}, "builds": {"failure_seconds": 0}}
    async with start(registry.url, **own) as front:
        evaluations = []
        for number in range(10):
            message = await missing(front, "images", f"greete{number}")
            assert "no image" in message
            assert "did you mean greeter?" in message
            evaluations.append(front.nix_starts("nix-instantiate"))
        await front.pull("images/greeter")
        file.write_text('{ ... }: { greete1 = { packages = [ "hello" ]; }; other = { }; }', encoding="utf-8")
        await front.pull("images/greete1")

    assert len(set(evaluations)) == 1


async def test_unknown_channels_cost_so_many_questions(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    served, questions = tmp_path / "served", []
    channel(served, "1" * 40)
    (served / "other").mkdir()
    (served / "other" / "git-revision").write_text("1" * 40, encoding="ascii")

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        questions.append(request.path)
        return await handler(request)

    async with files_over_http(served, count) as url:
        nixpkgs = {
            "kind": "nixpkgs",
            "url": f"{url}/{{revision}}.tar.gz",
            "pointer": f"{url}/{{ref}}/git-revision",
            "ref": "unstable",
            "path": "",
            "time_to_live": 0,
        }
        async with start(registry.url, packages=nixpkgs, builds={"failure_seconds": 0}) as front:
            for tag in ("latest", "other"):
                assert (await front.get(f"/v2/hello/manifests/{tag}"))[0] == 200
            questions.clear()
            answers = [(await front.get(f"/v2/hello/manifests/nosuch{number}"))[0] for number in range(60)]
            looks = sum("nosuch" in path for path in questions)
            again = [(await front.get(f"/v2/alpha/manifests/{tag}"))[0] for tag in ("latest", "other")]

    assert looks == answers.count(404) == 20
    assert answers.count(503) == 40
    assert again == [200, 200], "what was there before is looked for all the same"
