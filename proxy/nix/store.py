"""Nix, driven from here alone: what can be asked of it, each with the errors that it ends in.

Its command lines are in `nix_commands`, and what it prints is read by `nix_output`.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.core.errors import (
    BuildFailed,
    DerivationLost,
    EvaluationFailed,
    NixUnavailable,
    PackageRefused,
    ProcessFailed,
)
from proxy.core.model import Closure, Package, PackageSet, PathInfo, Policy, canonical_json
from proxy.core.names import attribute_path
from proxy.nix import commands
from proxy.nix.commands import NO_CACHES, Caches
from proxy.nix.evaluate import Evaluations
from proxy.nix.output import (
    flake_paths,
    last_lines,
    not_built,
    not_fetched,
    read_path_info,
    read_plan,
    trouble_of_host,
)
from proxy.nix.results import own_refusal, read_resolution
from proxy.tools import process

_SET_OF_PACKAGES = re.compile(r".*Packages")
_SETS_LISTED = 100  # one by one, where a list of all cannot be had at once
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


@dataclass(frozen=True, slots=True)
class ImagesFile:
    """The operator's file of named images, and what it may refer to: package sets, and other names for attributes.

    `always`: attributes of every image where its set has them.
    """

    file: Path
    package_sets: tuple[str, ...]
    aliases: Mapping[str, str]
    always: tuple[str, ...]


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
        caches: Caches = NO_CACHES,
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
        self._evaluations = Evaluations()
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
            raise NixUnavailable(f"Nix cannot open its store: {last_lines(error.tail)}") from error

    async def fetch(self, source: Mapping[str, Any], root: Path) -> Source:
        """The source of a package set, in the store and rooted at `root` (in a folder that is there).

        Raises `SourceMissing` where there is nothing, `PackageSetUnavailable` otherwise.
        """
        try:
            output = await self._run(
                commands.fetch_argv(self._source, source, self.prefix), self._build_deadline
            )
            found = json.loads(output)
            await self.keep([found["path"]], root)
        except ProcessFailed as error:
            raise not_fetched(str(source.get("url") or source.get("path")), error) from error
        return Source(
            found["path"], found["narHash"], found["revision"], found["lastModified"], found["archive"]
        )

    async def fetch_flake(self, reference: str, root: Path) -> Source:
        """The same for a flake and all its inputs."""
        try:
            archive = json.loads(
                await self._run(commands.flake_argv("archive", reference), self._build_deadline)
            )
            metadata = json.loads(
                await self._run(commands.flake_argv("metadata", reference), self._build_deadline)
            )
            await self.keep(flake_paths(archive), root)
        except ProcessFailed as error:
            raise not_fetched(reference, error) from error
        locked = metadata["locked"]
        modified = metadata.get("lastModified", 0)
        return Source(metadata["path"], locked.get("narHash", ""), metadata.get("revision", ""), modified, "")

    async def copy(self, paths: Sequence[str], cache: str) -> None:
        """Copy these store paths, and all that they need, to a binary cache. Raises `ProcessFailed`, `NixUnavailable`."""
        await self._run(commands.copy_argv(paths, cache), self._build_deadline)

    async def keep(self, paths: Sequence[str], root: Path) -> None:
        """Root these store paths, which are valid, at `root`, `root-2`, ... Raises `ProcessFailed`, `NixUnavailable`."""
        await self._run(commands.keep_argv(paths, root), _LISTING_DEADLINE)

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
        question = _question(package_set, system, policy)
        source = [package_set.revision, package_set.nar_hash, package_set.import_from_derivation]
        # Two questions: the policy bounds what a person names, and the other is the operator's own wish (`nix/describe.nix`).
        named, wished = (canonical_json([question, source, kind]) for kind in ("attributes", "optional"))
        found = self._evaluations.known(named, attributes) | self._evaluations.known(wished, optional)
        new, others = ([name for name in names if name not in found] for names in (attributes, optional))
        if new or others:
            request = {
                **question,
                "attributes": [_attribute(typed) for typed in new],
                "optional": [_attribute(typed) for typed in others],
            }
            output = await self._answered(self._entry, package_set, request, " ".join(attributes))
            answered = await asyncio.to_thread(json.loads, output)
            self._evaluations.keep(named, answered[: len(new)])
            self._evaluations.keep(wished, answered[len(new) :], others)
            found |= {result["typed"]: result for result in answered}
        results = [result for name in (*attributes, *optional) if (result := found.get(name)) is not None]
        missing = any(result["kind"] == "missing" for result in results)
        names = await known() if missing else ()
        return await asyncio.to_thread(read_resolution, results, package_set.name, names)

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
            reason = last_lines(error.tail)
            if (refusal := own_refusal(reason)) is not None:
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
            reason = last_lines(error.tail)
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
                commands.realise_argv(packages, roots / "root", beside),
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
                commands.build_argv(self._root, file, roots / "changed"),
                self._build_deadline,
                substitutes=package_set.substitutes,
                on_line=on_line,
            )
            path = await asyncio.to_thread(os.readlink, roots / "changed")
            self.on_realised((path,))
            return path, await self._infos([path])

    async def _infos(self, paths: Sequence[str]) -> tuple[PathInfo, ...]:
        return read_path_info(await self._run(commands.path_info_argv(paths), _LISTING_DEADLINE))

    @contextmanager
    def _building(self, names: str) -> Iterator[None]:
        """A failure of Nix becomes one that says what could not be built, and why."""
        try:
            yield
        except ProcessFailed as error:
            failure = not_built(names, error, self._build_deadline)
            if isinstance(failure, DerivationLost):
                self._evaluations.forget()
            raise failure from error

    async def closure(self, packages: Sequence[Package]) -> Closure | None:
        """The closure of these packages as far as the store has all of it now; None if anything is missing."""
        outputs = [path for package in packages for _, path in package.outputs]
        with suppress(ProcessFailed, BuildFailed):
            return Closure(tuple(packages), await self._infos(outputs))
        return None

    async def to_fetch(self, package_set: PackageSet, packages: Sequence[Package]) -> int:
        """The bytes, unpacked, that the packages' closure still has to be fetched, as far as binary caches say; else 0."""
        lines: list[str] = []
        with suppress(ProcessFailed):  # whatever is wrong is told better when they are realised
            await self._run(
                commands.plan_argv(packages),
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
        argv = commands.evaluate_argv(
            entry, request, paths, may_build=may_build, memory=self._evaluation_memory
        )
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
        environment = commands.child_environment(
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
            if not commands.was_started(argv, error.returncode):
                program = next(word for word in argv if word.startswith("nix"))
                raise NixUnavailable(
                    f"{program} could not be started ({'; '.join(error.tail)}); is Nix installed on this host?"
                ) from error
            if (trouble := trouble_of_host(error)) is not None:
                raise trouble from error
            raise
        finally:
            self._timed(commands.kind_of_run(argv), time.perf_counter() - started)


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


def _attribute(typed: str) -> dict[str, object]:
    return {"typed": typed, "path": list(attribute_path(typed))}
