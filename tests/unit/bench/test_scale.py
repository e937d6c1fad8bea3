"""The arithmetic of the model of scale: what it says has to follow from its constants."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.scale import (
    DAILY,
    Constants,
    Population,
    distinct,
    forecast,
    population,
    stream,
    table,
    zipf,
)

TWO = Population((0.75, 0.25), ((0,), (0, 1)))


def test_shares_fall_by_rank_and_are_one_together() -> None:
    shares = zipf(1000)

    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(2 * shares[1]) == pytest.approx(1000 * shares[999])


def test_a_package_is_wanted_as_often_as_its_images() -> None:
    assert TWO.package_shares[:3] == [1.0, 0.25, 0.0]


def test_what_is_computed_is_what_a_stream_has() -> None:
    shares = zipf(2000)
    of = Population(shares, [()] * 2000)
    wanted = stream(of, 10_000)

    assert wanted == stream(of, 10_000), "always the same"
    assert len(set(wanted)) == pytest.approx(distinct(shares, 10_000), rel=0.05)
    assert distinct((0.5, 0.5), 1) == pytest.approx(1)
    assert distinct((1.0, 0.0), 100) == 1
    assert distinct(shares, 1e9) == pytest.approx(2000)


def test_a_month_adds_up() -> None:
    costs = Constants(revisions=3, peak=1, answer_seconds=1e-9, packed_bytes=1e9, blobs=0, manifests=1)
    month = forecast(1e6, TWO, costs)

    assert month.builds == pytest.approx(2 * 3 / 30), "both names once in each revision"
    assert month.tag_hits == pytest.approx(1 - 0.2e-6)
    assert month.answer_hits == pytest.approx(0, abs=1e-6), "a cache of no time has nothing"
    packed = 2 * costs.package_bytes * (1 + 2 * costs.changed)
    seconds = 1e6 * costs.uncached_seconds + month.builds * costs.evaluation_seconds + packed / 30 / 1e9
    assert month.processors == pytest.approx(seconds / 86400)
    assert month.registry_requests == pytest.approx((1e6 + month.builds * costs.requests_of_build) / 86400)
    assert month.registry_bytes == pytest.approx(packed * costs.compressed + 6 * costs.own_bytes)
    assert month.redis_bytes == 6 * costs.state_bytes
    assert month.layer_bytes == pytest.approx(1e6 * costs.client_bytes / 86400)


def test_machines_are_enough_and_no_more() -> None:
    costs = replace(Constants(), busy=0.5, processors=2)
    for pulls in (1e6, 1e8):
        month = forecast(pulls, TWO, costs)
        assert month.replicas - 1 < max(month.processors, 1e-9) <= month.replicas


def test_the_wall_is_what_is_full_first() -> None:
    assert forecast(1e6, TWO, Constants(registry_rate=1)).wall == "the requests of one registry"
    assert "network" in forecast(1e6, TWO, Constants(link=1)).wall
    assert "processors" in forecast(1e6, TWO, Constants(evaluation_seconds=1e12)).wall
    assert "| 5,000 | 10 million |" in table([forecast(pulls, TWO, Constants()) for pulls in (5e3, 1e7)])


def test_the_documents_have_the_table_of_the_model() -> None:
    of = population()
    forecasts = [forecast(pulls, of, Constants()) for pulls in DAILY]

    assert table(forecasts) in (Path(__file__).parents[3] / "deploy/README.md").read_text()
