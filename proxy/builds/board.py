"""What builds do and did, as values for people: under way now, and the newest that have ended.

It is fed by events and changes nothing. A build is called by the id of the request that began it. Logs are on disk
(`build_logs`); of a build under way the last lines are here too, so that whoever watches gets them as they come.
"""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from proxy.builds.logs import BuildLogs
from proxy.core import request
from proxy.core.events import BuildEnded, BuildStarted, Event, LayersReady, LogLine, NixBegun, Resolved
from proxy.nix import output
from proxy.nix.output import NixCounts

_MOST_ENDED = 200
_MOST_LINES = 1000  # of a build under way, in memory
_LONGEST_LINE = 2000  # characters
_NONE = NixCounts()
RESOLVING, WAITING, EVALUATING, BUILDING, PACKING = (
    "fetching the package set",
    "waiting for Nix",
    "evaluating",
    "building",
    "packing layers",
)


@dataclass(frozen=True, slots=True)
class Build:
    """One build: `ended` is 0 while it runs; then there is a `digest`, or an `error` and its class as the `outcome`."""

    id: str
    repository: str
    tag: str
    started: float
    phase: str = RESOLVING
    content: str = ""
    nix: NixCounts = _NONE
    ready: int = 0
    total: int = 0
    lines: int = 0
    last_line: str = ""
    ended: float = 0.0
    digest: str = ""
    error: str = ""
    outcome: str = ""
    seconds: tuple[tuple[str, float], ...] = ()

    @property
    def image(self) -> str:
        """Repository and tag."""
        return f"{self.repository}:{self.tag}"

    @property
    def state(self) -> str:
        """running, made or failed."""
        return "failed" if self.error else "made" if self.ended else "running"


@dataclass(slots=True)
class _Lines:
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))
    count: int = 0


class BuildBoard:
    """The builds of one application. `see` is a `Sink`."""

    def __init__(self, logs: BuildLogs, clock: Callable[[], float]) -> None:
        """`clock` tells seconds since 1970."""
        self._logs = logs
        self._clock = clock
        self._running: OrderedDict[tuple[str, str], Build] = OrderedDict()
        self._ended: OrderedDict[str, Build] = OrderedDict()
        self._contents: dict[str, tuple[str, NixCounts]] = {}
        self._lines: dict[str, _Lines] = {}
        self._changed = asyncio.Event()
        self._version = 0
        self._told: list[Callable[[], None]] = []

    async def remember(self) -> None:
        """Read what ended before we started."""
        for summary in reversed(await self._logs.summaries()):
            if (build := _from_summary(summary)) is not None:
                self._ended[build.id] = build

    def on_end(self, told: Callable[[], None]) -> None:
        """Call this whenever a build has ended."""
        self._told.append(told)

    @property
    def running(self) -> tuple[Build, ...]:
        """Under way, oldest first."""
        return tuple(self._running.values())

    @property
    def ended(self) -> tuple[Build, ...]:
        """Ended, newest first."""
        return tuple(reversed(self._ended.values()))

    def get(self, identity: str) -> Build | None:
        """The build of this id."""
        for build in self._running.values():
            if build.id == identity:
                return build
        return self._ended.get(identity)

    def latest(self, repository: str, tag: str) -> Build | None:
        """The build of this image that is under way, or ended last."""
        running = self._running.get((repository, tag))
        return running or next((b for b in self.ended if (b.repository, b.tag) == (repository, tag)), None)

    def lines_since(self, identity: str, seen: int) -> tuple[Sequence[str], int]:
        """The lines of a build under way after the first `seen`, as far as they are here, and how many there are."""
        lines = self._lines.get(identity)
        if lines is None:
            return (), seen
        first = lines.count - len(lines.kept)
        return tuple(itertools.islice(lines.kept, max(0, seen - first), None)), lines.count

    @property
    def version(self) -> int:
        """Another number after each change."""
        return self._version

    async def change(self, version: int) -> None:
        """Return when something is other than at this version."""
        while self._version == version:
            await self._changed.wait()

    async def log(self, identity: str) -> str:
        """The log of a build."""
        return await self._logs.read(identity)

    def see(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case BuildStarted(repository, tag):
                identity = self._name()
                self._running[repository, tag] = Build(identity, repository, tag, self._clock())
                self._lines[identity] = _Lines()
            case Resolved(repository, tag, content):
                phase, counts = self._contents.get(content, (WAITING, _NONE))
                self._update(repository, tag, content=content, phase=phase, nix=counts)
            case NixBegun(content, part):
                self._contents[content] = (EVALUATING if part == "evaluating" else BUILDING, _NONE)
                self._spread(content)
            case LogLine(_, line, content):
                phase, counts = self._contents.get(content, (BUILDING, _NONE))
                self._contents[content] = (phase, output.advance(counts, line))
                self._log(content, line[:_LONGEST_LINE])
            case LayersReady(repository, tag, ready, total):
                self._update(repository, tag, phase=PACKING, ready=ready, total=total)
            case BuildEnded():
                self._end(event)
            case _:
                return
        self._tell()

    def _name(self) -> str:
        """The id of the request that began this; another one where that has begun a build before."""
        identity = request.CURRENT.get()
        return identity if identity and self.get(identity) is None else request.choose(None)

    def _update(self, repository: str, tag: str, **changes: Any) -> None:
        if (build := self._running.get((repository, tag))) is not None:
            self._running[repository, tag] = replace(build, **changes)

    def _spread(self, content: str) -> None:
        phase, counts = self._contents[content]
        for key, build in self._running.items():
            if build.content == content:
                self._running[key] = replace(build, phase=phase, nix=counts)

    def _log(self, content: str, line: str) -> None:
        counts = self._contents[content][1]
        for key, build in self._running.items():
            if build.content == content:
                lines = self._lines[build.id]
                lines.kept.append(line)
                lines.count += 1
                self._running[key] = replace(build, nix=counts, lines=lines.count, last_line=line)
                self._logs.add(build.id, line)

    def _end(self, event: BuildEnded) -> None:
        build = self._running.pop((event.repository, event.tag), None)
        if build is None:
            return
        ended = replace(
            build,
            ended=self._clock(),
            digest=event.digest,
            error=event.error,
            outcome=event.outcome,
            seconds=event.seconds,
        )
        self._ended[build.id] = ended
        while len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)
        self._lines.pop(build.id, None)
        if all(other.content != build.content for other in self._running.values()):
            self._contents.pop(build.content, None)
        self._logs.end(build.id, asdict(ended))
        for told in self._told:
            told()

    def _tell(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _from_summary(summary: Mapping[str, Any]) -> Build | None:
    try:
        known = {name.name: summary[name.name] for name in fields(Build) if name.name in summary}
        known["nix"] = NixCounts(**known.get("nix", {}))
        known["seconds"] = tuple((str(name), float(each)) for name, each in known.get("seconds", ()))
        return Build(**known)
    except (TypeError, ValueError):
        return None
