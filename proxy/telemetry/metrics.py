"""What is counted, for Prometheus: one object for each application, fed by events and by those who measure.

Counting is on the way of every request, so what it needs is looked up once: a count is a dictionary look-up and two
additions. Labels come from small closed sets; nothing that a client can choose is one.
"""

import asyncio
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from proxy import __version__
from proxy.core.events import (
    ENDINGS,
    FAILED,
    MADE,
    BuildEnded,
    BuildStarted,
    Event,
    LayerStored,
    NixRan,
    PlatformEnded,
    RefreshFailed,
    ending,
)
from proxy.core.request import Kind

#: What `/metrics` is served as: the text format of Prometheus, version 0.0.4.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
_LONG = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Totals:
    """What the page shows of the counts: manifests that clients got, builds, and bytes of layers that nobody had to send again."""

    manifests: float = 0.0
    made: float = 0.0
    failed: float = 0.0
    saved: float = 0.0

    def since(self, before: "Totals") -> "Totals":
        """What was added after `before`."""
        return Totals(
            self.manifests - before.manifests,
            self.made - before.made,
            self.failed - before.failed,
            self.saved - before.saved,
        )


class Metrics:
    """The counts of one application."""

    def __init__(self) -> None:
        """All at zero."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        Info("nixfront_build", "Which nixfront this is.", registry=self._registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._requests = self._counter("requests", "Answers to clients.", "kind", "method", "status")
        self._request_seconds = self._histogram(
            "request_seconds", "From a request to the end of its answer.", _QUICK, "kind"
        )
        self._sent = self._counter("sent_bytes", "Bytes of answers to clients.", "kind")
        self._received = self._counter("received_bytes", "Bytes of request bodies from clients.", "kind")
        self._builds = self._counter("builds", "Builds that have ended, by what became of them.", "outcome")
        self._platforms = self._counter(
            "platforms", "Platforms of indexes, by what became of them.", "platform", "outcome"
        )
        self._stage_seconds = self._histogram(
            "build_stage_seconds", "How long the stages of builds took that made an image.", _LONG, "stage"
        )
        self._running = Gauge("nixfront_builds_running", "Builds under way.", registry=self._registry)
        self._tasks = Gauge("nixfront_tasks", "Tasks of the event loop.", registry=self._registry)
        self._refreshes_failed = self._counter(
            "refreshes_failed", "Moving tags that could not be made anew and keep their old image."
        )
        self._layers = self._counter(
            "layers", "Layers of images that were made, by how the registry has them.", "how"
        )
        self._layer_bytes = self._counter("layer_bytes", "Bytes of these layers.", "how")
        self._remembered = self._counter("remembered", "Manifests that the cache answered.")
        self._waiting = Gauge(
            "nixfront_builds_waiting", "Builds that wait for their turn.", registry=self._registry
        )
        self._registry_seconds = self._histogram(
            "registry_seconds",
            "From a request to the registry to the head of its answer.",
            _QUICK,
            "kind",
            "method",
        )
        self._registry_failures = self._counter(
            "registry_failures", "Requests that the registry did not answer.", "kind"
        )
        self._nix_seconds = self._histogram("nix_seconds", "How long runs of Nix took.", _LONG, "program")
        self._store = Gauge(
            "nixfront_store_bytes",
            "Bytes of the Nix store's paths, where nixfront keeps a budget.",
            registry=self._registry,
        )
        self._store_free = Gauge(
            "nixfront_store_free_bytes",
            "Free bytes on the disk of the Nix store, where nixfront keeps a budget.",
            registry=self._registry,
        )
        self._cells: dict[tuple[Kind, str, int], Callable[[float, int, int], None]] = {}

    def answered(
        self, kind: Kind, method: str, status: int, seconds: float, sent: int, received: int
    ) -> None:
        """A client got its answer."""
        method = method if method in _METHODS else "other"
        cell = self._cells.get((kind, method, status))
        if cell is None:
            cell = self._cells[kind, method, status] = self._cell(kind, method, status)
        cell(seconds, sent, received)

    def remembered(self) -> None:
        """The cache answered; `answered` counts that request too."""
        self._remembered.inc()

    def queue(self, waiting: Callable[[], int]) -> None:
        """Ask this how many builds wait."""
        self._waiting.set_function(waiting)

    def store(self, size: Callable[[], int], free: Callable[[], int]) -> None:
        """Ask these for the bytes of the Nix store, and for those that are free on its disk."""
        self._store.set_function(size)
        self._store_free.set_function(free)

    def tasks_of(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the tasks of this loop."""
        self._tasks.set_function(lambda: len(asyncio.all_tasks(loop)))

    def registry_answered(self, kind: Kind, method: str, seconds: float) -> None:
        """The registry answered a request about this kind of path."""
        self._registry_seconds.labels(kind, method).observe(seconds)

    def registry_failed(self, kind: Kind) -> None:
        """The registry did not answer."""
        self._registry_failures.labels(kind).inc()

    def see(self, event: Event) -> None:
        """Count an event of a build."""
        match event:
            case BuildStarted():
                self._running.inc()
            case BuildEnded():
                self._running.dec()
                self._builds.labels(event.outcome).inc()
                for stage, seconds in event.seconds:
                    self._stage_seconds.labels(stage).observe(seconds)
            case PlatformEnded():
                self._platforms.labels(event.platform, event.outcome).inc()
            case NixRan(program, seconds):
                self._nix_seconds.labels(program).observe(seconds)
            case RefreshFailed():
                self._refreshes_failed.inc()
            case LayerStored(how, size):
                self._layers.labels(how).inc()
                self._layer_bytes.labels(how).inc(size)
            case _:
                pass

    def totals(self) -> Totals:
        """The counts of this moment, in a few numbers."""
        ended = dict.fromkeys(ENDINGS, 0.0)
        for labels, count in _counts(self._builds):
            ended[ending(labels["outcome"])] += count
        return Totals(
            _sum(self._requests, kind="manifest", method="GET", status="200"),
            ended[MADE],
            ended[FAILED],
            _sum(self._layer_bytes, how="present") + _sum(self._layer_bytes, how="mounted"),
        )

    def text(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self._registry)

    def _cell(self, kind: Kind, method: str, status: int) -> Callable[[float, int, int], None]:
        requests = self._requests.labels(kind, method, str(status))
        seconds_of = self._request_seconds.labels(kind)
        sent_of, received_of = self._sent.labels(kind), self._received.labels(kind)

        def count(seconds: float, sent: int, received: int) -> None:
            requests.inc()
            seconds_of.observe(seconds)
            sent_of.inc(sent)
            if received:
                received_of.inc(received)

        return count

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nixfront_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"nixfront_{name}", text, labels, buckets=buckets, registry=self._registry)


def _counts(counter: Counter) -> Iterator[tuple[Mapping[str, str], float]]:
    """Each count with its labels."""
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                yield sample.labels, sample.value


def _sum(counter: Counter, **labels: str) -> float:
    """The sum of a count over all its labels but these."""
    return sum(count for named, count in _counts(counter) if labels.items() <= named.items())
