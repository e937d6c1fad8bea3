"""Read what Nix prints: closures, plans, failures, and the log of a build. Text in, facts out; nothing runs here.

`path-info` answers an unknown path with `valid: false` and success. Its JSON is a list in Nix 2.8, and an object by path in
newer releases.

Nix writes first what it will build and fetch, then a line for each as it begins. Lines of the builders between them say
nothing that can be counted. Nix plans in several rounds, so the totals grow.
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

_ERROR_LINES = 20  # lines of the log in a message
_LONGEST_LINE = 1000  # characters of a line of an evaluation's error
# Nix's own lines that do not explain a failure: warnings, and the plan.
_NO_NEWS = re.compile(r"warning:|th(is|ese).* will be (built|fetched)|  /nix/store/\S+$")
# One for each package on the way from the failure to the image, in Nix up to 2.30 and later ones.
_CONSEQUENCES = re.compile(
    r"^error: (?:\d+ dependencies of derivation '[^']+' failed to build"
    r"|Cannot build '[^']+'\.\n +Reason: \d+ dependenc(?:y|ies) failed\.(?:\n {7}.*)*)(?:\n|\Z)",
    re.MULTILINE,
)
_CONSEQUENCE = re.compile(r"dependencies of derivation|^build of '|some outputs of ")
# Where Nix 2.8 cannot start a builder, the log has an error in the binary form of Nix's processes: two words, numbers, the text.
# Each control character is U+FFFD by now; the length of the text may be one or two characters.
_BINARY_ERROR = re.compile(
    r"^(?:\ufffd\n)?\ufffd{8}Error\ufffd{19}Error\ufffd{3}.{1,2}?\ufffd{6,7}(?P<text>[^\ufffd]+)\ufffd+$",
    re.MULTILINE,
)
_LOST = re.compile(r"missing derivation|\.drv' is not valid|opening file '/nix/store/\S+\.drv': No such file")
_NOWHERE = re.compile(r"don't know how to build these paths|no substituter that can build it")
# Nix up to 2.30, and later ones; Nix says it for the package and again for what needs it.
_OTHER_SYSTEM = re.compile(
    r"an? '(?P<system>[\w-]+)' with features \{(?P<features>[^}]*)\} is required to build '(?P<path>[^']+)\.drv', "
    r"but I am an? '(?P<here>[\w-]+)'"
    r"|Cannot build '(?P<new_path>[^']+)\.drv'\.\s+Reason: required system or feature not available\s+"
    r"Required system: '(?P<new_system>[\w-]+)' with features \{(?P<new_features>[^}]*)\}\s+"
    r"Current system: '(?P<new_here>[\w-]+)'"
)
# The host's own trouble, whether a builder or Nix itself met it.
_DISK_FULL = re.compile(r"No space left on device|database or disk is full")
_ANOTHER_NIX = re.compile(
    r"gc-socket/socket'?: |GC socket disconnected|creating symlink from '\S+/gcroots/profiles' to '\S+': File exists"
)
_NO_DAEMON = re.compile(r"error: cannot (?:connect to|open connection to) .*(?:socket|daemon|remote store)")
_NOTHING_THERE = re.compile(
    r"HTTP error 40[34]|does not exist|[Nn]o such file|not our ref|bad object|Cannot find Git revision|couldn't find remote ref"
)
_BUILDS = re.compile(r"th(?:is|ese) .*will be built")
_FETCHES = re.compile(
    r"th(?:is|ese) .*will be fetched \([0-9.]+ \w+ download, ([0-9.]+) ([KMGT]iB) unpacked\)"
)
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_WILL_BUILD = re.compile(r"th(?:is derivation|ese (\d+) derivations) will be built")
_WILL_FETCH = re.compile(r"th(?:is path|ese (\d+) paths) will be fetched")
_BUILD_BEGINS = re.compile(r"building '([^']+)\.drv'")
_FETCH_BEGINS = re.compile(r"copying path '([^']+)' from ")


def read_json(output: bytes) -> Any:
    """The result of an evaluation. Texts of a package set may hold bytes that are no UTF-8."""
    return json.loads(output.decode(errors="replace"))


def read_plan(lines: Iterable[str]) -> int:
    """The bytes, unpacked, that a plan fetches for the closure alone; 0 where the plan is not certain.

    A builder fetches things that are in no image, so a plan with a build is not certain.
    """
    size = 0
    for line in lines:
        if _BUILDS.match(line):
            return 0
        if (match := _FETCHES.match(line)) is not None:
            size = int(float(match[1]) * _UNITS[match[2]])
    return size


def read_path_info(output: bytes) -> tuple[PathInfo, ...]:
    """Either shape of `nix path-info --json`, sorted by path. Raises `BuildFailed` for a path that is not valid."""
    parsed: Any = json.loads(output)
    items = parsed if isinstance(parsed, list) else [{**(v or {}), "path": k} for k, v in parsed.items()]
    invalid = [item["path"] for item in items if "narSize" not in item]
    if invalid:
        raise BuildFailed(f"not in the Nix store although it was just built: {', '.join(invalid)}")
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


def flake_paths(archive: Mapping[str, Any]) -> list[str]:
    """The store paths of a flake, of its inputs and of their inputs, sorted."""
    paths = {archive["path"]} if archive.get("path") else set()
    for inner in (archive.get("inputs") or {}).values():
        paths.update(flake_paths(inner))
    return sorted(paths)


def flake_inputs(archive: Mapping[str, Any], lock: Mapping[str, Any]) -> dict[str, str]:
    """The store path of each input of a flake, by the key of its node in the lock file.

    Raises `ValueError` where the lock file is another one than that of the archive.
    """
    inputs: dict[str, str] = {}
    try:
        pending = [(lock["root"], archive)]
        while pending:
            key, node = pending.pop()
            for name, inner in (node.get("inputs") or {}).items():
                spec = lock["nodes"][key]["inputs"][name]
                if isinstance(spec, str):  # else it follows another input
                    inputs[spec] = inner["path"]
                    pending.append((spec, inner))
    except (KeyError, TypeError) as error:
        raise ValueError(f"the lock file lacks {error}") from error
    return inputs


def not_built(subject: str, error: ProcessFailed, deadline: float) -> NixfrontError:
    """The error for a failed build of `subject`: `BuildFailed`, `BuildTimedOut` (`deadline`: in seconds), `DerivationLost`."""
    lines = _news(error.tail)[-_ERROR_LINES:]
    log = "\n".join(lines)
    if error.timed_out:
        return BuildTimedOut(f"building {subject} took longer than {deadline:.0f} s; its log ends:\n{log}")
    if any(_LOST.search(line) for line in lines):
        return DerivationLost(f"a garbage collection took {subject} away while it was being built")
    if any(_NOWHERE.search(line) for line in lines):
        paths = dict.fromkeys(store_paths("\n".join(error.tail)))
        listed = ", ".join(path for path in paths if not path.endswith(".drv"))
        return BuildFailed(
            f"building {subject} failed: no binary cache has {listed}, and nothing says how to build it"
        )
    if (other := _OTHER_SYSTEM.search(log)) is not None:
        return BuildFailed(f"building {subject} failed: {_other_system(other)}")
    return BuildFailed(f"building {subject} failed: {_cause(lines)}; its log ends:\n{log}")


def not_fetched(address: str, error: ProcessFailed) -> PackageSetUnavailable:
    """The error for a package set that Nix cannot fetch: `SourceMissing` where its address has nothing."""
    reason = last_lines(error.tail)
    kind = SourceMissing if _NOTHING_THERE.search(reason) else PackageSetUnavailable
    return kind(without_credentials(f"cannot fetch {address}: {reason}"))


def trouble_of_host(error: ProcessFailed) -> NixfrontError | None:
    """The error for what the operator has to mend on this host; None where the failure has another cause."""
    if (full := next((line for line in reversed(error.tail) if _DISK_FULL.search(line)), None)) is not None:
        return StoreFull(f"the disk under the Nix store of this host is full: {full.strip()}")
    if (daemon := next((line for line in error.tail if _NO_DAEMON.search(line)), None)) is not None:
        return NixUnavailable(f"Nix's daemon does not answer: {daemon.strip()}")
    return None


def met_another_nix(error: ProcessFailed) -> bool:
    """Whether Nix failed as another one did something at the same moment: it began or ended a garbage collection, or made the store."""
    return any(_ANOTHER_NIX.search(line) for line in error.tail)


def lost_a_derivation(error: ProcessFailed) -> bool:
    """Whether a garbage collection took a derivation away while Nix used it."""
    return any(_LOST.search(line) for line in error.tail)


def lacks_a_path(error: ProcessFailed) -> bool:
    """Whether Nix failed as the store has not this store path, and no binary cache has it."""
    return any(_NOWHERE.search(line) for line in error.tail)


def last_lines(tail: Sequence[str]) -> str:
    """The error of an evaluation: from the last line that starts with `error:` on, or the last few lines."""
    starts = [number for number, line in enumerate(tail) if line.lstrip().startswith("error:")]
    lines = tail[starts[-1] :] if starts else tail[-3:]
    message = [_short(line.strip()) for line in lines[:_ERROR_LINES] if "--show-trace" not in line]
    return "\n".join(message).removeprefix("error: ").strip()


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def _other_system(match: re.Match[str]) -> str:
    """What a build needs that this host is not; `match` is one of `_OTHER_SYSTEM`."""
    said = {
        name.removeprefix("new_"): value for name, value in match.groupdict().items() if value is not None
    }
    name = next(iter(store_names(said["path"])), said["path"])
    if said["system"] == said["here"]:
        return f"{name} needs a host with the features {said['features']}, which this one does not have (system-features)"
    return (
        f"{name} is for {said['system']}, and this host builds for {said['here']}. A binary cache that has it would do, or a "
        "remote builder (nix.builders), or an emulator (extra-platforms in nix.conf)"
    )


def _news(tail: Iterable[str]) -> list[str]:
    """The lines that may explain a failure. Behind the cause Nix has a line for each package that needs it, which may be hundreds."""
    text = "\n".join(line for line in tail if not _NO_NEWS.match(line))
    text = _BINARY_ERROR.sub(r"error: \g<text>", text)
    return (_CONSEQUENCES.sub("", text).rstrip("\n") or text).split("\n")


def _cause(lines: Sequence[str]) -> str:
    """The first error: Nix prints the cause before everything that could not be built because of it."""
    errors = [line.strip().removeprefix("error:").strip() for line in lines if "error:" in line]
    causes = [line for line in errors if line and not _CONSEQUENCE.search(line)]
    return (causes or errors or ["Nix printed no error"])[0].rstrip(";:.")


@dataclass(frozen=True, slots=True)
class NixCounts:
    """How many builds and fetches have begun, of how many; `now` is the name of the one that began last."""

    built: int = 0
    to_build: int = 0
    fetched: int = 0
    to_fetch: int = 0
    now: str = ""


def advance(counts: NixCounts, line: str) -> NixCounts:
    """The counts after this line of the log."""
    if name := _name(_BUILD_BEGINS, line):
        built = counts.built + 1
        return replace(counts, built=built, to_build=max(counts.to_build, built), now=name)
    if name := _name(_FETCH_BEGINS, line):
        fetched = counts.fetched + 1
        return replace(counts, fetched=fetched, to_fetch=max(counts.to_fetch, fetched), now=name)
    if (match := _WILL_BUILD.match(line)) is not None:
        return replace(counts, to_build=counts.to_build + int(match[1] or 1))
    if (match := _WILL_FETCH.match(line)) is not None:
        return replace(counts, to_fetch=counts.to_fetch + int(match[1] or 1))
    return counts


def _name(pattern: re.Pattern[str], line: str) -> str:
    """The name of the store path in a line of this pattern; empty for other lines."""
    match = pattern.match(line)
    return next(iter(store_names(match[1])), "") if match else ""
