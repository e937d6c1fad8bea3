"""Run Nix: one command line in, what Nix prints out; or one of our expressions on a request about a package set.

The environment of Nix, its limits, and the errors that every run can end with are here. `commands` has the command lines.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.core.errors import NixUnavailable, ProcessFailed
from proxy.core.events import NixRan, Sink
from proxy.core.model import PackageSet, Policy
from proxy.nix import commands
from proxy.nix.commands import NO_CACHES, Caches, configuration
from proxy.nix.output import lost_a_derivation, met_another_nix, trouble_of_host
from proxy.tools import process
from proxy.tools.retry import retry

# Bytes that one evaluation may print: its result, and warnings, traces and its error.
_MOST_OUTPUT = 32 << 20
_MOST_LOG = 16 << 20
# Nix gives up where another one makes the same new store, and older Nix where it meets the first or the last moment of a garbage
# collection.
_TRIES = 6
_PAUSE = 0.1  # seconds before the second try


@dataclass(frozen=True, slots=True)
class Limits:
    """What Nix may use; 0 means no limit, except for `evaluations`.

    `evaluation_seconds` and `build_seconds` are deadlines of one run. `evaluation_bytes` bounds the address space of one
    evaluation, `log_bytes` the log of one builder. `evaluations` may run at once: 0 means one for each processor.
    """

    evaluation_seconds: float
    build_seconds: float
    evaluation_bytes: int = 0
    evaluations: int = 0
    log_bytes: int = 0


class NixRunner:
    """Runs Nix on one store."""

    def __init__(
        self,
        limits: Limits,
        *,
        store: str = "",
        caches: Caches = NO_CACHES,
        sink: Sink = lambda _: None,
    ) -> None:
        """`store` is the folder that holds a store (`nix/store` in it); empty means the store of the system.

        `sink` gets a `NixRan` for each run.
        """
        self.limits = limits
        self.store = store
        self._caches = caches
        self._sink = sink
        self._configured: frozenset[str] | None = None

    async def run(
        self,
        argv: tuple[str, ...],
        deadline: float,
        *,
        substitutes: bool = True,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        secrets: bool = False,
        most_output: int = 256 << 20,
        most_log: int = 0,
    ) -> bytes:
        """What the program writes on standard output; `on_line` gets each line of standard error.

        `environment`: further variables of its environment, which no other user of the host can read. `secrets`: it starts no
        builder, so it gets what may be secret in ours, such as credentials of a binary cache.
        `deadline` is in seconds. Without `substitutes` only the operator's own binary caches are used. Nix is killed if it
        writes more bytes than `most_output`, or than `most_log` on standard error (0: no limit).
        Raises `ProcessFailed`; `NixUnavailable` where Nix does not start; `StoreFull`.
        """
        variables = await self._variables(substitutes, secrets=secrets) | dict(environment or {})
        started = time.perf_counter()
        try:
            return await retry(
                lambda: process.run(
                    argv,
                    env=variables,
                    deadline=deadline,
                    on_line=on_line,
                    stdout_limit=most_output,
                    stderr_limit=most_log,
                ),
                _tries,
                _PAUSE,
            )
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
            self._sink(NixRan(commands.kind_of_run(argv), time.perf_counter() - started))

    @asynccontextmanager
    async def conversation(self, argv: tuple[str, ...]) -> AsyncIterator[process.Child]:
        """A Nix that reads questions until the context ends. What it says of errors is lost. Raises `ProcessFailed`."""
        child = await process.start(argv, await self._variables(False), reads=True)
        errors = asyncio.create_task(process.read_lines(child.stderr, lambda _: None))
        try:
            yield child
        finally:
            errors.cancel()
            await process.kill_group(child)
            child.close()

    async def _variables(self, substitutes: bool, *, secrets: bool = False) -> dict[str, str]:
        """The environment of a run."""
        if self._configured is None:
            self._configured = await asyncio.to_thread(configuration.names, os.environ)
        return commands.child_environment(
            os.environ,
            store=self.store,
            substitutes=substitutes,
            log_bytes=self.limits.log_bytes,
            caches=self._caches,
            secrets=secrets,
            parallel="max-jobs" not in self._configured,
        )


class Expressions:
    """The expressions of the folder `nix/`, for one system."""

    def __init__(self, runner: NixRunner, folder: Path, *, system: str, policy: Policy) -> None:
        self.system = system
        self._runner = runner
        self._folder = folder
        self._policy = policy
        self._slots = asyncio.Semaphore(runner.limits.evaluations or os.cpu_count() or 1)

    async def evaluate(
        self,
        entry: str,
        package_set: PackageSet,
        request: Mapping[str, Any],
        readable: Sequence[str] = (),
    ) -> bytes:
        """What one of our expressions prints for a request. Raises `ProcessFailed`."""
        argv = commands.evaluate_argv(
            self._folder / entry,
            request,
            tuple(dict.fromkeys((*readable_paths(package_set), *readable))),
            may_build=package_set.import_from_derivation,
            memory=self._runner.limits.evaluation_bytes,
        )
        async with self._slots:
            deadline = self.deadline(package_set)
            return await retry(
                lambda: self._runner.run(
                    argv,
                    deadline,
                    substitutes=package_set.substitutes,
                    most_output=_MOST_OUTPUT,
                    most_log=0 if package_set.import_from_derivation else _MOST_LOG,
                ),
                _tries_of_evaluation,
                _PAUSE,
            )

    def deadline(self, package_set: PackageSet) -> float:
        """In seconds: an evaluation that may build gets as long as a build."""
        limits = self._runner.limits
        return limits.build_seconds if package_set.import_from_derivation else limits.evaluation_seconds

    def question(self, package_set: PackageSet, system: str = "") -> dict[str, object]:
        """The part of a request that names the set, the system and the policy."""
        policy = self._policy
        return {
            "expression": package_set.expression,
            "arguments": dict(package_set.arguments),
            "system": system or self.system,
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


def readable_paths(package_set: PackageSet) -> tuple[str, ...]:
    """The absolute paths that an evaluation of this set may read."""
    paths = (package_set.expression, *package_set.arguments.values())
    return tuple(path for path in paths if path.startswith("/"))


def _tries(error: Exception) -> int:
    return _TRIES if isinstance(error, ProcessFailed) and met_another_nix(error) else 1


def _tries_of_evaluation(error: Exception) -> int:
    """An evaluation writes the derivations that it needs, so another one has those that a garbage collection took."""
    return _TRIES if isinstance(error, ProcessFailed) and lost_a_derivation(error) else 1
