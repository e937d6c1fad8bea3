"""Child processes: real ones, short-lived, that say too much, take too long, or leave others behind."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from proxy.core.errors import ProcessFailed
from proxy.tools import process

DEADLINE = 120.0
SHORT = (1.0, 5.0, 25.0)  # deadlines: the first is enough to start a shell, unless the machine is busy
TALKATIVE = 400_000
AUTOGROUP = Path("/proc/self/autogroup")


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def gone(pid: int) -> bool:
    for _ in range(2000):
        if not alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def pid_in(file: Path) -> int:
    for _ in range(3000):
        if text := _text(file):
            return int(text)
        await asyncio.sleep(0.01)
    raise AssertionError(f"nothing was written into {file}")


async def out_of_time(script: str, file: Path) -> ProcessFailed:
    """The error of a script that does not end, and that has written into this file by its deadline."""
    for deadline in SHORT:
        with pytest.raises(ProcessFailed, match="ran out of time") as caught:
            await process.run(("sh", "-c", script, "sh", str(file)), deadline=deadline)
        if _text(file):
            return caught.value
    raise AssertionError(f"nothing was written into {file}")


async def test_standard_output_is_the_result_and_lines_of_standard_error_come_one_by_one() -> None:
    lines: list[str] = []

    output = await process.run(
        ("sh", "-c", "echo out; echo one >&2; echo two >&2; printf three >&2"),
        deadline=DEADLINE,
        on_line=lines.append,
    )

    assert output == b"out\n"
    assert lines == ["one", "two", "three"]


async def test_much_on_both_pipes_at_once_does_not_block() -> None:
    lines: list[str] = []
    code = (
        "import sys, threading\n"
        f"def write(stream): stream.writelines(['x' * 99 + chr(10)] * {TALKATIVE // 100})\n"
        "threads = [threading.Thread(target=write, args=(s,)) for s in (sys.stdout, sys.stderr)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )

    output = await process.run(python(code), deadline=DEADLINE, on_line=lines.append)

    assert len(output) == TALKATIVE
    assert lines == ["x" * 99] * (TALKATIVE // 100)


@pytest.mark.parametrize("first", ["stdout", "stderr"])
async def test_much_on_one_pipe_before_the_other_does_not_block(first: str) -> None:
    second = {"stdout": "stderr", "stderr": "stdout"}[first]
    code = "; ".join(
        [
            "import sys",
            *(f"sys.{name}.write('x' * {TALKATIVE}); sys.{name}.flush()" for name in (first, second)),
        ]
    )

    output = await process.run(python(code), deadline=DEADLINE)

    assert len(output) == TALKATIVE


async def test_a_failure_keeps_the_last_lines() -> None:
    script = "for i in 1 2 3 4 5; do echo line $i >&2; done; exit 3"

    with pytest.raises(ProcessFailed) as caught:
        await process.run(("sh", "-c", script), deadline=DEADLINE, tail=2)

    error = caught.value
    assert (error.program, error.returncode, error.timed_out) == ("sh", 3, False)
    assert error.tail == ("line 4", "line 5")


async def test_a_signal_is_a_failure_with_a_negative_code() -> None:
    with pytest.raises(ProcessFailed) as caught:
        await process.run(("sh", "-c", "kill -KILL $$"), deadline=DEADLINE)

    assert caught.value.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["no-such-program-here", "/no/such/program"])
async def test_a_missing_program_was_never_started(name: str) -> None:
    with pytest.raises(ProcessFailed, match="could not be started") as caught:
        await process.run((name,), deadline=DEADLINE)

    assert caught.value.returncode is None
    assert "No such file" in caught.value.tail[0]


async def test_a_missing_folder_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed) as caught:
        await process.run(("true",), cwd=str(tmp_path / "none"), deadline=DEADLINE)

    assert caught.value.returncode is None


async def test_the_environment_and_the_folder_are_those_given() -> None:
    environment = {"PATH": os.environ["PATH"], "GREETING": "hello"}

    output = await process.run(
        ("sh", "-c", 'pwd; echo "$GREETING,$HOME"'), env=environment, cwd="/", deadline=DEADLINE
    )

    assert output.decode().splitlines() == ["/", "hello,"]


async def test_a_child_stands_behind_us_for_a_processor() -> None:
    ours = os.nice(0)

    niceness = await process.run(python("import os; print(os.nice(0))"), deadline=DEADLINE)

    assert int(niceness) == min(ours + 10, 19)
    assert os.nice(0) == ours


@pytest.mark.skipif(
    not AUTOGROUP.exists(), reason="this kernel shares out processors without regard to sessions"
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may always say what a session's share is")
async def test_so_does_its_session() -> None:
    code = f"""
