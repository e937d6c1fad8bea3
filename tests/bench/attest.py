"""The documents of an image: how long after its tag they are attached, and how many bytes they are in the registry."""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from proxy.core.model import EVERY_MANIFEST_TYPE, OCI_INDEX, OCI_MANIFEST
from tests.bench.bench import Bench
from tests.bench.cold import IMAGES
from tests.bench.result import Measure, Result, result
from tests.support.wait import until

_CHOSEN = ("small", "medium", "huge")


async def _measure(bench: Bench) -> Sequence[Result]:
    seconds, sizes, images = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list), {}
    async with bench.scratch() as folder:
        for number in range(bench.rounds):
            for name in _CHOSEN:
                took, size, images[name] = await _round(bench, folder / f"{name}-{number}", IMAGES[name][0])
                seconds[name].append(took)
                sizes[name].append(size / 1e3)
    lines = [result(f"attest/time-{name}", seconds[name], unit="s") for name in _CHOSEN]
    for name in _CHOSEN:
        lines.append(result(f"attest/bytes-{name}", sizes[name], [images[name] / 1e3], unit="kB"))
    return lines


async def _round(bench: Bench, folder: Path, image: str) -> tuple[float, int, int]:
    """Seconds from the tag to the documents; the bytes of the documents, and of the image."""
    async with (
        bench.registry(folder / "registry") as registry,
        bench.front(folder / "front", registry, trust={"attach": True}) as front,
        aiohttp.ClientSession(registry.url) as session,
    ):
        async with aiohttp.ClientSession(front.url) as client:
            path = f"/v2/{image}/manifests/latest"
            async with client.get(path, headers={"Accept": EVERY_MANIFEST_TYPE}) as answer:
                assert answer.status == 200, await answer.text()
                manifest = json.loads(await answer.read())
                digest = answer.headers["Docker-Content-Digest"]
        tag = time.perf_counter()
        await until(lambda: not [*(folder / "front/data/attachments").glob("*.json")])
        took = time.perf_counter() - tag
        path = f"/v2/{image}/manifests/{digest.replace(':', '-')}"
        async with session.get(path, headers={"Accept": OCI_INDEX}) as answer:
            index = await answer.read()
            assert answer.status == 200, index
        size = len(index)
        for entry in json.loads(index)["manifests"]:
            path = f"/v2/{image}/manifests/{entry['digest']}"
            async with session.get(path, headers={"Accept": OCI_MANIFEST}) as answer:
                assert answer.status == 200, await answer.text()
                artifact = json.loads(await answer.read())
            size += entry["size"] + sum(layer["size"] for layer in artifact["layers"])
    return took, size, sum(layer["size"] for layer in manifest["layers"])


MEASURES = (
    Measure(tuple(f"attest/{kind}-{name}" for kind in ("time", "bytes") for name in _CHOSEN), _measure),
)
