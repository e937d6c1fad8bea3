"""Nix, driven from here alone: the only file that knows its programs, its flags and what it prints.

Command lines are values (`*_argv`). What a person typed reaches Nix as JSON in one argument, never as source text.
Facts seen on Nix 2.8 that shaped this: `--eval` writes no .drv without `--read-write-mode`; a bare .drv realises every
output, `drv!out` the named ones; `path-info` needs the feature `nix-command` and answers an unknown path with
`valid: false` and success; its JSON is a list there and an object by path in newer releases.
"""

import asyncio
import grp
import json
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy import names, process, resolution
from proxy.errors import (
    BuildFailed,
    BuildTimedOut,
    DerivationLost,
    EvaluationFailed,
    NixUnavailable,
    PackageRefused,
    PackageSetUnavailable,
    ProcessFailed,
    SourceMissing,
    StoreFull,
)
from proxy.model import Closure, Package, PackageSet, PathInfo, Policy, canonical_json, without_credentials

# util-linux's, on every Linux that is not cut down: an evaluation that eats memory dies, not the host.
_PRLIMIT = shutil.which("prlimit")
_NOT_STARTED = (126, 127)  # what prlimit ends with when it cannot start the program
_INSTANTIATE = ("nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode")
_ERROR_LINES = 20  # of the log, in a message
# Lines of Nix's own that say nothing about a failure: warnings, and the plan of what will be built or fetched.
_NO_NEWS = re.compile(r"warning:|th(is|ese).* will be (built|fetched)|  /nix/store/\S+$")
_BUILDS = re.compile(r"th(?:is|ese) .*will be built")
_FETCHES = re.compile(
    r"th(?:is|ese) .*will be fetched \([0-9.]+ \w+ download, ([0-9.]+) ([KMGT]iB) unpacked\)"
)
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SET_OF_PACKAGES = re.compile(r".*Packages")
_SETS_LISTED = 100  # one by one, where a list of all cannot be had at once
_LISTING_DEADLINE = 120.0  # seconds, for questions to the store
_CONSEQUENCE = re.compile(r"dependencies of derivation|^build of '|some outputs of ")
_LOST = re.compile(r"missing derivation|\.drv' is not valid|opening file '/nix/store/\S+\.drv': No such file")
_NOWHERE = re.compile(r"don't know how to build these paths|no substituter that can build it")
_STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[0-9a-zA-Z+\-._?=]+")
# What the host has to mend, whoever met it: a builder that could not write, or Nix itself.
_DISK_FULL = re.compile(r"No space left on device|database or disk is full")
_NO_DAEMON = re.compile(r"error: cannot (?:connect to|open connection to) .*(?:socket|daemon|remote store)")
_NOTHING_THERE = re.compile(
    r"HTTP error 40[34]|does not exist|[Nn]o such file|not our ref|bad object|Cannot find Git revision|couldn't find remote ref"
)


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


@dataclass(frozen=True, slots=True)
class Caches:
    """Where else store paths come from: `substituters` and the `public_keys` that sign there, and `builders`, as Nix has them."""

    substituters: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    builders: str = ""


@dataclass(frozen=True, slots=True)
class ImagesFile:
    """The operator's file of named images, and what it may refer to: package sets, and other names for attributes.

    `always`: attributes of every image where its set has them.
    """

    file: Path
    package_sets: tuple[str, ...]
    aliases: Mapping[str, str]
    always: tuple[str, ...]


def evaluate_argv(
    entry: Path,
    request: Mapping[str, Any],
    readable: Sequence[str],
    *,
    may_build: bool = False,
    memory: int = 0,
) -> tuple[str, ...]:
    """Evaluate one of our expressions on a request: prints its result (shape: its head comment).

    Restricted: it reads nothing but our expressions and what is `readable`, fetches nothing, and builds nothing
    unless it `may_build` (import from derivation). `memory`: bytes of address space, 0 for no limit.
    """
    bounded = (_PRLIMIT, f"--as={memory}") if _PRLIMIT and memory else ()
    building = ("--option", "allow-import-from-derivation", str(may_build).lower())
    restricted = ("--option", "restrict-eval", "true", "--option", "allowed-uris", "", *building)
    search = tuple(word for path in (str(entry.parent), *readable) for word in ("-I", path))
    asked = ("--argstr", "request", canonical_json(request).decode())
    return (*bounded, *_INSTANTIATE, *restricted, *search, str(entry), *asked)


