"""Run a child process to its end: the only place where one is started, drained and killed.

Both pipes are read at once, whatever their size, so that a talkative builder cannot block (a peer hangs on 343 KB
of log). The child leads its own process group, and the whole group is killed at the deadline or when the caller
is cancelled. When we ourselves are killed the kernel ends it, where util-linux's `setpriv` can arrange that: a build that
nobody waits for would keep its locks from the next one. No word of Nix or of registries here.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from proxy.errors import ProcessFailed

_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 14
_TERM_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_SETPRIV = shutil.which("setpriv")
_ENDS_WITH_US = (_SETPRIV, "--pdeathsig", "TERM", "--") if _SETPRIV else ()
_NOT_STARTED = (126, 127)  # what setpriv ends with when it cannot start the program


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

    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *_ENDS_WITH_US,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    )
    try:
        child = await asyncio.shield(starting)
    except OSError as error:
        raise ProcessFailed(program, None, (str(error),)) from error
    except (
        asyncio.CancelledError
    ):  # asyncio would end the child alone, and wait for what it has started by then
        with contextlib.suppress(OSError):
            await _kill_group(await starting)
        raise

    assert child.stdout is not None  # noqa: S101 - both pipes were asked for above
    assert child.stderr is not None  # noqa: S101
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
    if output is None:
        raise ProcessFailed(program, returncode, (*lines, f"more than {stdout_limit} bytes of output"))
    if _SETPRIV and returncode in _NOT_STARTED and lines and lines[-1].startswith("setpriv: "):
        raise ProcessFailed(program, None, lines)
    if returncode != 0:
        raise ProcessFailed(program, returncode, lines)
    return output


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


async def _kill_group(child: asyncio.subprocess.Process) -> None:
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
