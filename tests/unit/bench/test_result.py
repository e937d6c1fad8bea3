"""What a measurement comes to: medians, their ratio, and the line that is printed."""

import json

from tests.bench.__main__ import MEASURES
from tests.bench.result import result, table


def test_a_line_has_the_medians_and_their_ratio() -> None:
    line = json.loads(result("cold/x", [3.0, 1.0, 2.0], [4.0, 5.0, 0.1], unit="s").line)

    assert line == {
        "name": "cold/x",
        "value": 2.0,
        "baseline": 4.0,
        "ratio": 0.5,
        "unit": "s",
        "n": 3,
        "min": 1.0,
        "max": 3.0,
    }
    assert list(line) == ["name", "value", "baseline", "ratio", "unit", "n", "min", "max"]


def test_a_line_without_a_baseline_has_no_ratio() -> None:
    line = result("memory/x", [1.0], unit="MB")

    assert (line.baseline, line.ratio) == (None, None)
    assert "| - | - |" in table([line])


def test_no_two_measures_have_a_line_of_the_same_name() -> None:
    names = [name for measure in MEASURES for name in measure.names]

    assert len(names) == len(set(names))
