"""The counts: their names and labels, and what is counted when."""

import re

from prometheus_client.parser import text_string_to_metric_families

from proxy.core.events import BuildEnded, BuildStarted, NixRan, RefreshFailed
from proxy.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_an_answer_is_counted() -> None:
    metrics = Metrics()

    for _ in range(2):
        metrics.answered("upload", "PATCH", 202, 0.02, 300, 1000)
    metrics.answered("other", "BREW", 405, 0.02, 10, 0)

    found = samples(metrics)
    labels = (("kind", "upload"), ("method", "PATCH"), ("status", "202"))
    assert found["nixfront_requests_total", labels] == 2
    assert found["nixfront_sent_bytes_total", (("kind", "upload"),)] == 600
    assert found["nixfront_received_bytes_total", (("kind", "upload"),)] == 2000
    assert found["nixfront_request_seconds_count", (("kind", "upload"),)] == 2
    assert found["nixfront_requests_total", (("kind", "other"), ("method", "other"), ("status", "405"))] == 1


def test_builds_are_counted_by_what_became_of_them() -> None:
    metrics = Metrics()

    for tag in ("a", "b", "c"):
        metrics.see(BuildStarted("hello", tag))
    metrics.see(BuildEnded("hello", "a", digest="sha256:0"))
    metrics.see(BuildEnded("hello", "b", error="no", outcome="BuildFailed"))
    metrics.see(RefreshFailed("hello", "a", "no"))

    found = samples(metrics)
    assert found["nixfront_builds_running", ()] == 1
    assert found["nixfront_refreshes_failed_total", ()] == 1
    assert found["nixfront_builds_total", (("outcome", "made"),)] == 1
    assert found["nixfront_builds_total", (("outcome", "BuildFailed"),)] == 1


def test_names_units_and_help_are_as_prometheus_wants_them() -> None:
    """What `promtool check metrics` looks at: help, names, units, counters that end in `_total`."""
    metrics = Metrics()
    metrics.answered("blob", "GET", 200, 0.1, 1, 1)
    metrics.registry_answered("ping", "GET", 0.1)
    metrics.registry_failed("ping")
    metrics.see(NixRan("nix-store --realise", 0.1))
    metrics.see(BuildStarted("a", "b"))
    metrics.see(BuildEnded("a", "b"))

    families = [
        family
        for family in text_string_to_metric_families(metrics.text().decode())
        if family.name.startswith("nixfront_")
    ]
    assert len(families) > 8
    for family in families:
        assert family.documentation, family.name
        assert re.fullmatch(r"[a-z_]+", family.name)
        assert not re.search(r"milli|micro|minutes|hours|kilo|mega", family.name)
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes")), family.name
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith(("_total", "_created")), sample.name
