"""The chart of what this host did."""

from proxy.telemetry.history import Column
from proxy.telemetry.metrics import Totals
from proxy.web.page import chart

NOON = 1_800_000_000.0


def test_heights_follow_the_counts_and_failures_are_a_part() -> None:
    columns = [
        Column(NOON, Totals()),
        Column(NOON + 60, Totals(made=3, failed=1)),
        Column(NOON + 120, Totals(made=1)),
    ]
    manifests, builds, saved = chart.drawings(columns)

    assert (manifests.total, builds.total, saved.total) == ("0", "5", "0 B")
    assert [bar.height for bar in manifests.bars] == [0, 0, 0]
    empty, full, low = builds.bars
    assert (empty.height, full.height) == (0, chart.HEIGHT)
    assert 0 < low.height < full.height / 2
    assert full.failed == chart.HEIGHT / 4
    assert full.text.endswith("4, 1 of them without an image")
    assert all(bar.x >= 0 and bar.x + bar.width <= chart.WIDTH for bar in builds.bars)


def test_bytes_have_units() -> None:
    assert chart.drawings([Column(NOON, Totals(saved=12_345_678))])[2].total == "12.3 MB"
