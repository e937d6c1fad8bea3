"""From a realised closure to a tag: how long it takes, how much memory, and what a second image costs.

Each round makes the image anew, by a nixfront and a registry that know nothing, and runs the floor (see `floor`) on
the same layers right after it, so that both see the same machine. What is counted for us begins when Nix has
realised the packages and ends when the tag is there: nixfront's own log says so (`layers` and `put`). The
packages are realised before; what Nix takes to find that out is `cold/nix-*`.
"""

import asyncio
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp

from proxy.core.model import EVERY_MANIFEST_TYPE
from proxy.image import store_tree, tar
from proxy.pipeline import packing
from proxy.registry.endpoint import Endpoint
from proxy.upkeep.explain import explain
from tests.bench import floor
from tests.bench.bench import Bench, most_memory
from tests.bench.result import Measure, Result, result
from tests.support.servers import Server

#: The images that are made, by the name of their line: what is asked for, and the same in another order.
IMAGES = {
    "small": ("hello/glibc", "glibc/hello"),  # 15 MB
    "medium": ("git/python3/openssh/ripgrep", "ripgrep/python3/git/openssh"),  # 0.17 GB
    "large": (
        "gcc/python3packages.numpy/openssh/ripgrep",
        "ripgrep/gcc/openssh/python3packages.numpy",
    ),  # 0.34 GB
    "huge": ("gcc/clang/ffmpeg", "ffmpeg/gcc/clang"),  # 1.3 GB
}
_STAGE = re.compile(r" (\w+)_s=(\d+(?:\.\d+)?)")
_COUNTED = ("layers", "put")


@dataclass(frozen=True, slots=True)
class _Round:
    """One image made once, by us and by the floor: seconds, and bytes."""

    cold: float
    warm: float
    floor: float
    nix: float
    memory: int
    size: int


async def _measure(bench: Bench, name: str) -> Sequence[Result]:
    """The lines of one image. The small one is made beside it, because its memory is the baseline."""
    rounds: dict[str, list[_Round]] = {"small": [], name: []}
    async with bench.scratch() as folder:
        program = await floor.build(folder)
        for number in range(1 if bench.quick and name in ("large", "huge") else bench.rounds):
            for each, made in rounds.items():
                image, again = IMAGES[each]
                made.append(await _round(bench, folder / f"{each}-{number}", program, image, again))
    return _lines(name, rounds[name], rounds["small"])


def _lines(name: str, made: Sequence[_Round], small: Sequence[_Round]) -> list[Result]:
    megabytes = [one.memory / 1e6 for one in made]
    return [
        result(f"cold/{name}", [one.cold for one in made], [one.floor for one in made], unit="s"),
        result(f"cold/nix-{name}", [one.nix for one in made], unit="s"),
        result(f"warm-layers/{name}", [one.warm for one in made], [one.cold for one in made], unit="s"),
        result(f"memory/{name}", megabytes, [one.memory / 1e6 for one in small], unit="MB"),
    ]


async def _round(bench: Bench, folder: Path, program: Path, image: str, again: str) -> _Round:
    chosen = await bench.set(image)
    async with (
        bench.registry(folder / "registry") as registry,
        bench.front(folder / "front", registry) as front,
    ):
        cold = await pull(front, image)
        warm = await pull(front, again)
        memory = most_memory(front.process.pid)
        async with Endpoint(registry.url).opened() as reached:
            made = await explain(reached, image, "latest")
    layers = [layer for layer in made.layers if layer.store_paths]
    described = folder / "layers"
    await asyncio.to_thread(
        floor.write_layers, [layer.store_paths for layer in layers], chosen.store.prefix, described
    )
    async with bench.registry(folder / "other-registry") as registry:
        least = await floor.run(program, registry, described)
    assert [layer.diff_id for layer in least.layers] == [layer.diff_id for layer in layers]
    size = sum(layer.size for layer in layers)
    assert abs(sum(layer.size for layer in least.layers) / size - 1) < 0.001, "the codecs differ"
    return _Round(counted(cold), counted(warm), least.seconds, cold["nix"], memory, size)


async def pull(front: Server, image: str) -> Mapping[str, float]:
    """The seconds of each stage of making this image."""
    url = f"{front.url}/v2/{image}/manifests/latest"
    async with aiohttp.ClientSession() as session, session.get(url, headers=_ACCEPT) as answer:
        text = await answer.text()
        assert answer.status == 200, f"GET {url} answered {answer.status}: {text}"
    log = await asyncio.to_thread(front.process.log_text)
    (done,) = (line for line in log.splitlines() if f" done image={image}:" in line)
    return {stage: float(seconds) for stage, seconds in _STAGE.findall(done)}


def counted(stages: Mapping[str, float]) -> float:
    """The seconds from realised packages to the tag."""
    return sum(stages[name] for name in _COUNTED)


async def _bytes(bench: Bench) -> Sequence[Result]:
    """The layers of one image, compressed as ours are and as zlib's default level does it, archive by archive."""
    chosen = await bench.set()
    image = IMAGES["medium"][0]
    ours = zlibs = 0
    for info in chosen.closure(*image.split("/")):
        by_zlib = zlib.compressobj(6, wbits=31)
        for block in tar.blocks(store_tree.store_entries([info.path], chosen.store.prefix)):
            ours += len(packing._PACK["gzip"](block))
            zlibs += len(by_zlib.compress(block))
        zlibs += len(by_zlib.flush())
    return [result("bytes/gzip", [ours / 1e6], [zlibs / 1e6], unit="MB")]


_ACCEPT = {"Accept": EVERY_MANIFEST_TYPE}
_KINDS = ("cold/", "cold/nix-", "warm-layers/", "memory/")
MEASURES = (
    *(Measure(tuple(f"{kind}{name}" for kind in _KINDS), partial(_measure, name=name)) for name in IMAGES),
    Measure(("bytes/gzip",), _bytes),
)
