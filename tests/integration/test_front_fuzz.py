"""Seeded bytes, to nixfront and to a stock registry: it never dies, hangs, fails, or understands more than it should."""

from pathlib import Path

import pytest

from tests.support.front_fuzz import batches, fuzz, grown
from tests.support.fuzz_cases import case

SEED = 20261129
CASES = 150  # three looks, of which the last two are compared


@pytest.mark.usefixtures("nix_count")
async def test_any_bytes_get_the_answer_of_a_stock_registry_or_a_refusal(tmp_path: Path) -> None:
    async with fuzz(tmp_path, SEED) as running:
        for numbers in batches(CASES):
            await running.batch(numbers)
        report = running.report

    assert report.wrong == []
    assert grown(report.samples) == []
    assert report.cases == CASES
    assert {"http 2", "http 4", "odd 4"} <= set(report.answers), "all kinds came"


def test_a_case_is_the_same_each_time() -> None:
    assert [case(SEED, number) for number in range(50)] == [case(SEED, number) for number in range(50)]
    assert case(SEED, 1) != case(SEED + 1, 1)
