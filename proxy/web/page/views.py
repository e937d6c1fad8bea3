"""Values as people read them on the page: sizes, times, lines to copy, and the picture of layers. All functions are pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from proxy.core.names import store_names
from proxy.web.page.listed import ListedLayer

_UNITS = ("B", "kB", "MB", "GB", "TB")
WIDTH = 1000  # of the picture of layers, in units of its own
_LEAST = 3  # units, so that a small layer can be seen


def size(number: float) -> str:
    """Bytes: `12.3 MB`."""
    for unit in _UNITS:
        if number < 999.5 or unit == _UNITS[-1]:
            return f"{number:.0f} {unit}" if unit in ("B", "kB") or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable: the last unit takes all")


def span(seconds: float) -> str:
    """A time span: `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d"


def ago(moment: float, now: float) -> str:
    """How long ago: `just now`, `4 min ago`."""
    passed = max(0.0, now - moment)
    if passed < 5:
        return "just now"
    if passed < 3600:
        return f"{span(passed).split(' s')[0].split(' min')[0]} {'s' if passed < 59.5 else 'min'} ago"
    return f"{span(passed).split(' h')[0].split(' d')[0]} {'h' if passed < 86400 else 'd'} ago"


def number(count: int) -> str:
    """A count: `12,345`."""
    return f"{count:,}"


def iso(moment: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reference(repository: str, tag: str) -> str:
    """The name to pull; a client adds `latest` by itself."""
    return repository if tag == "latest" else f"{repository}:{tag}"


def short(digest: str) -> str:
    """The beginning of a digest."""
    return digest.removeprefix("sha256:")[:12]


def contents(comment: str) -> str:
    """What a layer holds: the names of its store paths; the comment itself if it has none."""
    paths = store_names(comment)
    if not paths:
        return comment
    return ", ".join(paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")


@dataclass(frozen=True, slots=True)
class Block:
    """A layer in the picture: its left edge and its width, in units of `WIDTH`."""

    x: float
    width: float
    layer: ListedLayer


def picture(layers: Sequence[ListedLayer]) -> list[Block]:
    """The layers side by side, largest first. The width follows the size, but no layer is too thin to be seen."""
    ordered = sorted(layers, key=lambda layer: (-layer.size, layer.digest))
    if not ordered:
        return []
    room = WIDTH - _LEAST * len(ordered)
    total = sum(layer.size for layer in ordered) or 1
    blocks, x = [], 0.0
    for layer in ordered:
        width = _LEAST + room * layer.size / total
        blocks.append(Block(round(x, 2), round(max(width - 1, 1), 2), layer))
        x += width
    return blocks
