"""One build as people see it, and its record in the state, from which other machines show it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from proxy.core.events import ENDINGS, MADE, ending
from proxy.nix.output import NixCounts
from proxy.state import INTERRUPTED, BuildRecord

_LONGEST_ERROR = 2000  # characters in a record
_LONGEST_LINE = 500  # characters of a log's line in one line for a person
_NO_COUNTS = NixCounts()
_END_OF_TIME = 253402300800  # the year 10000, in seconds since 1970
#: Errors whose messages nixfront writes alone; the empty one is that of an interruption. All others may quote a log.
_OWN_WORDS = frozenset(
    {
        "",
        "Busy",
        "ImageTooLarge",
        "ImageUnknown",
        "NameInvalid",
        "PackageRefused",
        "PackageUnknown",
        "Stopping",
        "TagUnknown",
        "TooManyBuilds",
    }
)
_SUBJECT = re.compile(r": |[;\n]")  # ends what a message says in nixfront's own words

#: What can be said of a build in a word.
RUNNING = "running"
STATES = (RUNNING, *ENDINGS)

#: What a build does, in this order.
RESOLVING, WAITING, EVALUATING, BUILDING, PACKING = (
    "fetching the package set",
    "waiting for Nix",
    "evaluating",
    "building",
    "packing layers",
)


@dataclass(frozen=True, slots=True)
class Build:
    """One build; `ended` is 0 while it runs, and times are seconds since 1970.

    A build that has ended has a `digest`, or an `error` and the class of that error as its `outcome`. `machine` is
    the machine that builds: it alone has the log. `host` is the name of that machine for people. `contents`: one for each
    platform. `missing`: (platform, error) pairs of an index that lacks these platforms. `client` wanted the image first, and is
    in the record of that machine alone.
    """

    id: str
    repository: str
    tag: str
    started: float
    phase: str = RESOLVING
    contents: tuple[str, ...] = ()
    nix: NixCounts = _NO_COUNTS
    ready: int = 0
    total: int = 0
    lines: int = 0
    last_line: str = ""
    ended: float = 0.0
    digest: str = ""
    error: str = ""
    outcome: str = ""
    seconds: tuple[tuple[str, float], ...] = ()
    machine: str = ""
    host: str = ""
    missing: tuple[tuple[str, str], ...] = ()
    client: str = ""

    @property
    def image(self) -> str:
        """Repository and tag."""
        return f"{self.repository}:{self.tag}"

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.error:
            return ending(self.outcome)
        return MADE if self.ended else RUNNING

    @property
    def step(self) -> str:
        """The phase in one line, with its count of layers or the last line of the log."""
        if self.total:
            return f"packing, {self.ready} of {self.total} layers are in the registry"
        if self.phase in (EVALUATING, BUILDING) and self.last_line:
            return f"{self.phase}: {self.last_line[:_LONGEST_LINE]}"
        return self.phase

    def without_log(self) -> "Build":
        """The build for those who may not read its log: without a word of what Nix or a builder printed, and of the client."""
        error = self.error
        if error and self.outcome not in _OWN_WORDS:
            error = f"{_SUBJECT.split(error, maxsplit=1)[0] or self.outcome or 'it failed'}; its log says why"
        missing = tuple((platform, _SUBJECT.split(text, maxsplit=1)[0]) for platform, text in self.missing)
        return replace(
            self,
            client="",
            last_line="",
            lines=0,
            nix=replace(self.nix, now=""),
            error=error,
            missing=missing,
        )


def to_record(build: Build, now: float) -> BuildRecord:
    """What other machines may know of this build, reported at `now`. Lines of its log are not in it."""
    return BuildRecord(
        build.id,
        build.repository,
        build.tag,
        build.machine,
        build.started,
        build.ended,
        build.digest,
        build.error[:_LONGEST_ERROR],
        host=build.host,
        phase=build.phase,
        ready=build.ready,
        total=build.total,
        outcome=build.outcome,
        reported=now,
    )


def from_record(record: BuildRecord, since: float) -> Build:
    """The build of a record; one that runs, and that its machine last reported before `since`, was interrupted."""
    build = Build(
        record.id,
        record.repository,
        record.tag,
        record.started,
        phase=record.phase,
        ready=record.ready,
        total=record.total,
        ended=record.ended,
        digest=record.digest,
        error=record.error,
        outcome=record.outcome,
        machine=record.machine,
        host=record.host,
    )
    if not record.ended and record.reported < since:
        return replace(build, ended=record.reported or record.started, error=INTERRUPTED)
    return build


def from_summary(summary: Mapping[str, Any], machine: str, host: str) -> Build | None:
    """The build of a summary on the disk of this machine; None where a value is of another type than its field."""
    try:
        values = {field.name: summary[field.name] for field in fields(Build) if field.name in summary}
        values["nix"] = NixCounts(**values.get("nix", {}))
        values["seconds"] = tuple((str(name), float(each)) for name, each in values.get("seconds", ()))
        values["missing"] = tuple((str(name), str(each)) for name, each in values.get("missing", ()))
        values["contents"] = tuple(map(str, values.get("contents", ())))
        build = Build(**{"machine": machine, "host": host, **values})
    except (TypeError, ValueError):
        return None
    is_whole = _has_its_types(build) and _has_its_types(build.nix) and build.ended > 0
    return build if is_whole else None


def _has_its_types(value: Build | NixCounts) -> bool:
    """Whether each simple field has a value of its type; a time is a number that a calendar has."""
    for field in fields(value):
        each = getattr(value, field.name)
        if field.type is float and not (type(each) in (int, float) and 0 <= each < _END_OF_TIME):
            return False
        if field.type in (int, str) and type(each) is not field.type:
            return False
    return True
