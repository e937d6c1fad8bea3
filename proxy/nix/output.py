"""What Nix prints, read: closures, plans, and what a failure comes down to. Text in, facts out; nothing is run here.

`path-info` answers an unknown path with `valid: false` and success; its JSON is a list in Nix 2.8, and an object by path in
newer releases.

What lines of Nix's log say about how far it is. Pure: counts and a line in, counts out.

Nix says first what it will build and fetch, then a line for each as it begins. Lines of the builders between them say nothing
that can be counted. Nix plans in several rounds, so the totals grow.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.core.errors import (
    BuildFailed,
    BuildTimedOut,
    DerivationLost,
    NixfrontError,
    NixUnavailable,
    PackageSetUnavailable,
    ProcessFailed,
    SourceMissing,
    StoreFull,
)
from proxy.core.model import PathInfo, without_credentials
from proxy.core.names import store_names, store_paths

_ERROR_LINES = 20  # of the log, in a message
# Lines of Nix's own that say nothing about a failure: warnings, and the plan of what will be built or fetched.
_NO_NEWS = re.compile(r"warning:|th(is|ese).* will be (built|fetched)|  /nix/store/\S+$")
_BUILDS = re.compile(r"th(?:is|ese) .*will be built")
_FETCHES = re.compile(
    r"th(?:is|ese) .*will be fetched \([0-9.]+ \w+ download, ([0-9.]+) ([KMGT]iB) unpacked\)"
)
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_CONSEQUENCE = re.compile(r"dependencies of derivation|^build of '|some outputs of ")
_LOST = re.compile(r"missing derivation|\.drv' is not valid|opening file '/nix/store/\S+\.drv': No such file")
_NOWHERE = re.compile(r"don't know how to build these paths|no substituter that can build it")
# What the host has to mend, whoever met it: a builder that could not write, or Nix itself.
_DISK_FULL = re.compile(r"No space left on device|database or disk is full")
_NO_DAEMON = re.compile(r"error: cannot (?:connect to|open connection to) .*(?:socket|daemon|remote store)")
_NOTHING_THERE = re.compile(
    r"HTTP error 40[34]|does not exist|[Nn]o such file|not our ref|bad object|Cannot find Git revision|couldn't find remote ref"
)


def read_plan(lines: Iterable[str]) -> int:
    """The bytes, unpacked, that a plan fetches for the closure alone; 0 where it says nothing certain.

    What is built fetches things of its own that are in no image, so a plan with a build is not certain.
    """
    fetched = 0
    for line in lines:
        if _BUILDS.match(line):
            return 0
        if (found := _FETCHES.match(line)) is not None:
            fetched = int(float(found[1]) * _UNITS[found[2]])
    return fetched


def read_path_info(output: bytes) -> tuple[PathInfo, ...]:
    """Either shape of `nix path-info --json`, sorted by path. Raises `BuildFailed` for a path that is not valid."""
    parsed: Any = json.loads(output)
    items = parsed if isinstance(parsed, list) else [{**(v or {}), "path": k} for k, v in parsed.items()]
    missing = [item["path"] for item in items if "narSize" not in item]
    if missing:
        raise BuildFailed(f"not in the Nix store although it was just built: {', '.join(missing)}")
    return tuple(
        sorted(
            (
                PathInfo(
                    path=item["path"],
                    nar_size=item["narSize"],
                    references=tuple(sorted(ref for ref in item["references"] if ref != item["path"])),
                )
                for item in items
            ),
            key=lambda info: info.path,
        )
    )


def not_built(names: str, error: ProcessFailed, deadline: float) -> NixfrontError:
    """What could not be built, and why: `BuildFailed`, `BuildTimedOut` (`deadline`: in seconds), `DerivationLost`."""
    told = [line for line in error.tail if not _NO_NEWS.match(line)][-_ERROR_LINES:]
    log = "\n".join(told)
    if error.timed_out:
        return BuildTimedOut(f"building {names} took longer than {deadline:.0f} s; its log ends:\n{log}")
    if any(_LOST.search(line) for line in told):
        return DerivationLost(f"a garbage collection took {names} away while it was being built")
    if any(_NOWHERE.search(line) for line in told):
        named = dict.fromkeys(store_paths("\n".join(error.tail)))
        paths = ", ".join(path for path in named if not path.endswith(".drv"))
        return BuildFailed(
            f"building {names} failed: no binary cache has {paths}, and nothing says how to build it"
        )
    return BuildFailed(f"building {names} failed: {_cause(told)}; its log ends:\n{log}")


def not_fetched(address: str, error: ProcessFailed) -> PackageSetUnavailable:
    """Why a package set could not be had: `SourceMissing` where there is nothing at its address."""
    reason = last_lines(error.tail)
    kind = SourceMissing if _NOTHING_THERE.search(reason) else PackageSetUnavailable
    return kind(without_credentials(f"cannot fetch {address}: {reason}"))


def trouble_of_host(error: ProcessFailed) -> NixfrontError | None:
    """What the host has to mend, whatever was asked of Nix; None where it is something else."""
    if (told := next((line for line in reversed(error.tail) if _DISK_FULL.search(line)), None)) is not None:
        return StoreFull(f"the disk under the Nix store of this host is full: {told.strip()}")
    if (told := next((line for line in error.tail if _NO_DAEMON.search(line)), None)) is not None:
        return NixUnavailable(f"Nix's daemon does not answer: {told.strip()}")
    return None


def last_lines(tail: Sequence[str]) -> str:
    """The error of an evaluation: from the last line that starts with `error:` on, or the last few lines."""
    starts = [number for number, line in enumerate(tail) if line.lstrip().startswith("error:")]
    lines = tail[starts[-1] :] if starts else tail[-3:]
    told = [line.strip() for line in lines[:_ERROR_LINES] if "--show-trace" not in line]
    return "\n".join(told).removeprefix("error: ").strip()


def flake_paths(archive: Mapping[str, Any]) -> list[str]:
    """The store paths of a flake and of its inputs, and theirs, sorted."""
    found = {archive["path"]} if archive.get("path") else set()
    for inner in (archive.get("inputs") or {}).values():
        found.update(flake_paths(inner))
    return sorted(found)


def _cause(told: Sequence[str]) -> str:
    """What went wrong first: Nix tells the cause, then what could not be built because of it."""
    errors = [line.strip().removeprefix("error:").strip() for line in told if "error:" in line]
    first = [line for line in errors if line and not _CONSEQUENCE.search(line)]
    return (first or errors or ["no error was told"])[0].rstrip(";:.")


_WILL_BUILD = re.compile(r"th(?:is derivation|ese (\d+) derivations) will be built")
_WILL_FETCH = re.compile(r"th(?:is path|ese (\d+) paths) will be fetched")
_BUILD_BEGINS = re.compile(r"building '([^']+)\.drv'")
_FETCH_BEGINS = re.compile(r"copying path '([^']+)' from ")


@dataclass(frozen=True, slots=True)
class NixCounts:
    """How many have begun, of how many; `now` is the name of what began last."""

    built: int = 0
    to_build: int = 0
    fetched: int = 0
    to_fetch: int = 0
    now: str = ""


def advance(counts: NixCounts, line: str) -> NixCounts:
    """The counts after this line."""
    if name := _name_in(_BUILD_BEGINS, line):
        built = counts.built + 1
        return replace(counts, built=built, to_build=max(counts.to_build, built), now=name)
    if name := _name_in(_FETCH_BEGINS, line):
        fetched = counts.fetched + 1
        return replace(counts, fetched=fetched, to_fetch=max(counts.to_fetch, fetched), now=name)
    if (match := _WILL_BUILD.match(line)) is not None:
        return replace(counts, to_build=counts.to_build + int(match[1] or 1))
    if (match := _WILL_FETCH.match(line)) is not None:
        return replace(counts, to_fetch=counts.to_fetch + int(match[1] or 1))
    return counts


def _name_in(pattern: re.Pattern[str], line: str) -> str:
    """The name of the store path of which the line says that; empty for other lines."""
    match = pattern.match(line)
    return next(iter(store_names(match[1])), "") if match else ""
