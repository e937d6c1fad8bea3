"""From a realised closure to a tag."""

from collections.abc import Sequence
from time import perf_counter

import aiohttp

from proxy.registry import EVERY_MANIFEST_TYPE
from tests.bench.bench import Bench
from tests.bench.result import Measure, Result, result

#: The images that are made, by the name of their line: what is asked for.
IMAGES = {
    "small": "hello",  # 15 MB
    "medium": "git/python3",  # 0.17 GB
    "large": "gcc/python3packages.numpy",  # 0.35 GB
    "huge": "gcc/clang/ffmpeg",  # 1.3 GB
}


async def _cold(bench: Bench) -> Sequence[Result]:
    """The first pull of each image, by a nixfront and a registry that know nothing."""
    results = []
    for name, image in IMAGES.items():
        seconds = []
        for _ in range(bench.rounds):
            async with (
                bench.scratch() as folder,
                bench.registry(folder / "registry") as registry,
                bench.front(folder / "front", registry) as front,
            ):
                seconds.append(await _pull(f"{front.url}/v2/{image}/manifests/latest"))
        results.append(result(f"cold/{name}", seconds, unit="s"))
    return results


async def _pull(url: str) -> float:
    """Seconds until the manifest is there."""
    async with aiohttp.ClientSession() as session:
        started = perf_counter()
        async with session.get(url, headers={"Accept": EVERY_MANIFEST_TYPE}) as answer:
            await answer.read()
            if answer.status != 200:
                raise AssertionError(f"GET {url} answered {answer.status}: {await answer.text()}")
        return perf_counter() - started


MEASURES = (Measure(tuple(f"cold/{name}" for name in IMAGES), _cold),)
