"""What this host did of late, in columns."""

from dataclasses import dataclass, field

import pytest

from proxy.core.events import BuildEnded, BuildStarted, LayerStored
from proxy.telemetry.history import COLUMNS, History
from proxy.telemetry.metrics import Metrics, Totals

NOON = 1_800_000_000.0  # a multiple of every width


@dataclass
class Host:
    """A clock, and counts that go with it."""

    now: float = NOON
    totals: Totals = field(default_factory=Totals)


def test_columns_hold_what_happened_within_them() -> None:
    host = Host()
    history = History(lambda: host.totals, lambda: host.now)
    history.sample()
    host.totals = Totals(manifests=2, made=1)
    host.now += 60
    history.sample()
    host.totals = Totals(manifests=5, made=1, failed=1, saved=7)
    host.now += 30
    columns = history.columns()

    assert len(columns) == COLUMNS
    assert [column.did for column in columns[-2:]] == [Totals(2, 1), Totals(3, 0, 1, 7)]
    assert all(column.did == Totals() for column in columns[:-2])
    assert columns[-1].end == NOON + 120


@pytest.mark.parametrize(
    ("passed", "width"), [(0, 60), (1380, 60), (1500, 300), (20_000, 900), (10**6, 3600)]
)
def test_the_time_since_the_start_fits_up_to_a_day(passed: float, width: float) -> None:
    host = Host()
    history = History(lambda: host.totals, lambda: host.now)
    host.now += passed

    assert history.width == width


def test_nothing_is_lost_between_columns() -> None:
    host = Host()
    history = History(lambda: host.totals, lambda: host.now)
    for minute in range(200):
        host.totals = Totals(manifests=minute)
        history.sample()
        host.now += 60

    assert sum(column.did.manifests for column in history.columns()) == 199


def test_the_totals_are_those_of_the_counts() -> None:
    metrics = Metrics()
    for event in (
        BuildStarted("a", "latest"),
        BuildEnded("a", "latest", digest="sha256:0"),
        BuildStarted("b", "latest"),
        BuildEnded("b", "latest", error="no", outcome="BuildFailed"),
        BuildEnded("c", "latest", error="no such package", outcome="PackageUnknown"),  # a typo
        BuildEnded("d", "latest", error="no such tag", outcome="TagUnknown"),
        BuildEnded("e", "latest", error="unfree", outcome="PackageRefused"),
        LayerStored("present", 10),
        LayerStored("mounted", 5),
        LayerStored("packed", 100),
    ):
        metrics.see(event)
    metrics.answered("manifest", "GET", 200, 0.1, 1, 0)
    metrics.answered("manifest", "HEAD", 200, 0.1, 1, 0)
    metrics.answered("manifest", "GET", 404, 0.1, 1, 0)
    metrics.answered("blob", "GET", 200, 0.1, 1, 0)

    assert metrics.totals() == Totals(manifests=1, made=1, failed=1, saved=15)
