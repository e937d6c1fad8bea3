"""Nix, driven from here alone: the only file that knows its programs, its flags and what it prints.

Command lines are values (`*_argv`). What a person typed reaches Nix as JSON in one argument, never as source text.
Facts seen on Nix 2.8 that shaped this: `--eval` writes no .drv without `--read-write-mode`; a bare .drv realises every
output, `drv!out` the named ones; `path-info` needs the feature `nix-command` and answers an unknown path with
`valid: false` and success; its JSON is a list there and an object by path in newer releases.
"""

import grp
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy import process, resolution
from proxy.errors import (
    BuildFailed,
    BuildTimedOut,
    EvaluationFailed,
    NixUnavailable,
    PackageSetUnavailable,
    ProcessFailed,
)
from proxy.model import Closure, Package, PackageSet, PathInfo, canonical_json

_ERROR_LINES = 20  # of the log, in a message
# Lines of Nix's own that say nothing about a failure: warnings, and the plan of what will be built or fetched.
_NO_NEWS = re.compile(r"warning:|th(is|ese).* will be (built|fetched)|  /nix/store/\S+$")
_LISTING_DEADLINE = 120.0  # seconds, for questions to the store


@dataclass(frozen=True, slots=True)
class Source:
    """A fetched source tree: its store path, the hash of its NAR, and what it says of itself.

    `archive`: the store path of the tarball that it was unpacked from, empty for other sources.
    """

    path: str
    nar_hash: str
    revision: str
    last_modified: int
    archive: str


def evaluate_argv(entry: Path, request: Mapping[str, Any]) -> tuple[str, ...]:
    """Resolve names: prints one result for each (shape: `nix/default.nix`), writes .drv files, builds nothing."""
    return (
        "nix-instantiate",
        "--eval",
        "--strict",
        "--json",
        "--read-write-mode",
        str(entry),
        "--argstr",
        "request",
        canonical_json(request).decode(),
    )


