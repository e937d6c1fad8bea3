"""What a measurement comes to."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from tests.bench.bench import Bench


@dataclass(frozen=True, slots=True)
class Result:
    """A line: the median of `n` values, that of the baseline, their ratio, and how far the values were apart."""

    name: str
    value: float
    baseline: float | None
    ratio: float | None
    unit: str
    n: int
    min: float
    max: float

    @property
    def line(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Measure:
    """What yields the lines of these names, in one go."""

    names: tuple[str, ...]
    run: Callable[[Bench], Awaitable[Sequence[Result]]]


def result(name: str, values: Sequence[float], baselines: Sequence[float] = (), *, unit: str) -> Result:
    """The line of these measurements; without baselines it has neither baseline nor ratio."""
    value = median(values)
    baseline = median(baselines) if baselines else None
    return Result(
        name=name,
        value=_short(value),
        baseline=None if baseline is None else _short(baseline),
        ratio=_short(value / baseline) if baseline else None,
        unit=unit,
        n=len(values),
        min=_short(min(values)),
        max=_short(max(values)),
    )


def _short(value: float) -> float:
    """Four digits that count."""
    return float(f"{value:.4g}")


def table(results: Sequence[Result]) -> str:
    """The same for people: a Markdown table."""
    rows = [
        "| what | value | baseline | ratio | n | min - max |",
        "|---|---:|---:|---:|---:|---|",
        *(
            f"| `{one.name}` | {one.value:g} {one.unit} | {_or_nothing(one.baseline)} | {_or_nothing(one.ratio)} "
            f"| {one.n} | {one.min:g} - {one.max:g} |"
            for one in results
        ),
    ]
    return "\n".join(rows)


def _or_nothing(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
