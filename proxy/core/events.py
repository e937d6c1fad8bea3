"""What happens during a build, as values. The stages of a build send them to a `Sink` and do not know who listens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class BuildStarted:
    """A build of this image begins, because a client wants a tag that the registry does not have.

    `client` is the first one that wants it, as the queue counts clients; empty where this host itself wants it.
    """

    repository: str
    tag: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """nixfront has resolved the tag to a revision. From here to the layers, builds with an equal `content` share the work."""

    repository: str
    tag: str
    content: str


@dataclass(frozen=True, slots=True)
class NixBegun:
    """Nix begins this part of the work on a content."""

    content: str
    part: Literal["evaluating", "building"]


@dataclass(frozen=True, slots=True)
class NixRan:
    """A run of Nix has ended, well or not; `program` with its verb, as in `nix-store --realise`."""

    program: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that Nix or a builder wrote while it worked on the packages `attributes`."""

    attributes: tuple[str, ...]
    line: str
    content: str


@dataclass(frozen=True, slots=True)
class LayersReady:
    """The repository has `ready` of the image's `total` layers."""

    repository: str
    tag: str
    ready: int
    total: int


@dataclass(frozen=True, slots=True)
class LayerStored:
    """A layer of `size` bytes is in its repository.

    `present`: the repository had it already. `mounted`: another repository had it. `packed`: nixfront packed and sent it.
    """

    how: Literal["present", "mounted", "packed"]
    size: int


@dataclass(frozen=True, slots=True)
class Collided:
    """Two packages have a file at the same `path` of the root tree; the image holds that of the `winner`."""

    repository: str
    path: str
    winner: str
    loser: str


@dataclass(frozen=True, slots=True)
class LibraryUnusable:
    """The image has a library that no interpreter in it can use; `note` names both, and their versions."""

    repository: str
    note: str


@dataclass(frozen=True, slots=True)
class PlatformEnded:
    """One platform of an index is done: `outcome` is `made` or the class of the `error`, which leaves the platform out."""

    repository: str
    tag: str
    platform: str
    error: str = ""
    outcome: str = "made"


@dataclass(frozen=True, slots=True)
class BuildEnded:
    """A build ended: the tag now names the manifest `digest`, or the build failed with `error` and `digest` is empty.

    `outcome` is `made` or the class of the error. `seconds` has the name and duration of each stage, in order.
    """

    repository: str
    tag: str
    digest: str = ""
    error: str = ""
    outcome: str = "made"
    seconds: tuple[tuple[str, float], ...] = ()


#: How a build can end, in a word. Whoever typed a name that is not there made a mistake, and no build failed.
ENDINGS = MADE, FAILED, REFUSED, NOT_FOUND = "made", "failed", "refused", "not found"
_ENDING_OF = {
    "made": MADE,
    "PackageRefused": REFUSED,
    "ImageTooLarge": REFUSED,
    "TooManyBuilds": REFUSED,
    "Busy": REFUSED,
    "ImageUnknown": NOT_FOUND,
    "NameInvalid": NOT_FOUND,
    "PackageUnknown": NOT_FOUND,
    "PackageUnusable": NOT_FOUND,
    "TagUnknown": NOT_FOUND,
}


def ending(outcome: str) -> str:
    """How a build of this `outcome` ended: one of `ENDINGS`."""
    return _ENDING_OF.get(outcome, FAILED)


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """A rebuild for a moving tag failed; the tag still names the image that it named before."""

    repository: str
    tag: str
    error: str


Event = (
    BuildStarted
    | Resolved
    | NixBegun
    | NixRan
    | LogLine
    | LayersReady
    | LayerStored
    | Collided
    | LibraryUnusable
    | PlatformEnded
    | BuildEnded
    | RefreshFailed
)
Sink = Callable[[Event], None]


def fan_out(*sinks: Sink) -> Sink:
    """A sink that sends each event to all of these, one after the other."""

    def send(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return send