def fetch_argv(entry: Path, source: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
    """Fetch the source of a package set (shape: `nix/source.nix`)."""
    return (
        "nix-instantiate",
        "--eval",
        "--strict",
        "--json",
        "--read-write-mode",
        str(entry),
        "--argstr",
        "source",
        canonical_json(source).decode(),
        "--argstr",
        "prefix",
        prefix,
    )


def realise_argv(packages: Iterable[Package], root: Path) -> tuple[str, ...]:
    """Build or fetch exactly the wanted outputs and root them at `root`, `root-2`, ..."""
    wanted = dict.fromkeys(
        f"{package.drv_path}!{','.join(name for name, _ in package.outputs)}" for package in packages
    )
    return ("nix-store", "--realise", *wanted, "--add-root", str(root), "--indirect")


def path_info_argv(paths: Iterable[str]) -> tuple[str, ...]:
    """Sizes and references of the closure of these store paths."""
    return ("nix", "path-info", "--json", "--recursive", *dict.fromkeys(paths))


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


class Nix:
    """The Nix of this machine, on one store."""

    def __init__(
        self, expressions: Path, *, store: str, evaluation_deadline: float, build_deadline: float
    ) -> None:
        """`store`: empty for the system's own, else a folder that holds a store of its own (`nix/store` in it)."""
        self._entry = expressions / "default.nix"
        self._source = expressions / "source.nix"
        self._store = store
        self._evaluation_deadline = evaluation_deadline
        self._build_deadline = build_deadline

    @property
    def prefix(self) -> str:
        """Where the file system of the store is mounted: a store path is found at this and itself."""
        return self._store

    async def fetch(self, source: Mapping[str, Any], root: Path) -> Source:
        """The source of a package set, in the store and rooted at `root` (in a folder that is there). Raises `PackageSetUnavailable`."""
        try:
            output = await self._run(fetch_argv(self._source, source, self.prefix), self._build_deadline)
            found = json.loads(output)
            keep = ("nix-store", "--realise", found["path"], "--add-root", str(root), "--indirect")
            await self._run(keep, _LISTING_DEADLINE)
        except ProcessFailed as error:
            reason = _last_lines(error.tail)
            raise PackageSetUnavailable(f"cannot fetch {_shown(source)}: {reason}") from error
        return Source(
            found["path"], found["narHash"], found["revision"], found["lastModified"], found["archive"]
        )

    async def evaluate(
        self, package_set: PackageSet, system: str, attributes: Sequence[str], optional: Sequence[str]
    ) -> dict[str, Package]:
        """The package of each name, as typed; `optional` ones only where the set has them.

        Raises `PackageUnknown` for names, `EvaluationFailed` for packages that Nix refuses.
        """
        request = {
            "expression": package_set.expression,
            "arguments": dict(package_set.arguments),
            "system": system,
            "attributes": list(attributes),
            "optional": list(optional),
        }
        try:
            output = await self._run(
                evaluate_argv(self._entry, request),
                self._evaluation_deadline,
                substitutes=package_set.substitutes,
            )
        except ProcessFailed as error:
            names = " ".join(attributes)
            if error.timed_out:
                limit = f"{self._evaluation_deadline:.0f} s"
                raise EvaluationFailed(f"evaluating {names} took longer than {limit}") from error
            raise EvaluationFailed(f"Nix cannot evaluate {names}: {_last_lines(error.tail)}") from error
        return resolution.read(json.loads(output), package_set.name)

    async def realise(
        self,
        package_set: PackageSet,
        packages: Sequence[Package],
        asked: Sequence[str],
        roots: Path,
        on_line: Callable[[str], None],
    ) -> Closure:
        """The closure of the packages, every path valid and held by roots in the folder `roots`.

        `asked` are the names as a person typed them, for messages. Raises `BuildFailed` with the end of the log, `BuildTimedOut` at the deadline.
        """
        try:
            await self._run(
                realise_argv(packages, roots / "root"),
                self._build_deadline,
                substitutes=package_set.substitutes,
                on_line=on_line,
            )
            outputs = [path for package in packages for _, path in package.outputs]
            listing = await self._run(path_info_argv(outputs), _LISTING_DEADLINE)
        except ProcessFailed as error:
            names = " ".join(asked)
            told = [line for line in error.tail if not _NO_NEWS.match(line)][-_ERROR_LINES:]
            log = "\n".join(told)
            if error.timed_out:
                limit = f"{self._build_deadline:.0f} s"
                raise BuildTimedOut(
                    f"building {names} took longer than {limit}; its log ends:\n{log}"
                ) from error
            cause = next((line for line in reversed(told) if "error:" in line), "no error was told")
            raise BuildFailed(
                f"building {names} failed: {cause.strip().removeprefix('error: ')}; its log ends:\n{log}"
            ) from error
        return Closure(tuple(packages), read_path_info(listing))

    async def _run(
        self,
        argv: tuple[str, ...],
        deadline: float,
        *,
        substitutes: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> bytes:
        environment = child_environment(os.environ, store=self._store, substitutes=substitutes)
        try:
            return await process.run(argv, env=environment, deadline=deadline, on_line=on_line)
        except ProcessFailed as error:
            if error.returncode is None:
                raise NixUnavailable(
                    f"{argv[0]} could not be started ({'; '.join(error.tail)}); is Nix installed on this host?"
                ) from error
            raise


def child_environment(base: Mapping[str, str], *, store: str, substitutes: bool) -> dict[str, str]:
    """The environment of a Nix child: ours, less our own settings, plus what this use of Nix needs.

    Root without the build users' group builds as root itself; this is said to the child alone, and to no file of
    the host. A daemon ignores it.
    """
    lines = [
        base.get("NIX_CONFIG", ""),
        "extra-experimental-features = nix-command flakes",
        "allow-import-from-derivation = false",
    ]
    if os.geteuid() == 0 and not _has_group("nixbld"):
        lines.append("build-users-group =")
    if not substitutes:
        lines.append("substitute = false")
    environment = {name: value for name, value in base.items() if not name.startswith("NIXFRONT_")}
    environment["NIX_CONFIG"] = "\n".join(line for line in lines if line)
    environment.pop("NIX_PATH", None)
    if store:
        environment["NIX_REMOTE"] = store
    return environment


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _last_lines(tail: Sequence[str]) -> str:
    """The error of an evaluation: from the last line that starts with `error:` on, or the last few lines."""
    starts = [number for number, line in enumerate(tail) if line.lstrip().startswith("error:")]
    lines = tail[starts[-1] :] if starts else tail[-3:]
    return "\n".join(line.strip() for line in lines[:_ERROR_LINES]).removeprefix("error: ").strip()


def _shown(source: Mapping[str, Any]) -> str:
    return str(source.get("url") or source.get("path"))
