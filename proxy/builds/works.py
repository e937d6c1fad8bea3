"""What Nix does for the contents of builds. Builds of the same content share it, and an index has a content for each platform."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.builds.build import BUILDING, EVALUATING, WAITING
from proxy.nix import output
from proxy.nix.output import NixCounts

_PHASES = (WAITING, EVALUATING, BUILDING)


@dataclass(frozen=True, slots=True)
class _Work:
    """What Nix does for one content."""

    phase: str
    nix: NixCounts = NixCounts()  # noqa: RUF009 - it is immutable
    last_line: str = ""


class Works:
    """The work on each content of the builds that run."""

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}

    def begin(self, content: str, phase: str) -> None:
        """Nix begins this phase."""
        self._works[content] = _Work(phase)

    def log(self, content: str, line: str) -> None:
        """Nix or a builder wrote this line."""
        before = self._works.get(content, _Work(BUILDING))
        last = line.strip() or before.last_line
        self._works[content] = _Work(before.phase, output.advance(before.nix, line), last)

    def fields(self, contents: Sequence[str], newest: str = "") -> dict[str, Any]:
        """The fields of a build of these contents: the phase of the one that is least far, and the sums of all counts.

        The last line is that of the `newest` content, where there is one.
        """
        works = [self._works.get(content, _Work(WAITING)) for content in contents]
        nix = NixCounts(
            sum(work.nix.built for work in works),
            sum(work.nix.to_build for work in works),
            sum(work.nix.fetched for work in works),
            sum(work.nix.to_fetch for work in works),
            next((work.nix.now for work in reversed(works) if work.nix.now), ""),
        )
        newest_first = [*([self._works[newest]] if newest in self._works else []), *reversed(works)]
        line = next((work.last_line for work in newest_first if work.last_line), "")
        phase = min((work.phase for work in works), key=_PHASES.index)
        return {"phase": phase, "nix": nix, "last_line": line}

    def forget(self, contents: Collection[str]) -> None:
        """No build needs these contents any more."""
        for content in contents:
            self._works.pop(content, None)
