"""Names that a package set lacks: cheap to ask, and cheap to answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest_asyncio

from tests.support.front import PACKAGES, Front
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]
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