import time
while (group := open({str(AUTOGROUP)!r}).read().split())[-1] == "0": time.sleep(0.01)
print(group[-1])
"""

    assert await process.run(python(code), deadline=DEADLINE) == b"10\n"


async def test_standard_input_is_empty() -> None:
    assert await process.run(("cat",), deadline=DEADLINE) == b""


async def test_what_is_no_utf_8_is_shown_somehow_and_carriage_returns_are_dropped() -> None:
    lines: list[str] = []

    await process.run(("sh", "-c", r"printf 'a\377b\r\n\n' >&2"), deadline=DEADLINE, on_line=lines.append)

    assert lines == ["a\N{REPLACEMENT CHARACTER}b", ""]


async def test_a_line_without_end_comes_in_pieces_that_lose_nothing() -> None:
    lines: list[str] = []

    await process.run(
        python(f"import sys; sys.stderr.write('y' * {TALKATIVE})"), deadline=DEADLINE, on_line=lines.append
    )

    assert "".join(lines) == "y" * TALKATIVE
    assert max(map(len, lines)) <= (1 << 16) + (1 << 14)


async def test_more_output_than_allowed_is_a_failure_and_not_kept() -> None:
    with pytest.raises(ProcessFailed) as caught:
        await process.run(python("print('x' * 2000)"), deadline=DEADLINE, stdout_limit=2000)

    assert caught.value.tail[-1] == "more than 2000 bytes of output"


async def test_as_much_output_as_allowed_is_kept() -> None:
    output = await process.run(("printf", "%2000d", "1"), deadline=DEADLINE, stdout_limit=2000)

    assert len(output) == 2000


FAMILY = 'sleep 600 & echo $! > "$1.tmp"; mv "$1.tmp" "$1"; echo started >&2; wait'
STUBBORN = """trap '' TERM; echo $$ > "$1.tmp"; mv "$1.tmp" "$1"; while :; do sleep 1; done >/dev/null 2>&1"""


async def test_the_deadline_kills_the_child_and_all_that_it_started(tmp_path: Path) -> None:
    error = await out_of_time(f"echo before >&2; {FAMILY}", tmp_path / "pid")

    assert error.timed_out
    assert error.tail[0] == "before"
    assert error.returncode is not None
    assert await gone(await pid_in(tmp_path / "pid"))


async def test_the_deadline_kills_what_an_ended_child_left_behind(tmp_path: Path) -> None:
    script = 'sleep 600 & echo $! > "$1.tmp"; mv "$1.tmp" "$1"'  # the grandchild keeps both pipes open

    error = await out_of_time(script, tmp_path / "pid")

    assert error.timed_out
    assert await gone(await pid_in(tmp_path / "pid"))


async def test_cancelling_the_caller_kills_the_child_and_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    caller = asyncio.create_task(process.run(("sh", "-c", FAMILY, "sh", str(file)), deadline=DEADLINE))
    grandchild = await pid_in(file)

    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller

    assert caller.cancelled()
    assert await gone(grandchild)


async def test_a_grandchild_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    file, script = tmp_path / "pid", tmp_path / "stubborn"
    script.write_text(STUBBORN)
    started = f"sh {script} {file} >/dev/null 2>&1 & wait"
    caller = asyncio.create_task(process.run(("sh", "-c", started), deadline=DEADLINE))
    grandchild = await pid_in(file)

    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller

    assert await gone(grandchild)


async def test_a_child_that_ignores_the_polite_signal_is_killed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_TERM_GRACE", 0.05)
    file, script = tmp_path / "pid", tmp_path / "stubborn"
    script.write_text(STUBBORN)
    caller = asyncio.create_task(process.run(("sh", str(script), str(file)), deadline=DEADLINE))
    child = await pid_in(file)

    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller

    assert caller.cancelled()
    assert await gone(child)


async def test_an_error_of_the_listener_ends_the_child(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="started"):
        await process.run(("sh", "-c", FAMILY, "sh", str(file)), deadline=DEADLINE, on_line=refuse)

    assert await gone(await pid_in(file))


async def test_a_child_ends_when_we_are_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio\n"
        "from proxy.tools import process\n"
        f"argv = ('sh', '-c', 'echo $$ > {tmp_path}/pid; exec sleep 600')\n"
        "asyncio.run(process.run(argv, deadline=600))\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": "."}
    )
    child = await pid_in(tmp_path / "pid")
    assert alive(child)

    parent.kill()
    await parent.wait()

    assert await gone(child)


async def test_cancelling_at_the_very_start_kills_all_of_it_too(tmp_path: Path) -> None:
    for turn in range(20):
        file = tmp_path / str(turn)
        caller = asyncio.create_task(process.run(("sh", "-c", FAMILY, "sh", str(file)), deadline=DEADLINE))
        await asyncio.sleep(turn / 4000)
        caller.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await caller

        grandchild = _text(file)
        assert not grandchild or await gone(int(grandchild))
