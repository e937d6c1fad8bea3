"""A platform that cannot be made: which errors mean that, and what nixfront tells a client and writes into an index.

An error that says something about packages and settings concerns its platform alone. Any other one (a full disk, a registry
that is away) ends the whole build: the same request may succeed for all platforms a moment later.
"""

import re
from collections.abc import Mapping

from proxy.core import platforms
from proxy.core.errors import (
    BuildFailed,
    EvaluationFailed,
    ImageInvalid,
    ImageTooLarge,
    ImageUnknown,
    NixfrontError,
    PackageRefused,
    PackageUnknown,
    PackageUnusable,
    TagUnknown,
)

_LONGEST = 300  # characters of a reason
# Errors whose message is a function of set and settings.
_QUOTED = (PackageRefused, PackageUnusable, ImageTooLarge)
_REASONS: dict[type[NixfrontError], str] = {
    PackageUnknown: "the package set lacks a package there",
    TagUnknown: "the tag names no revision there",
    ImageUnknown: "the file of images has no such image there",
    ImageInvalid: "the definition of the image is wrong there",
    EvaluationFailed: "Nix cannot evaluate the packages",
    BuildFailed: "Nix can neither build nor fetch the packages",
}
# What may succeed on another day.
_PASSING: tuple[type[NixfrontError], ...] = (BuildFailed, EvaluationFailed)
# What depends on how much nixfront has already read of the set.
_SUGGESTIONS = re.compile(r", did you mean [^?]*\?|( of \d+ packages)(?=\))")


def is_of_platform(error: NixfrontError) -> bool:
    """Whether this error concerns one platform, so that an index may lack it."""
    return isinstance(error, (*_QUOTED, *_REASONS))


def reason(error: NixfrontError) -> str:
    """Why an index lacks a platform: it is part of a digest, so it quotes no log."""
    if isinstance(error, _QUOTED):
        text = str(error)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return next(text for kind, text in _REASONS.items() if isinstance(error, kind))


def is_passing(error: NixfrontError) -> bool:
    """Whether the same request may succeed for this platform on another day."""
    return isinstance(error, _PASSING)


def is_passing_reason(text: str) -> bool:
    """As `is_passing`, by the reason in an index."""
    return text in {_REASONS[kind] for kind in _PASSING}


def key(error: NixfrontError, resolved: str) -> str:
    """What stands for the key of the image in that of the index. `resolved`: its key, empty where the tag names none.

    The request's own key names no passing error, so it differs from that of an index with one.
    """
    return "passing" if is_passing(error) else resolved


def joint_error(errors: Mapping[str, NixfrontError]) -> NixfrontError:
    """The error where no platform can be made: that of the first one, with what the others say if that is something else."""
    first = next(iter(errors.values()))
    if len({(type(error), _SUGGESTIONS.sub("", str(error))) for error in errors.values()}) == 1:
        return first
    return type(first)(platforms.joint_message({name: str(error) for name, error in errors.items()}))
