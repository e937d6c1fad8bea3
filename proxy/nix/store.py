"""The Nix store: fetch sources into it, build and fetch packages, read closures, copy them to a binary cache.

Everything here starts from a derivation or a store path; `evaluate` says which. `NixRunner` runs Nix.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.core import foreign
from proxy.core.errors import BuildFailed, NixUnavailable, PackageSetUnavailable, ProcessFailed
from proxy.core.model import Closure, Package, PackageSet, PathInfo, canonical_json
from proxy.nix import commands, stand_ins
from proxy.nix.archive import newest
from proxy.nix.hold import StoreHold, hold
from proxy.nix.output import (
    flake_inputs,
    flake_paths,
    lacks_a_path,
    last_lines,
    not_built,
    not_fetched,
    read_path_info,
    read_plan,
)
from proxy.nix.runner import NixRunner
from proxy.tools.retry import retry

_QUERY_SECONDS = 120.0  # deadline of a question to the store
# A garbage collection may take a source before a root holds it: Nix gives no root with `nix-instantiate`.
_FETCHES = 6
_PAUSE = 0.1  # seconds before the second try


@dataclass(frozen=True, slots=True)
class Source:
    """A source tree in the store: its path, the hash of its NAR (SRI), and what it says about itself.

    `last_modified` is the date of the commit, or of the newest file of a tarball, in seconds since the epoch; 0 if there is none.
    `inputs` are the store paths of a flake's inputs, by node of its lock file.
    """

    path: str
    nar_hash: str
    revision: str
    last_modified: int
    inputs: Mapping[str, str] = field(default_factory=dict)


class NixStore:
    """The Nix store of this machine."""

    def __init__(self, runner: NixRunner, expressions: Path) -> None:
        self._runner = runner
        self._root = expressions / "root.nix"
        self._source = expressions / "source.nix"

    @property
    def prefix(self) -> str:
        """The folder in which the store lies: a store path is the file at `prefix` and itself. Empty for `/`."""
        return self._runner.store

    async def ping(self) -> None:
        """Start Nix and open the store. Raises `NixUnavailable`."""
        try:
            await self._runner.run(("nix", "store", "ping"), _QUERY_SECONDS)
        except ProcessFailed as error:
            raise NixUnavailable(f"Nix cannot open its store: {last_lines(error.tail)}") from error

    async def fetch(
        self, source: Mapping[str, Any], root: Path, environment: Mapping[str, str] | None = None
    ) -> Source:
        """Fetch the source of a package set (shape: `nix/source.nix`) and root it at `root`, whose folder exists.

        `environment`: further variables for Nix and the git that it starts.
        Raises `SourceMissing` where there is nothing, `PackageSetUnavailable` otherwise.
        """
        argv = commands.fetch_argv(self._source, source, self.prefix)

        async def fetch() -> dict[str, Any]:
            tree: dict[str, Any] = json.loads(await self._build(argv, environment=environment, secrets=True))
            archive = tree["archive"]
            await self.keep([tree["path"], *([archive] if archive else [])], root)
            if archive:
                tree["lastModified"] = await asyncio.to_thread(newest, self.prefix + archive)
                await asyncio.to_thread(os.unlink, f"{root}-2")  # the tree is all that evaluations need
            return tree

        try:
            tree = await retry(fetch, _fetches, _PAUSE)
        except ProcessFailed as error:
            raise not_fetched(str(source.get("url") or source.get("path")), error) from error
        return Source(tree["path"], tree["narHash"], tree["revision"], tree["lastModified"])

    async def fetch_flake(self, reference: str, root: Path) -> Source:
        """Fetch a flake and all its inputs, and root them. Raises as `fetch` does."""

        async def fetch() -> tuple[dict[str, Any], dict[str, Any]]:
            archive = json.loads(await self._build(commands.flake_argv("archive", reference), secrets=True))
            metadata = json.loads(await self._build(commands.flake_argv("metadata", reference), secrets=True))
            await self.keep(flake_paths(archive), root)
            return archive, metadata

        try:
            archive, metadata = await retry(fetch, _fetches, _PAUSE)
            inputs = await asyncio.to_thread(self._inputs, archive)
        except ProcessFailed as error:
            raise not_fetched(reference, error) from error
        locked = metadata["locked"]
        modified = metadata.get("lastModified", 0)
        nar_hash, revision = locked.get("narHash", ""), metadata.get("revision", "")
        return Source(metadata["path"], nar_hash, revision, modified, inputs)

    def _inputs(self, archive: Mapping[str, Any]) -> dict[str, str]:
        """The inputs of a flake that was fetched. Raises `PackageSetUnavailable`."""
        file = Path(f"{self.prefix}{archive['path']}/flake.lock")
        try:
            return flake_inputs(archive, foreign.parse(file.read_bytes())) if file.exists() else {}
        except (OSError, ValueError) as error:
            raise PackageSetUnavailable(f"cannot read the lock file of the flake: {error}") from error

    async def keep(self, paths: Sequence[str], root: Path) -> None:
        """Root these valid store paths at `root`, `root-2`, ... Raises `ProcessFailed`, `NixUnavailable`."""
        await self._runner.run(commands.keep_argv(paths, root), _QUERY_SECONDS)

    async def copy(self, paths: Sequence[str], cache: str) -> None:
        """Copy the closure of these store paths to a binary cache. Raises `ProcessFailed`, `NixUnavailable`."""
        await self._build(commands.copy_argv(paths, cache), secrets=True)

    async def realise(
        self,
        package_set: PackageSet,
        packages: Sequence[Package],
        names: Sequence[str],
        roots: Path,
        on_line: Callable[[str], None],
        *,
        beside: Sequence[str] = (),
        paths: Sequence[str] = (),
    ) -> Closure:
        """Build or fetch the packages; returns their closure. Roots in the folder `roots` hold every path of it.

        `names` are the packages' names in messages. `beside` the packages, more is realised (`drv!output`, or a store path).
        Those of them that belong into the closure are `paths`. `on_line` gets each line of the log.
        Raises `BuildFailed` with the end of the log, `BuildTimedOut` at the deadline. Raises `DerivationLost` where a garbage
        collection took a derivation: call `Evaluator.forget`, evaluate, and realise again.
        """
        subject = " ".join(names)
        with self._failures(subject):
            if package_set.stand_ins:
                await stand_ins.build(self._runner, package_set, packages, roots, on_line)
            await self._build(
                commands.realise_argv(packages, roots / "root", beside), package_set.substitutes, on_line
            )
            outputs = [path for package in packages for _, path in package.outputs]
            return Closure(tuple(packages), await self._infos((*outputs, *paths)))

    async def build_root(
        self,
        package_set: PackageSet,
        request: Mapping[str, Any],
        subject: str,
        roots: Path,
        on_line: Callable[[str], None],
    ) -> tuple[str, tuple[PathInfo, ...]]:
        """Change a root tree by the operator's commands (shape of `request`: `nix/root.nix`).

        Returns the store path of the tree, rooted in `roots`, and its closure. Raises as `realise` does; `subject` stands in
        the message.
        """
        file = roots / "commands.json"
        await asyncio.to_thread(file.write_bytes, canonical_json(request))
        with self._failures(subject):
            argv = commands.build_argv(self._root, file, roots / "changed")
            await self._build(argv, package_set.substitutes, on_line)
            path = await asyncio.to_thread(os.readlink, roots / "changed")
            return path, await self._infos([path])

    async def closure(self, packages: Sequence[Package]) -> Closure | None:
        """The closure of these packages; None where the store lacks a part of it."""
        outputs = [path for package in packages for _, path in package.outputs]
        with suppress(ProcessFailed, BuildFailed):
            return Closure(tuple(packages), await self._infos(outputs))
        return None

    def hold(self) -> AbstractAsyncContextManager[StoreHold]:
        """What holds store paths until the context ends. Raises `ProcessFailed` on entry."""
        return hold(self._runner)

    def has_all(self, paths: Sequence[str]) -> bool:
        """Whether all of these store paths are on the disk. Blocking, and a hint alone: they need not be valid."""
        return all(os.path.lexists(self.prefix + path) for path in paths)

    async def to_fetch(self, package_set: PackageSet, packages: Sequence[Package]) -> int:
        """How many bytes, unpacked, Nix would fetch for the packages' closure; 0 where the binary caches do not say."""
        lines: list[str] = []
        with suppress(ProcessFailed):  # `realise` meets the same error, and reports it better
            await self._runner.run(
                commands.plan_argv(packages),
                _QUERY_SECONDS,
                substitutes=package_set.substitutes,
                on_line=lines.append,
                secrets=True,
            )
        return read_plan(lines)

    async def _infos(self, paths: Sequence[str]) -> tuple[PathInfo, ...]:
        return read_path_info(await self._runner.run(commands.path_info_argv(paths), _QUERY_SECONDS))

    async def _build(
        self,
        argv: tuple[str, ...],
        substitutes: bool = True,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        secrets: bool = False,
    ) -> bytes:
        """Run Nix for as long as a build may take; the options are those of `NixRunner.run`."""
        return await self._runner.run(
            argv,
            self._runner.limits.build_seconds,
            substitutes=substitutes,
            on_line=on_line,
            environment=environment,
            secrets=secrets,
        )

    @contextmanager
    def _failures(self, subject: str) -> Iterator[None]:
        """A failure of Nix becomes an error that says what could not be built, and why."""
        try:
            yield
        except ProcessFailed as error:
            raise not_built(subject, error, self._runner.limits.build_seconds) from error


def _fetches(error: Exception) -> int:
    return _FETCHES if isinstance(error, ProcessFailed) and lacks_a_path(error) else 1
