"""What a second platform costs: the same image for one platform and for two, measured as in `cold`.

The packages are those of the demo set, which one host makes for both platforms. A first pull, which does not count, makes
them; `platforms` in the folder of the bench keeps them. Every round then makes both images by a nixfront and a registry
that know nothing.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.bench import cold
from tests.bench.bench import Bench
from tests.bench.result import Measure, Result, result
from tests.support.servers import nixfront

_IMAGE = "git"
_ONE = ("linux/amd64",)
_BOTH = (*_ONE, "linux/arm64")


async def _measure(bench: Bench) -> Sequence[Result]:
    kept = await asyncio.to_thread((bench.at / "platforms").absolute)
    sandboxed = "sandbox = false" not in os.environ.get("NIX_CONFIG", "")
    store = str(kept / "store") if sandboxed else ""
    one: list[float] = []
    two: list[float] = []
    async with bench.scratch() as folder:
        await asyncio.to_thread((kept / "nixfront.log").unlink, missing_ok=True)  # of an earlier run
        await _seconds(bench, kept, folder / "first", store, _BOTH)
        for number in range(bench.rounds):
            for seconds, platforms in ((one, _ONE), (two, _BOTH)):
                place = folder / f"{number}-{len(platforms)}"
                await asyncio.to_thread(
                    shutil.copytree, kept / "data/sets", place / "data/sets", symlinks=True
                )
                seconds.append(await _seconds(bench, place, place, store, platforms))
    return [result("cold/two-platforms", two, one, unit="s")]


async def _seconds(bench: Bench, place: Path, scratch: Path, store: str, platforms: Sequence[str]) -> float:
    """What the image of these platforms takes, by a nixfront in `place` and an empty registry in `scratch`."""
    async with bench.registry(scratch / "registry") as registry:
        settings = {
            "registry": {"url": registry.url},
            "packages": {"kind": "demo"},
            "image": {"index": True, "platforms": list(platforms)},
            "nix": {"store": store},
        }
        async with nixfront(place, settings=settings) as front:
            return cold.counted(await cold.pull(front, _IMAGE))


MEASURES = (Measure(("cold/two-platforms",), _measure),)
