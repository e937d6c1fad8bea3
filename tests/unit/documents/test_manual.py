"""The manual page is the one of this command line, and the wheel installs it."""

import configparser
import subprocess
from pathlib import Path

import pytest

from proxy import cli
from tests.support import manual
from tests.support.needed import needs

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "config/nixfront.1"


def test_the_page_is_of_this_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert PAGE.read_text() == manual.page(), "python -m tests.support.manual >config/nixfront.1"


def test_the_page_is_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    assert PAGE.read_text() == manual.page()


def test_the_wheel_installs_it() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    assert setup["options.data_files"]["share/man/man1"] == "config/nixfront.1"


@needs("man")
def test_man_has_nothing_to_say_about_it() -> None:
    ended = subprocess.run(
        ["man", "--warnings", "--local-file", str(PAGE)],
        env={"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stderr == ""
    for command in cli.COMMANDS:
        assert f"   {command.name}\n" in ended.stdout
