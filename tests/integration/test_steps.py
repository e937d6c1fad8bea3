"""How much Python a manifest costs, which is what decides how many pulls one processor bears."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from proxy.core.model import DOCKER_MANIFEST
from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.steps import count

Start = Callable[..., AbstractAsyncContextManager[Front]]


# `most` lines of nixfront's own code, with some room: what a pull costs grows in plain sight.
@pytest.mark.parametrize(
    ("seconds", "most"),
    [pytest.param(0, 405, id="passed through"), pytest.param(600, 100, id="from the cache")],
)
async def test_a_manifest_takes_few_steps(start: Start, registry: Server, seconds: float, most: int) -> None:
    layers = [handmade.tar(entries) for entries in handmade.store_layers(b"#!/bin/sh\n")]
    await handmade.push(registry.url, "team/tool", "v1", handmade.image(layers, media_type=DOCKER_MANIFEST))
    # Without the line of the log: what it costs depends on how an earlier test set logging up.
    async with start(registry.url, answers={"seconds": seconds}, log={"requests": False}) as front:
        steps = [await count(front.url, "/v2/team/tool/manifests/v1", DOCKER_MANIFEST) for _ in range(5)]

    # What nixfront does now and then may fall into one of them on a busy machine, and not into all.
    fewest = min(steps, key=lambda one: one.lines)
    print(fewest)
    assert fewest.lines <= most
