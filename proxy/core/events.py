"""What happens during a build, as values. Stages emit them into a `Sink`; they do not know who listens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class BuildStarted:
    """An image is being made because a tag was asked for that nobody had."""

    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The revision of the packages is known: from here to the layers, all that ask for `content` share the work."""

    repository: str
    tag: str
    content: str


@dataclass(frozen=True, slots=True)
class NixBegun:
    """Nix has begun this part of the work on a content."""

    content: str
    part: Literal["evaluating", "building"]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that Nix or a builder wrote, as it came; `attributes` says for which packages."""

    attributes: tuple[str, ...]
    line: str
    content: str


@dataclass(frozen=True, slots=True)
class LayersReady:
    """So many layers of the image are in its repository, out of `total`."""

    repository: str
    tag: str
    ready: int
    total: int


@dataclass(frozen=True, slots=True)
class LayerStored:
    """A layer of `size` bytes is in a repository: it was there, another repository had it, or it was packed and sent."""

    how: Literal["present", "mounted", "packed"]
    size: int


@dataclass(frozen=True, slots=True)
class Collided:
    """Two packages have the same file: `path` of the root is `winner`'s, `loser`'s is left out."""

    repository: str
    path: str
    winner: str
    loser: str


@dataclass(frozen=True, slots=True)
class BuildEnded:
    """The tag names this manifest now; an empty `digest` when the build failed with `error`.

    `outcome`: the class of that error, or `made`; `seconds`: how long each stage took, in their order.
    """

    repository: str
    tag: str
    digest: str = ""
    error: str = ""
    outcome: str = "made"
    seconds: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """What a moving tag means now could not be made; the tag names the image that it named before."""

    repository: str
    tag: str
    error: str


Event = (
    BuildStarted
    | Resolved
    | NixBegun
    | LogLine
    | LayersReady
    | LayerStored
    | Collided
    | BuildEnded
    | RefreshFailed
)
Sink = Callable[[Event], None]


def fan_out(*sinks: Sink) -> Sink:
    """All of them, one after the other."""

    def tell(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return tell
