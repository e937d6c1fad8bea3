"""Run Nix: one command line in, what Nix prints out.

The environment of Nix, its limits, and the errors that every run can end with are here. `commands` has the command lines.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.core.errors import NixUnavailable, ProcessFailed
from proxy.core.events import NixRan, Sink
from proxy.nix import commands
from proxy.nix.commands import NO_CACHES, Caches
from proxy.nix.output import trouble_of_host
from proxy.tools import process


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

    async def run(
        self,
        argv: tuple[str, ...],
        deadline: float,
        *,
        substitutes: bool = True,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> bytes:
        """What the program writes on standard output; `on_line` gets each line of standard error.

        `environment`: further variables of its environment, which no other user of the host can read.
        `deadline` is in seconds. Without `substitutes` only the operator's own binary caches are used.
        Raises `ProcessFailed`; `NixUnavailable` where Nix does not start; `StoreFull`.
        """
        variables = commands.child_environment(
            os.environ,
            store=self.store,
            substitutes=substitutes,
            log_bytes=self.limits.log_bytes,
            caches=self._caches,
        ) | dict(environment or {})
        started = time.perf_counter()
        try:
            return await process.run(argv, env=variables, deadline=deadline, on_line=on_line)
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
