"""Child processes of the tests: programs found, run to their end, or kept running for as long as a test needs them.

Every server gets a free port of the loopback interface and is ended by its process id.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL = 0.05  # seconds between two looks whether a server answers
_TERM_GRACE = 20.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended and all that it wrote."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """What a person at the terminal saw."""
        return self.stdout + self.stderr


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: its process id, and the file that takes its output."""

    pid: int
    log: Path

    def log_text(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace")


def search_path() -> str:
    """Where programs are looked for: beside this Python, then on PATH, then where Debian keeps those of root."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])


def program(*names: str) -> str:
    """The absolute path of the first of these programs that is there.

    Raises `AssertionError`: a test that needs a program fails without it, it is never left out.
    """
    for name in names:
        if found := shutil.which(name, path=search_path()):
            return found
    raise AssertionError(f"{' or '.join(names)} is not installed; tests/run installs all that the tests need")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def write(file: Path, text: str) -> Path:
    """The file, written, in a folder that is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    deadline: float = 120.0,
) -> Outcome:
    """The outcome of a program, whatever its exit status. `env` replaces the environment; `deadline` in seconds.

    Raises `AssertionError` if it does not end in time.
    """
    child = await asyncio.create_subprocess_exec(
        program(argv[0]),
        *argv[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(deadline):
            stdout, stderr = await child.communicate()
    except TimeoutError:
        raise AssertionError(f"{' '.join(argv)} did not end within {deadline} s") from None
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    assert child.returncode is not None
    return Outcome(child.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def succeed(argv: Sequence[str], *, deadline: float = 120.0) -> str:
    """What the program wrote on standard output. Raises `AssertionError`, with all its output, if it fails."""
    outcome = await run(argv, deadline=deadline)
    assert outcome.returncode == 0, f"{' '.join(argv)} ended with {outcome.returncode}:\n{outcome.output}"
    return outcome.stdout


@contextlib.asynccontextmanager
async def serving(
    argv: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], Awaitable[bool]],
    env: Mapping[str, str] | None = None,
    patience: float = 60.0,
) -> AsyncIterator[Running]:
    """A server that runs within the `async with` block, entered once `ready` says so.

    Raises `AssertionError`, with the end of its log, if it ends before, or is not ready after `patience` seconds.
    """
    await asyncio.to_thread(log.parent.mkdir, parents=True, exist_ok=True)
    with await asyncio.to_thread(log.open, "ab") as output:
        child = await asyncio.create_subprocess_exec(
            program(argv[0]),
            *argv[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    running = Running(child.pid, log)
    try:
        await _until_ready(child, running, ready, patience, argv[0])
        yield running
    finally:
        await _end(child)


async def _until_ready(
    child: asyncio.subprocess.Process,
    running: Running,
    ready: Callable[[], Awaitable[bool]],
    patience: float,
    name: str,
) -> None:
    try:
        async with asyncio.timeout(patience):
            while not await ready():
                assert child.returncode is None, f"{name} ended with {child.returncode}"
                await asyncio.sleep(_POLL)
    except (TimeoutError, AssertionError) as error:
        why = str(error) or f"{name} was not ready after {patience} s"
        tail = (await asyncio.to_thread(running.log_text))[-4000:]
        raise AssertionError(f"{why}; the end of its log:\n{tail}") from None


async def _end(child: asyncio.subprocess.Process) -> None:
    """Ask it to stop; after a grace kill it, and what is left of its process group with it."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(_TERM_GRACE):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
