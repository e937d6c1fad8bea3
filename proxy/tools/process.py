"""Run a child process to its end: the only place where one is started, drained and killed.

Both pipes are read at once, whatever their size, so that a talkative builder cannot block (a peer hangs on 343 KB
of log). The child leads its own process group, and the whole group is killed at the deadline or when the caller
is cancelled. When we ourselves are killed the kernel ends it, where util-linux's `setpriv` can arrange that: a build that
nobody waits for would keep its locks from the next one. No word of Nix or of registries here.

To start one takes until the child has got a processor, tens of milliseconds on a busy host, for which asyncio would stop
the event loop. So a thread starts them, always the same one, which never ends: the end of the thread that started a
child is what the kernel takes for the end of its parent.

The children stand behind us for a processor: who asks for what is there already should not wait for who has something made.
They inherit the niceness of that thread. Where the kernel shares out processors by session first (autogroup, see sched(7)) a
process's own niceness counts in its session alone, so each child's session gets the same. It is the Nix that we start: builders
with sessions of their own, or those of a daemon, are not reached by the second.
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

_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 14
_TERM_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_SETPRIV = shutil.which("setpriv")
_ENDS_WITH_US = (_SETPRIV, "--pdeathsig", "TERM", "--") if _SETPRIV else ()
_NOT_STARTED = (126, 127)  # what setpriv ends with when it cannot start the program
_NICE = 10  # more than ours; of 0 and 10 the one gets nine times as much of a processor as the other
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
) -> bytes:
    """What the program wrote on standard output (bytes, at most `stdout_limit`).

    `env` replaces the environment; `deadline` is in seconds; `on_line` gets each line of standard error as it
    comes; the last `tail` of them are kept for the error.

    Raises `ProcessFailed`.
    """
    program = argv[0]
    lines: deque[str] = deque(maxlen=tail)

    def keep(line: str) -> None:
        lines.append(line)
        if on_line is not None:
            on_line(line)

    starting = asyncio.ensure_future(_start((*_ENDS_WITH_US, *argv), env, cwd))
    try:
        child = await asyncio.shield(starting)
    except OSError as error:
        raise ProcessFailed(program, None, (str(error),)) from error
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            late = await starting
            await _kill_group(late)
            late.close()
        raise

    try:
        async with asyncio.timeout(deadline):
            output, _ = await asyncio.gather(
                _read_all(child.stdout, stdout_limit), read_lines(child.stderr, keep)
            )
            returncode = await child.wait()
    except TimeoutError as error:
        await _kill_group(child)
        raise ProcessFailed(program, child.returncode or -1, lines, timed_out=True) from error
    except BaseException:
        await _kill_group(child)
        raise
    finally:
        child.close()
    if output is None:
        raise ProcessFailed(program, returncode, (*lines, f"more than {stdout_limit} bytes of output"))
    if _SETPRIV and returncode in _NOT_STARTED and lines and lines[-1].startswith("setpriv: "):
        raise ProcessFailed(program, None, lines)
    if returncode != 0:
        raise ProcessFailed(program, returncode, lines)
    return output


class _Child:
    """A child that was started: its pipes to read from, and its end to wait for."""

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        """The pipes have to be connected yet."""
        self.pid = started.pid
        self.stdout, self.stderr = asyncio.StreamReader(), asyncio.StreamReader()
        self._started = started
        self._ended = asyncio.ensure_future(_end(started))
        self._transports: list[asyncio.ReadTransport] = []

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: None while it runs."""
        return self._started.returncode

    async def connect(self) -> None:
        """Begin to read both pipes."""
        loop = asyncio.get_running_loop()
        for pipe, reader in ((self._started.stdout, self.stdout), (self._started.stderr, self.stderr)):
            transport, _ = await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, reader), pipe)
            self._transports.append(transport)

    async def wait(self) -> int:
        """What it ended with."""
        return await asyncio.shield(self._ended)

    def close(self) -> None:
        """Close the pipes, which what the child left behind may hold open."""
        for transport in self._transports:
            transport.close()


async def _start(argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None) -> _Child:
    """Raises `OSError`."""

    def start() -> subprocess.Popen[bytes]:
        started = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        # Not every kernel has that; and one that is not root may say so ten times a second.
        with contextlib.suppress(OSError):
            Path(f"/proc/{started.pid}/autogroup").write_text(str(_NICE), encoding="ascii")
        return started

    child = _Child(await asyncio.get_running_loop().run_in_executor(_STARTER, start))
    await child.connect()
    return child


async def _end(started: subprocess.Popen[bytes]) -> int:
    """What the child ends with, once it does."""
    try:
        descriptor = os.pidfd_open(started.pid)
    except OSError:  # an old kernel
        return await asyncio.to_thread(started.wait)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return started.wait()


async def _read_all(pipe: asyncio.StreamReader, limit: int) -> bytes | None:
    """Everything, or None when it was more than `limit` (the rest is read and dropped)."""
    kept: list[bytes] = []
    size = 0
    while chunk := await pipe.read(_CHUNK):
        size += len(chunk)
        if size <= limit:
            kept.append(chunk)
    return b"".join(kept) if size <= limit else None


async def read_lines(pipe: asyncio.StreamReader, keep: Callable[[str], None]) -> None:
    """Hand over each line without its end; one that grows past 16 KiB is handed over in pieces."""
    rest = b""
    while chunk := await pipe.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            keep(line.decode(errors="replace").rstrip("\r"))
        if len(rest) > _LONGEST_LINE:
            keep(rest.decode(errors="replace"))
            rest = b""
    if rest:
        keep(rest.decode(errors="replace"))


async def _kill_group(child: _Child) -> None:
    """End the child and all that it started; returns once the child is gone."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(child.wait()), _TERM_GRACE)
            if sign is signal.SIGTERM:  # grandchildren may have ignored it
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            return
