"""How far nixfront goes: a model of a month with 5,000 and with 1, 10 and 100 million pulls a day, from constants that were measured.

`python -m tests.bench.scale` prints the table of deploy/README.md. A stream of a million requests, always the same, draws from
100,000 names by Zipf. A name is an image of 1 to 6 packages, which are drawn by Zipf too. The stream shows how many
different names a number of requests has; `distinct` computes the same for numbers that nobody replays. The line `scale/check`
of the benchmark compares the model with three real processes (`check`).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

NAMES = 100_000
#: Pulls a day of the columns of the table; the first is a cluster of some 50 nodes.
DAILY = (5e3, 1e6, 1e7, 1e8)
REQUESTS = 1_000_000
SEED = 16
_MOST_PACKAGES = 6
_DAYS = 30
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Constants:
    """What one of each thing costs. Those of the first group were measured, those of the second are assumptions."""

    #: Seconds of a processor for a manifest that the answer cache has, and for one that comes from the registry.
    warm_seconds: float = 0.00021
    uncached_seconds: float = 0.0017
    #: Bytes of a layer's files that one processor packs in a second.
    packed_bytes: float = 53e6
    #: Requests for manifests that one registry answers in a second.
    registry_rate: float = 1351
    #: Bytes of Redis for one image.
    state_bytes: float = 12.5e3
    #: Files of one package that no other has, and how much smaller they are as layers.
    package_bytes: float = 37e6
    compressed: float = 0.35
    #: The part of the layers that another revision of the set changes.
    changed: float = 0.15
    #: Bytes of the root layer, the configuration and the manifest of an image.
    own_bytes: float = 20e3

    #: Seconds of a processor for one evaluation of nixpkgs.
    evaluation_seconds: float = 1.5
    #: Of an image with 19 layers: a mount for each; three for root layer and configuration; a look and a PUT for three tags.
    requests_of_build: float = 31
    #: Manifests and blobs of a pull, and the bytes of layers that its client has not yet.
    manifests: float = 2
    blobs: float = 5
    client_bytes: float = 20e6
    revisions: int = 8  # of the set in a month
    answer_seconds: float = 5  # for so long the answer cache has a manifest
    peak: float = 3  # the busiest hour, against the mean
    busy: float = 0.6  # the part of a machine's processors that may be in use then
    processors: int = 4  # of a machine
    link: float = 1.25e9  # bytes in a second, of a machine's network


@dataclass(frozen=True, slots=True)
class Population:
    """The names: how often each is wanted, as parts of all requests, and its packages."""

    shares: Sequence[float]
    images: Sequence[tuple[int, ...]]

    @property
    def package_shares(self) -> Sequence[float]:
        """How often each package is in an image that is wanted."""
        shares = [0.0] * NAMES
        for share, image in zip(self.shares, self.images, strict=True):
            for package in image:
                shares[package] += share
        return shares


@dataclass(frozen=True, slots=True)
class Forecast:
    """A month with so many pulls a day. Rates are those of the busiest hour."""

    pulls: float
    tag_hits: float  # the part of the pulls whose tag is there
    answer_hits: float  # the part of the manifests that need no registry
    builds: float  # in a day
    processors: float
    replicas: int
    registry_requests: float  # in a second
    registry_bytes: float  # new in a month
    redis_bytes: float
    layer_bytes: float  # to clients, in a second
    wall: str


def zipf(count: int) -> list[float]:
    """The shares of `count` things by their rank."""
    weights = [1 / rank for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def population() -> Population:
    """The same names at each call."""
    draw = random.Random(SEED)
    shares = zipf(NAMES)
    sums = list(accumulate(shares))
    images = []
    for _ in range(NAMES):
        wanted = draw.choices(range(NAMES), cum_weights=sums, k=draw.randint(1, _MOST_PACKAGES))
        images.append(tuple(dict.fromkeys(wanted)))
    return Population(shares, images)


def stream(of: Population, requests: int = REQUESTS) -> list[int]:
    """The names that are wanted, one after another."""
    draw = random.Random(SEED + 1)
    return draw.choices(range(len(of.shares)), cum_weights=list(accumulate(of.shares)), k=requests)


def distinct(shares: Sequence[float], requests: float) -> float:
    """How many different things so many requests are expected to want."""
    return sum(-math.expm1(requests * math.log1p(-share)) if share < 1 else 1.0 for share in shares)


def forecast(pulls: float, of: Population, costs: Constants) -> Forecast:
    """A month with so many pulls a day."""
    in_revision = pulls * _DAYS / costs.revisions
    images = distinct(of.shares, in_revision)
    packages = distinct(of.package_shares, in_revision)
    builds = images * costs.revisions / _DAYS
    packed = packages * costs.package_bytes * (1 + costs.changed * (costs.revisions - 1))

    manifests = pulls * costs.manifests
    rate = costs.peak * manifests / _DAY
    answer_hits, replicas = 0.0, 1
    while True:  # each replica has an answer cache of its own, so more of them ask the registry more often
        uncached = (
            distinct(of.shares, rate * costs.answer_seconds / replicas) * replicas / costs.answer_seconds
        )
        answer_hits = 1 - min(1.0, uncached / rate)
        processors = (
            costs.peak
            / _DAY
            * (
                manifests * (answer_hits * costs.warm_seconds + (1 - answer_hits) * costs.uncached_seconds)
                + pulls * costs.blobs * costs.uncached_seconds
                + builds * costs.evaluation_seconds
                + packed / _DAYS / costs.packed_bytes
            )
        )
        needed = max(1, math.ceil(processors / costs.processors / costs.busy))
        if needed <= replicas:
            break
        replicas = needed
    registry = (
        costs.peak
        / _DAY
        * (manifests * (1 - answer_hits) + pulls * costs.blobs + builds * costs.requests_of_build)
    )
    layers = costs.peak / _DAY * pulls * costs.client_bytes
    walls = {
        "the requests of one registry": registry / costs.registry_rate,
        "the network of one machine for layers": layers / costs.link,
        "the processors of one machine": processors / costs.processors / costs.busy,
    }
    return Forecast(
        pulls=pulls,
        tag_hits=1 - builds / pulls,
        answer_hits=answer_hits,
        builds=builds,
        processors=processors,
        replicas=replicas,
        registry_requests=registry,
        registry_bytes=packed * costs.compressed + images * costs.revisions * costs.own_bytes,
        redis_bytes=images * costs.revisions * costs.state_bytes,
        layer_bytes=layers,
        wall=max(walls, key=lambda name: walls[name]),
    )


def _amount(pulls: float) -> str:
    return f"{pulls / 1e6:g} million" if pulls >= 1e6 else f"{pulls:,.0f}"


def table(forecasts: Sequence[Forecast]) -> str:
    """The forecasts for people: a Markdown table."""
    rows = {
        "pulls whose tag is there": [f"{one.tag_hits:.2%}" for one in forecasts],
        "manifests from the answer cache": [f"{one.answer_hits:.0%}" for one in forecasts],
        "builds a day": [f"{one.builds:,.0f}" for one in forecasts],
        "processors": [f"{one.processors:.1f}" for one in forecasts],
        "machines": [str(one.replicas) for one in forecasts],
        "requests to the registry, a second": [f"{one.registry_requests:,.0f}" for one in forecasts],
        "layers to clients, GB a second": [f"{one.layer_bytes / 1e9:.2g}" for one in forecasts],
        "new in the registry, TB a month": [f"{one.registry_bytes / 1e12:.2g}" for one in forecasts],
        "Redis, GB": [f"{one.redis_bytes / 1e9:.2g}" for one in forecasts],
        "the next wall": [one.wall for one in forecasts],
    }
    lines = [
        "| pulls a day | " + " | ".join(_amount(one.pulls) for one in forecasts) + " |",
        "|---|" + "---:|" * len(forecasts),
        *(f"| {name} | " + " | ".join(values) + " |" for name, values in rows.items()),
    ]
    return "\n".join(lines)
