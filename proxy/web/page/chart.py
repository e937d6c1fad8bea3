"""The chart of what this host did, as numbers that a template draws. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.telemetry.history import Column
from proxy.web.page import views

#: Of one drawing, in units of its own.
WIDTH, HEIGHT = 240, 48
_GAP = 2
_LEAST = 2  # units of a column that is not empty, so that it can be seen


@dataclass(frozen=True, slots=True)
class Bar:
    """A column: its place, its height, what it says; `failed` is the part of the height that stands for failures."""

    x: float
    width: float
    height: float
    failed: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """One count over time: its sum, what it counts, and its columns."""

    total: str
    label: str
    bars: tuple[Bar, ...]


def drawings(columns: Sequence[Column]) -> list[Drawing]:
    """The three drawings for these columns."""
    return [
        _drawing(columns, "manifests sent to clients", lambda did: did.manifests, _count),
        _drawing(columns, "builds", lambda did: did.made + did.failed, _count, lambda did: did.failed),
        _drawing(columns, "of layers were there already", lambda did: did.saved, views.size),
    ]


def _drawing(
    columns: Sequence[Column],
    label: str,
    value: Callable[..., float],
    shown: Callable[[float], str],
    failed: Callable[..., float] = lambda _: 0.0,
) -> Drawing:
    values = [value(column.did) for column in columns]
    most = max(values, default=0.0)
    step = WIDTH / max(1, len(columns))
    bars = []
    for number, column in enumerate(columns):
        height = _LEAST + (HEIGHT - _LEAST) * values[number] / most if values[number] > 0 else 0.0
        lost = failed(column.did)
        part = height * lost / values[number] if lost else 0.0
        text = f"until {views.iso(column.end)[11:16]} UTC: {shown(values[number])}"
        text += f", {_count(lost)} of them without an image" if lost else ""
        bars.append(
            Bar(round(number * step, 2), round(step - _GAP, 2), round(height, 2), round(part, 2), text)
        )
    return Drawing(shown(sum(values)), label, tuple(bars))


def _count(number: float) -> str:
    return f"{number:.0f}"
