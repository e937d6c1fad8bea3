"""The board of builds: those that run and the newest that have ended, on this machine and on those that share its state.

The page, `/status.json`, `nixfront status` and the message for a client that has waited too long all read it. Events of this
machine's builds feed it, and it changes no build. A build has the id of the request that began it. The machine that
builds keeps the log; the last lines of a log are in memory too, for those who watch the build.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from proxy.builds.build import BUILDING, EVALUATING, PACKING, Build, from_summary
from proxy.builds.logs import BuildLogs
from proxy.builds.machines import SharedBuilds
from proxy.builds.running import RunningBuilds
from proxy.builds.works import Works
from proxy.core import request
from proxy.core.events import (
    BuildEnded,
    BuildStarted,
    Event,
    LayersReady,
    LogLine,
    NixBegun,
    PlatformEnded,
    Resolved,
)
from proxy.state import INTERRUPTED

_MOST_RUNNING = 4096
_MOST_ENDED = 200
_LONGEST_LINE = 2000  # characters


class BuildBoard:
    """The board of one application. `see` is a `Sink`."""

    def __init__(
        self,
        logs: BuildLogs,
        shared: SharedBuilds,
        clock: Callable[[], float],
        *,
        machine: str = "",
        host: str | None = None,
    ) -> None:
        """`clock` gives seconds since 1970. `machine` is this machine's name in records, `host` the one for people."""
        self._logs = logs
        self._shared = shared
        self._clock = clock
        self._machine = machine
        self._host = socket.gethostname() if host is None else host
        self._ended: OrderedDict[str, Build] = OrderedDict()
        self._elsewhere: tuple[Build, ...] = ()
        self._works = Works()
        self._running = RunningBuilds(self._works)
        self._changed = asyncio.Event()
        self._version = 0
        self._endings = 0

    async def open(self) -> None:
        """Read what ended before this process started."""
        builds = [from_summary(each, self._machine, self._host) for each in await self._logs.summaries()]
        for build in sorted(filter(None, builds), key=lambda build: build.ended)[-_MOST_ENDED:]:
            self._ended[build.id] = build

    async def close(self) -> None:
        """Write what is left. A build that still runs is interrupted."""
        for build in self._running.values():
            self._interrupt(build)
        await self._logs.close()
        await self._shared.close()

    async def refresh(self) -> None:
        """Read the builds of other machines, unless that was done a moment ago. While the state is gone there are none."""
        await self._shared.refresh()
        own = {build.id for build in self._running.values()} | self._ended.keys()
        elsewhere = tuple(build for build in self._shared.newest if build.id not in own)
        if elsewhere != self._elsewhere:
            self._endings += _ended_ids(elsewhere) != _ended_ids(self._elsewhere)
            self._elsewhere = elsewhere
            self._announce()

    @property
    def running(self) -> tuple[Build, ...]:
        """Builds that run, oldest first."""
        elsewhere = (build for build in self._elsewhere if not build.ended)
        return tuple(sorted((*self._running.values(), *elsewhere), key=lambda build: build.started))

    @property
    def is_busy(self) -> bool:
        """Whether a build runs."""
        return bool(self._running) or any(not build.ended for build in self._elsewhere)

    @property
    def ended(self) -> tuple[Build, ...]:
        """Builds that have ended, newest first."""
        elsewhere = (build for build in self._elsewhere if build.ended)
        own = reversed(self._ended.values())
        return tuple(sorted((*own, *elsewhere), key=lambda build: build.ended, reverse=True))

    def is_here(self, build: Build) -> bool:
        """Whether this machine builds it, and so has its log."""
        return build.machine == self._machine

    def get(self, identity: str) -> Build | None:
        """The build of this id."""
        builds = (*self._running.values(), *self._ended.values(), *self._elsewhere)
        return next((build for build in builds if build.id == identity), None)

    def current(self, repository: str, tag: str) -> Build | None:
        """The build of this image that runs; the one of this machine comes first."""
        if (build := self._running.get((repository, tag))) is not None:
            return build
        return next((b for b in self.running if (b.repository, b.tag) == (repository, tag)), None)

    def latest(self, repository: str, tag: str) -> Build | None:
        """The build of this image that runs, or that ended last."""
        ended = (b for b in self.ended if (b.repository, b.tag) == (repository, tag))
        return self.current(repository, tag) or next(ended, None)

    def lines_since(self, identity: str, seen: int) -> tuple[Sequence[str], int]:
        """The lines after the first `seen` that memory has; and how many lines there are. See `BuildLogs`."""
        return self._logs.lines_since(identity, seen)

    async def log(self, identity: str) -> str:
        """The log of a build of this machine."""
        return await self._logs.read(identity)

    @property
    def version(self) -> int:
        """Another number after each change."""
        return self._version

    @property
    def endings(self) -> int:
        """Another number after each end of a build: the registry may have further images then."""
        return self._endings

    async def change(self, version: int) -> None:
        """Return when the board is no longer at this version."""
        while self._version == version:
            await self._changed.wait()

    def see(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case BuildStarted(repository, tag, client):
                self._start(repository, tag, client)
            case Resolved(repository, tag, content):
                self._resolve(repository, tag, content)
            case NixBegun(content, part):
                self._begin(content, EVALUATING if part == "evaluating" else BUILDING)
            case LogLine(_, line, content):
                shown = line[:_LONGEST_LINE]
                for identity in self._running.log(content, shown):
                    self._logs.add(identity, shown)
            case LayersReady(repository, tag, ready, total):
                self._update(repository, tag, phase=PACKING, ready=ready, total=total)
            case PlatformEnded(repository, tag, platform, error) if error:
                if (build := self._running.get((repository, tag))) is not None:
                    missing = {**dict(build.missing), platform: error}  # a platform may be tried again
                    self._update(repository, tag, missing=tuple(missing.items()))
            case BuildEnded():
                self._end(event)
            case _:
                return
        self._announce()

    def _start(self, repository: str, tag: str, client: str) -> None:
        if (repository, tag) in self._running:
            return
        identity = request.CURRENT.get()
        if not identity or self.get(identity) is not None:  # a request may begin more than one build
            identity = request.choose(None)
        build = Build(
            identity, repository, tag, self._clock(), client=client, machine=self._machine, host=self._host
        )
        self._running.put(build)
        self._shared.report(build)
        while len(self._running) > _MOST_RUNNING:
            self._interrupt(self._running.values()[0])

    def _update(self, repository: str, tag: str, **changes: Any) -> None:
        if (build := self._running.get((repository, tag))) is not None:
            changed = replace(build, **changes)
            self._running.put(changed)
            self._shared.report(changed)

    def _resolve(self, repository: str, tag: str, content: str) -> None:
        if (build := self._running.get((repository, tag))) is not None:
            contents = tuple(dict.fromkeys((*build.contents, content)))
            self._update(repository, tag, contents=contents, **self._works.fields(contents))

    def _begin(self, content: str, phase: str) -> None:
        self._works.begin(content, phase)
        for build in self._running.values():
            if content in build.contents and not build.total:
                self._update(build.repository, build.tag, **self._works.fields(build.contents))

    def _interrupt(self, build: Build) -> None:
        self._end(BuildEnded(build.repository, build.tag, error=INTERRUPTED, outcome=""))

    def _end(self, event: BuildEnded) -> None:
        build = self._running.pop((event.repository, event.tag))
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
        used = {content for other in self._running.values() for content in other.contents}
        self._works.forget(set(build.contents) - used)
        self._endings += 1
        self._logs.end(build.id, asdict(ended))
        self._shared.report(ended)

    def _announce(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _ended_ids(builds: Sequence[Build]) -> set[str]:
    return {build.id for build in builds if build.ended}
