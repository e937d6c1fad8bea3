"""`deploy/quickstart --remove` deletes images, so somebody has to say that it may."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "deploy/quickstart"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of quickstart with an image in it."""
    (tmp_path / "home/data").mkdir(parents=True)
    (tmp_path / "home/data/image").write_text("bytes")
    return tmp_path / "home"


def started(home: Path, *words: str, answer: str | None = None) -> tuple[int, str]:
    """The status and the output of the script; with an `answer` at a terminal, else without one."""
    line, environment = ["bash", str(SCRIPT), *words], {**os.environ, "NIXFRONT_DATA_DIR": str(home)}
    if answer is None:
        ended = subprocess.run(
            line, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return ended.returncode, ended.stdout + ended.stderr
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as person, os.fdopen(theirs, "r+b", buffering=0) as terminal:
        person.write(f"{answer}\n".encode())
        ended = subprocess.run(
            line,
            env=environment,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            check=False,
        )
        return ended.returncode, person.read(4096).decode() + ended.stdout


def test_without_a_terminal_nothing_goes_unasked(home: Path) -> None:
    status, output = started(home, "--remove")

    assert (status, (home / "data/image").exists()) == (1, True)
    assert "deploy/quickstart --remove --yes" in output

    status, output = started(home, "--remove", "--yes")

    assert (status, home.exists()) == (0, False), output


@pytest.mark.parametrize(("answer", "status", "stays"), [("", 1, True), ("n", 1, True), ("y", 0, False)])
def test_at_a_terminal_it_asks(home: Path, answer: str, status: int, stays: bool) -> None:
    ended, output = started(home, "--remove", answer=answer)

    assert "with all images in its registry? [y/N]" in output
    assert (ended, (home / "data/image").exists()) == (status, stays)


@pytest.mark.parametrize(
    "words", [("--remove", "--demo"), ("--check", "--remove", "--yes"), ("--yes",), ("--remov",)]
)
def test_options_that_do_not_go_together_do_nothing(home: Path, words: tuple[str, ...]) -> None:
    status, output = started(home, *words)

    assert (status, (home / "data/image").exists()) == (2, True)
    assert output.startswith("quickstart: ")