def fetch_argv(entry: Path, source: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
    """Fetch the source of a package set (shape: `nix/source.nix`)."""
    asked = ("--argstr", "source", canonical_json(source).decode(), "--argstr", "prefix", prefix)
    return (*_INSTANTIATE, str(entry), *asked)


def flake_argv(verb: str, reference: str) -> tuple[str, ...]:
    """`archive`: fetch a flake and its inputs; `metadata`: what it is. A flake without a whole lock file is refused."""
    return ("nix", "flake", verb, "--json", "--no-update-lock-file", reference)


def realise_argv(packages: Iterable[Package], root: Path, beside: Iterable[str] = ()) -> tuple[str, ...]:
    """Build or fetch exactly the wanted outputs, and what is wanted `beside` them, and root them at `root`, `root-2`, ..."""
    wanted = dict.fromkeys((*(_installable(package) for package in packages), *beside))
    return ("nix-store", "--realise", *wanted, "--add-root", str(root), "--indirect")


def plan_argv(packages: Iterable[Package]) -> tuple[str, ...]:
    """Say what realising the packages would build and fetch, and do neither."""
    return (*realise_argv(packages, Path())[:-3], "--dry-run")


def build_argv(entry: Path, request: Path, root: Path) -> tuple[str, ...]:
    """Build the one derivation of our own (shape: `nix/root.nix`) and root it at `root`; prints its path."""
    return ("nix-build", str(entry), "--argstr", "request", str(request), "--out-link", str(root))


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
        self,
        expressions: Path,
        *,
        store: str,
        evaluation_deadline: float,
        build_deadline: float,
        evaluation_memory: int = 0,
        evaluations: int = 0,
        log_bytes: int = 0,
        caches: Caches = Caches(),
        timed: Callable[[str, float], None] = lambda _, __: None,
    ) -> None:
        """`store`: empty for the system's own, else a folder that holds a store of its own (`nix/store` in it).

        `evaluation_memory`, `log_bytes` (of one builder): in bytes, 0 for no limit; `evaluations`: at once, 0 for as many
        as there are processors.

        `timed` hears of each run: which of a few kinds, and for how many seconds.
        """
        self._entry = expressions / "default.nix"
        self._names = expressions / "names.nix"
        self._images = expressions / "images.nix"
        self._root = expressions / "root.nix"
        self._source = expressions / "source.nix"
        self._store = store
        self._evaluation_deadline = evaluation_deadline
        self._build_deadline = build_deadline
        self._caches = caches
        self._timed = timed
        #: Hears of store paths that were realised, while they are rooted.
        self.on_realised: Callable[[Sequence[str]], None] = lambda _: None
        self._evaluation_memory = evaluation_memory
        self._log_bytes = log_bytes
        self._evaluating = asyncio.Semaphore(evaluations or os.cpu_count() or 1)

    @property
    def prefix(self) -> str:
        """Where the file system of the store is mounted: a store path is found at this and itself."""
        return self._store

    async def ping(self) -> None:
        """Nix starts and can open its store. Raises `NixUnavailable`."""
        try:
            await self._run(("nix", "store", "ping"), _LISTING_DEADLINE)
        except ProcessFailed as error:
            raise NixUnavailable(f"Nix cannot open its store: {_last_lines(error.tail)}") from error

    async def fetch(self, source: Mapping[str, Any], root: Path) -> Source:
        """The source of a package set, in the store and rooted at `root` (in a folder that is there).

        Raises `SourceMissing` where there is nothing, `PackageSetUnavailable` otherwise.
        """
        try:
            output = await self._run(fetch_argv(self._source, source, self.prefix), self._build_deadline)
            found = json.loads(output)
            await self.keep([found["path"]], root)
        except ProcessFailed as error:
            raise _not_fetched(str(source.get("url") or source.get("path")), error) from error
        return Source(
            found["path"], found["narHash"], found["revision"], found["lastModified"], found["archive"]
        )

    async def fetch_flake(self, reference: str, root: Path) -> Source:
        """The same for a flake and all its inputs."""
        try:
            archive = json.loads(await self._run(flake_argv("archive", reference), self._build_deadline))
            metadata = json.loads(await self._run(flake_argv("metadata", reference), self._build_deadline))
            await self.keep(_flake_paths(archive), root)
        except ProcessFailed as error:
            raise _not_fetched(reference, error) from error
        locked = metadata["locked"]
        modified = metadata.get("lastModified", 0)
        return Source(metadata["path"], locked.get("narHash", ""), metadata.get("revision", ""), modified, "")

    async def copy(self, paths: Sequence[str], cache: str) -> None:
        """Copy these store paths, and all that they need, to a binary cache. Raises `ProcessFailed`, `NixUnavailable`."""
        await self._run(("nix", "copy", "--to", cache, *paths), self._build_deadline)

    async def keep(self, paths: Sequence[str], root: Path) -> None:
        """Root these store paths, which are valid, at `root`, `root-2`, ... Raises `ProcessFailed`, `NixUnavailable`."""
        await self._run(
            ("nix-store", "--realise", *paths, "--add-root", str(root), "--indirect"), _LISTING_DEADLINE
        )

    async def evaluate(
        self,
        package_set: PackageSet,
        system: str,
        policy: Policy,
        attributes: Sequence[str],
        optional: Sequence[str],
        known: Callable[[], Awaitable[Sequence[str]]],
    ) -> dict[str, Package]:
        """The package of each name, as typed; `optional` ones only where the set has them.

        `known` is asked for the names of the whole set when one is missing.
        Raises `PackageUnknown`, `PackageRefused`, and `EvaluationFailed` where Nix cannot say.
        """
        request = {
            **_question(package_set, system, policy),
            "attributes": [_attribute(typed) for typed in attributes],
            "optional": [_attribute(typed) for typed in optional],
        }
        output = await self._answered(self._entry, package_set, request, " ".join(attributes))
        results = await asyncio.to_thread(json.loads, output)
        missing = any(result["kind"] == "missing" for result in results)
        names = await known() if missing else ()
        return await asyncio.to_thread(resolution.read, results, package_set.name, names)

    async def image(
        self,
        name: str,
        written: ImagesFile,
        package_set: PackageSet,
        chosen: str,
        pkgs: PackageSet,
        system: str,
        policy: Policy,
    ) -> Mapping[str, Any]:
        """What the operator wrote of an image (shape: `nix/images.nix`), whose strings are about `package_set`.

        `chosen`: what the file calls that set; `pkgs`: the default one. Raises as `evaluate` does.
        """
        file = await asyncio.to_thread(written.file.resolve)
        request = {
            **_question(package_set, system, policy),
            "image": name,
            "file": str(file),
            "pkgs": {"expression": pkgs.expression, "arguments": dict(pkgs.arguments)},
            "set": chosen,
            "sets": sorted(written.package_sets),
            "aliases": dict(written.aliases),
            "optional": list(written.always),
        }
        # A file that lies in the store by itself stands for itself alone, and not for the whole store.
        folder = file if file.parent == Path("/nix/store") else file.parent
        readable = (str(folder), *_readable(pkgs))
        output = await self._answered(self._images, package_set, request, f"image {name}", readable)
        found: Mapping[str, Any] = await asyncio.to_thread(json.loads, output)
        return found

    async def _answered(
        self,
        entry: Path,
        package_set: PackageSet,
        request: Mapping[str, Any],
        told: str,
        readable: Sequence[str] = (),
    ) -> bytes:
        """The result of a question about what a person calls `told`. Raises `PackageRefused`, `EvaluationFailed`."""
        try:
            return await self._evaluate(entry, package_set, request, readable)
        except ProcessFailed as error:
            if error.timed_out:
                limit = f"{self._patience(package_set):.0f} s"
                raise EvaluationFailed(f"evaluating {told} took longer than {limit}") from error
            reason = _last_lines(error.tail)
            if (refusal := resolution.own_refusal(reason)) is not None:
                raise PackageRefused(refusal) from error
            if "allow-import-from-derivation" in reason:
                reason = (
                    "it would have to build something first (import from derivation), which is not allowed here; "
                    "import_from_derivation in the settings of this package set would allow it"
                )
            raise EvaluationFailed(f"Nix cannot evaluate {told}: {reason}") from error

    async def names(self, package_set: PackageSet, system: str, policy: Policy) -> list[str]:
        """The names of the set's attributes (shape: `nix/names.nix`). Raises `EvaluationFailed`."""
        question = _question(package_set, system, policy)

        async def listed(look: str) -> list[str]:
            output = await self._evaluate(self._names, package_set, {**question, "look": look})
            return [str(name) for name in json.loads(output)]

        with suppress(ProcessFailed):
            return await listed("all")
        try:
            found = await listed("none")
        except ProcessFailed as error:
            reason = _last_lines(error.tail)
            raise EvaluationFailed(f"Nix cannot list package set {package_set.name}: {reason}") from error
        for name in [name for name in found if _SET_OF_PACKAGES.fullmatch(name)][:_SETS_LISTED]:
            with suppress(ProcessFailed):  # the one that aborts, or another like it
                found += await listed(name)
        return found

    async def realise(
        self,
        package_set: PackageSet,
        packages: Sequence[Package],
        asked: Sequence[str],
        roots: Path,
        on_line: Callable[[str], None],
        *,
        beside: Sequence[str] = (),
        paths: Sequence[str] = (),
    ) -> Closure:
        """The closure of the packages, every path valid and held by roots in the folder `roots`.

        `asked` are the names as a person typed them, for messages. `beside` them more is realised (`drv!output`, or a
        store path), and the closure has `paths` too, which are among that.
        Raises `BuildFailed` with the end of the log, `BuildTimedOut` at the deadline.
        """
        names = " ".join(asked)
        with self._building(names):
            await self._run(
                realise_argv(packages, roots / "root", beside),
                self._build_deadline,
                substitutes=package_set.substitutes,
                on_line=on_line,
            )
            outputs = [path for package in packages for _, path in package.outputs]
            self.on_realised((*outputs, *paths))
            return Closure(tuple(packages), await self._infos((*outputs, *paths)))

    async def build_root(
        self,
        package_set: PackageSet,
        request: Mapping[str, Any],
        asked: str,
        roots: Path,
        on_line: Callable[[str], None],
    ) -> tuple[str, tuple[PathInfo, ...]]:
        """A root tree changed by commands (shape of `request`: `nix/root.nix`), rooted in `roots`, and its closure.

        Raises as `realise` does.
        """
        file = roots / "commands.json"
        await asyncio.to_thread(file.write_bytes, canonical_json(request))
        with self._building(asked):
            await self._run(
                build_argv(self._root, file, roots / "changed"),
                self._build_deadline,
                substitutes=package_set.substitutes,
                on_line=on_line,
            )
            path = await asyncio.to_thread(os.readlink, roots / "changed")
            self.on_realised((path,))
            return path, await self._infos([path])

    async def _infos(self, paths: Sequence[str]) -> tuple[PathInfo, ...]:
        return read_path_info(await self._run(path_info_argv(paths), _LISTING_DEADLINE))

    @contextmanager
    def _building(self, names: str) -> Iterator[None]:
        """A failure of Nix becomes one that says what could not be built, and why."""
        try:
            yield
        except ProcessFailed as error:
            told = [line for line in error.tail if not _NO_NEWS.match(line)][-_ERROR_LINES:]
            log = "\n".join(told)
            if error.timed_out:
                limit = f"{self._build_deadline:.0f} s"
                raise BuildTimedOut(
                    f"building {names} took longer than {limit}; its log ends:\n{log}"
                ) from error
            if any(_LOST.search(line) for line in told):
                raise DerivationLost(
                    f"a garbage collection took {names} away while it was being built"
                ) from error
            if any(_NOWHERE.search(line) for line in told):
                named = dict.fromkeys(_STORE_PATH.findall("\n".join(error.tail)))
                paths = ", ".join(path for path in named if not path.endswith(".drv"))
                raise BuildFailed(
                    f"building {names} failed: no binary cache has {paths}, and nothing says how to build it"
                ) from error
            raise BuildFailed(f"building {names} failed: {_cause(told)}; its log ends:\n{log}") from error

    async def closure(self, packages: Sequence[Package]) -> Closure | None:
        """The closure of these packages as far as the store has all of it now; None if anything is missing."""
        outputs = [path for package in packages for _, path in package.outputs]
        with suppress(ProcessFailed, BuildFailed):
            return Closure(
                tuple(packages), read_path_info(await self._run(path_info_argv(outputs), _LISTING_DEADLINE))
            )
        return None

    async def to_fetch(self, package_set: PackageSet, packages: Sequence[Package]) -> int:
        """The bytes, unpacked, that the packages' closure still has to be fetched, as far as binary caches say; else 0."""
        lines: list[str] = []
        with suppress(ProcessFailed):  # whatever is wrong is told better when they are realised
            await self._run(
                plan_argv(packages),
                _LISTING_DEADLINE,
                substitutes=package_set.substitutes,
                on_line=lines.append,
            )
        return read_plan(lines)

    async def _evaluate(
        self,
        entry: Path,
        package_set: PackageSet,
        request: Mapping[str, Any],
        readable: Sequence[str] = (),
    ) -> bytes:
        may_build = package_set.import_from_derivation
        paths = tuple(dict.fromkeys((*_readable(package_set), *readable)))
        argv = evaluate_argv(entry, request, paths, may_build=may_build, memory=self._evaluation_memory)
        async with self._evaluating:
            return await self._run(argv, self._patience(package_set), substitutes=package_set.substitutes)

    def _patience(self, package_set: PackageSet) -> float:
        """How long an evaluation may take, in seconds: where it may build, as long as a build."""
        return self._build_deadline if package_set.import_from_derivation else self._evaluation_deadline

    async def _run(
        self,
        argv: tuple[str, ...],
        deadline: float,
        *,
        substitutes: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> bytes:
        environment = child_environment(
            os.environ,
            store=self._store,
            substitutes=substitutes,
            log_bytes=self._log_bytes,
            caches=self._caches,
        )
        started = time.perf_counter()
        try:
            return await process.run(argv, env=environment, deadline=deadline, on_line=on_line)
        except ProcessFailed as error:
            if error.returncode is None or (argv[0] == _PRLIMIT and error.returncode in _NOT_STARTED):
                program = next(word for word in argv if word.startswith("nix"))
                raise NixUnavailable(
                    f"{program} could not be started ({'; '.join(error.tail)}); is Nix installed on this host?"
                ) from error
            if (
                told := next((line for line in reversed(error.tail) if _DISK_FULL.search(line)), None)
            ) is not None:
                raise StoreFull(
                    f"the disk under the Nix store of this host is full: {told.strip()}"
                ) from error
            if (told := next((line for line in error.tail if _NO_DAEMON.search(line)), None)) is not None:
                raise NixUnavailable(f"Nix's daemon does not answer: {told.strip()}") from error
            raise
        finally:
            self._timed(kind_of_run(argv), time.perf_counter() - started)


def kind_of_run(argv: Sequence[str]) -> str:
    """The program of a command line, and its verb where it has several: `nix-store --realise`."""
    words = [word for word in argv if not word.startswith("--as=") and word != _PRLIMIT]
    return " ".join(words[: {"nix": 2, "nix-store": 2}.get(words[0], 1)])


def child_environment(
    base: Mapping[str, str],
    *,
    store: str,
    substitutes: bool,
    log_bytes: int = 0,
    caches: Caches = Caches(),
) -> dict[str, str]:
    """The environment of a Nix child: ours, less our own settings, plus what this use of Nix needs.

    Root without the build users' group builds as root itself; this is said to the child alone, and to no file of
    the host. A daemon ignores it.
    """
    lines = [
        "" if substitutes else "sandbox = true",  # what is only built here must not depend on here
        base.get("NIX_CONFIG", ""),
        "extra-experimental-features = nix-command flakes",
        "allow-import-from-derivation = false",
    ]
    if os.geteuid() == 0 and not _has_group("nixbld"):
        lines.append("build-users-group =")
    own = " ".join(caches.substituters)
    if not substitutes:  # no cache of others knows it
        lines.append(f"substituters = {own}" if own else "substitute = false")
    elif own:
        lines.append(f"extra-substituters = {own}")
    if caches.public_keys:
        lines.append(f"extra-trusted-public-keys = {' '.join(caches.public_keys)}")
    if caches.builders:
        lines.append(f"builders = {caches.builders}")
    if log_bytes:
        lines.append(f"max-build-log-size = {log_bytes}")
    environment = {name: value for name, value in base.items() if not name.startswith("NIXFRONT_")}
    environment["NIX_CONFIG"] = "\n".join(line for line in lines if line)
    environment.pop("NIX_PATH", None)
    if store:
        environment["NIX_REMOTE"] = store
    return environment


def _question(package_set: PackageSet, system: str, policy: Policy) -> dict[str, object]:
    """The part of a request that says which set, for which system, under which policy."""
    return {
        "expression": package_set.expression,
        "arguments": dict(package_set.arguments),
        "system": system,
        "policy": {
            "allowUnfree": policy.allow_unfree,
            "allowInsecure": policy.allow_insecure,
            "allowBroken": policy.allow_broken,
            "denyPackages": policy.deny_packages,
            "denyLicenses": policy.deny_licenses,
            "onlyPackages": policy.only_packages,
            "onlyLicenses": policy.only_licenses,
        },
    }


def _readable(package_set: PackageSet) -> tuple[str, ...]:
    """What an evaluation of this set may read."""
    paths = (package_set.expression, *package_set.arguments.values())
    return tuple(path for path in paths if path.startswith("/"))


def _installable(package: Package) -> str:
    """What Nix has to realise for the outputs of a package."""
    outputs = ",".join(name for name, _ in package.outputs)
    return f"{package.drv_path}!{outputs}" if package.drv_path else package.outputs[0][1]


def _attribute(typed: str) -> dict[str, object]:
    return {"typed": typed, "path": list(names.attribute_path(typed))}


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
    told = [line.strip() for line in lines[:_ERROR_LINES] if "--show-trace" not in line]
    return "\n".join(told).removeprefix("error: ").strip()


def _cause(told: Sequence[str]) -> str:
    """What went wrong first: Nix tells the cause, then what could not be built because of it."""
    errors = [line.strip().removeprefix("error:").strip() for line in told if "error:" in line]
    first = [line for line in errors if line and not _CONSEQUENCE.search(line)]
    return (first or errors or ["no error was told"])[0].rstrip(";:.")


def _not_fetched(address: str, error: ProcessFailed) -> PackageSetUnavailable:
    reason = _last_lines(error.tail)
    kind = SourceMissing if _NOTHING_THERE.search(reason) else PackageSetUnavailable
    return kind(without_credentials(f"cannot fetch {address}: {reason}"))


def _flake_paths(archive: Mapping[str, Any]) -> list[str]:
    """The store paths of a flake and of its inputs, and theirs, sorted."""
    found = {archive["path"]} if archive.get("path") else set()
    for inner in (archive.get("inputs") or {}).values():
        found.update(_flake_paths(inner))
    return sorted(found)
