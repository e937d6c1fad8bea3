"""How far each build is that is under way: a small memory of the events, for those who wait and for a page.

It holds what is now, and no history: a build that has ended is gone from it. Builds of the same packages share
Nix's work, so what Nix does is kept by content and the rest by image. Clocks are given, and only ages come out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cachetools import LRUCache

from proxy.core.events import BuildEnded, BuildStarted, Event, LayersReady, LogLine, NixBegun, Resolved

_LONGEST_LINE = 500  # characters of a builder's last line that are kept


@dataclass(frozen=True, slots=True)
class Step:
    """What a build does now: a stage, in words, with the last line of its log or a count of layers where it has one."""

    stage: str
    line: str = ""
    ready: int = 0
    total: int = 0

    @property
    def text(self) -> str:
        """The same in one line, for a person."""
        if self.total:
            return f"{self.stage}, {self.ready} of {self.total} layers are in the registry"
        return f"{self.stage}: {self.line}" if self.line else self.stage


@dataclass(frozen=True, slots=True)
class _Build:
    since: float
    content: str = ""
    step: Step | None = None


_FETCHING = Step("fetching the package set")
_WAITING = Step("waiting for Nix")


class Progress:
    """What is under way. `see` is a `Sink`."""

    def __init__(self, clock: Callable[[], float], most: int = 4096) -> None:
        """`clock` counts seconds; the oldest of more than `most` builds are forgotten."""
        self._clock = clock
        self._builds: LRUCache[tuple[str, str], _Build] = LRUCache(most)
        self._contents: LRUCache[str, Step] = LRUCache(most)

    def see(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case BuildStarted(repository, tag):
                self._builds[repository, tag] = _Build(self._clock(), step=_FETCHING)
            case Resolved(repository, tag, content):
                if (build := self._builds.get((repository, tag))) is not None:
                    self._builds[repository, tag] = replace(build, content=content, step=None)
            case NixBegun(content, part):
                self._contents[content] = Step(part)
            case LogLine(_, line, content) if line.strip():
                self._contents[content] = Step("building", line.strip()[:_LONGEST_LINE])
            case LayersReady(repository, tag, ready, total):
                if (build := self._builds.get((repository, tag))) is not None:
                    step = Step("packing", ready=ready, total=total)
                    self._builds[repository, tag] = replace(build, step=step)
            case BuildEnded(repository, tag):
                self._end(repository, tag)
            case _:
                pass

    def of(self, repository: str, tag: str) -> tuple[Step, float] | None:
        """What the build of this image does, and for how many seconds it has been going on; None if there is none."""
        build = self._builds.get((repository, tag))
        if build is None:
            return None
        step = build.step or self._contents.get(build.content, _WAITING)
        return step, self._clock() - build.since

    def _end(self, repository: str, tag: str) -> None:
        ended = self._builds.pop((repository, tag), None)
        if ended is not None and all(build.content != ended.content for build in self._builds.values()):
            self._contents.pop(ended.content, None)
