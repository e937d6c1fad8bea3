"""Run a child process to its end, or talk with one: start it, read its output, kill it in time.

`run` reads both pipes at once, so a child that writes much to one of them cannot block. `start` and `kill_group` are for
who talks with a child. The child leads its own process group. `run` kills the whole group at the deadline, or when its caller
is cancelled. If nixfront itself is killed, the kernel ends the child, where util-linux's `setpriv` is installed: a build without a parent would keep Nix's locks from the next one.

A start takes until the child gets a processor: tens of milliseconds on a busy host, during which asyncio would stop the
event loop. So one thread starts all children. That thread never ends, because the kernel takes the end of the
thread that started a child for the end of its parent.

Children get less of a processor than nixfront, so that builds do not slow down pulls of images that exist. They inherit the
niceness of the thread. With autogroup (see sched(7)) the kernel divides processors among sessions first, and a process's
niceness counts only inside its session; so each child's session gets the same niceness. That does not reach builders with
sessions of their own, or those of the Nix daemon.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from proxy.core.errors import ProcessFailed
from proxy.core.text import printable

_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 14
_TERM_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_SETPRIV = shutil.which("setpriv")
_ENDS_WITH_US = (_SETPRIV, "--pdeathsig", "TERM", "--") if _SETPRIV else ()
_NOT_STARTED = (126, 127)  # setpriv's exit statuses for a program that it cannot start
_NICE = 10  # more than ours; a process with niceness 0 gets nine times as much of a processor
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starting", initializer=os.nice, initargs=(_NICE,))


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    deadline: float,
    on_line: Callable[[str], None] | None = None,
    tail: int = 200,
    stdout_limit: int = 256 << 20,
    stderr_limit: int = 0,
) -> bytes:
    """The bytes that the program writes to standard output, at most `stdout_limit`.

    `env` replaces the environment. `deadline` is in seconds. `on_line` gets each line of standard error as it comes; a
    program that writes more than `stderr_limit` bytes there (0: no limit) is killed, as at the other limits.

    Raises `ProcessFailed`, which holds the last `tail` lines of standard error.
    """
    program = argv[0]
    lines: deque[str] = deque(maxlen=tail)

    def keep(line: str) -> None:
        lines.append(line)
        if on_line is not None:
            on_line(line)

    child = await start(argv, env, cwd)
    try:
        async with asyncio.timeout(deadline):
            output, _ = await asyncio.gather(
                _read_all(child.stdout, stdout_limit), read_lines(child.stderr, keep, stderr_limit)
            )
            returncode = await child.wait()
    except TimeoutError as error:
        await kill_group(child)
        raise ProcessFailed(program, child.returncode or -1, lines, timed_out=True) from error
    except _TooMuch as error:
        await kill_group(child)
        raise ProcessFailed(program, child.returncode or -1, (*lines, str(error))) from error
    except BaseException:
        await kill_group(child)
        raise
    finally:
        child.close()
    if _SETPRIV and returncode in _NOT_STARTED and lines and lines[-1].startswith("setpriv: "):
        raise ProcessFailed(program, None, lines)
    if returncode != 0:
        raise ProcessFailed(program, returncode, lines)
    return output


class _TooMuch(Exception):
    """The child writes more than it may."""


class Child:
    """A running child process. `connect` starts to read its pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.stdout, self.stderr = asyncio.StreamReader(), asyncio.StreamReader()
        self._process = process
        self._end = asyncio.ensure_future(_wait_for(process))
        self._transports: list[asyncio.ReadTransport] = []

    @property
    def returncode(self) -> int | None:
        """The exit status as `subprocess` reports it; None while the child runs."""
        return self._process.returncode

    async def connect(self) -> None:
        """Begin to read both pipes."""
        loop = asyncio.get_running_loop()
        for pipe, reader in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr)):
            transport, _ = await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, reader), pipe)
            self._transports.append(transport)

    async def wait(self) -> int:
        """The exit status, once the child ends."""
        return await asyncio.shield(self._end)

    async def write(self, data: bytes) -> None:
        """Let the child read this. Raises `OSError`, also if it reads nothing."""
        if self._process.stdin is None:
            raise BrokenPipeError("the child reads nothing")
        await asyncio.to_thread(self._process.stdin.write, data)

    def close(self) -> None:
        """Close the pipes; processes that the child left behind may hold them open."""
        for transport in self._transports:
            transport.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


async def start(
    argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None = None, *, reads: bool = False
) -> Child:
    """A child with both pipes connected, and a third one if it `reads`. Raises `ProcessFailed`."""
    starting = asyncio.ensure_future(_start(argv, env, cwd, reads))
    try:
        return await asyncio.shield(starting)
    except OSError as error:
        raise ProcessFailed(argv[0], None, (str(error),)) from error
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            late = await starting
            await kill_group(late)
            late.close()
        raise


async def _start(argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, reads: bool) -> Child:
    """As `start`. Raises `OSError`, and goes on if its caller is cancelled."""

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            (*_ENDS_WITH_US, *argv),
            stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        # Some kernels have no autogroup, and one lets a process that is not root write only ten times a second.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text(str(_NICE), encoding="ascii")
        return process

    child = Child(await asyncio.get_running_loop().run_in_executor(_STARTER, begin))
    await child.connect()
    return child


async def _wait_for(process: subprocess.Popen[bytes]) -> int:
    """The exit status of the process, once it ends."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # an old kernel
        return await asyncio.to_thread(process.wait)
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, end.set)
    try:
        await end.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


async def _read_all(pipe: asyncio.StreamReader, limit: int) -> bytes:
    """All bytes of the pipe. Raises `_TooMuch` if there are more than `limit`."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await pipe.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise _TooMuch(f"more than {limit} bytes of output")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_lines(pipe: asyncio.StreamReader, keep: Callable[[str], None], limit: int = 0) -> None:
    """Call `keep` with each line, without its line end and fit for a terminal. A line above 16 KiB comes in pieces.

    Raises `_TooMuch` if there are more than `limit` bytes (0: no limit).
    """
    rest, size = b"", 0
    while chunk := await pipe.read(_CHUNK):
        size += len(chunk)
        if limit and size > limit:
            raise _TooMuch(f"more than {limit} bytes on standard error")
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            keep(printable(line.decode(errors="replace").rstrip("\r")))
        if len(rest) > _LONGEST_LINE:
            keep(printable(rest.decode(errors="replace")))
            rest = b""
    if rest:
        keep(printable(rest.decode(errors="replace")))


async def kill_group(child: Child) -> None:
    """End the child and all that it started. Returns once the child is gone."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(child.wait()), _TERM_GRACE)
            if sign is signal.SIGTERM:  # grandchildren may ignore it
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            return
