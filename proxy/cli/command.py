"""The record of a subcommand, and the console that it prints on.

Every subcommand takes `--config FILE` and `--json`; those with `demo` take `--demo`. `run` returns the exit code or
raises: `SettingsInvalid` becomes 2, any other `NixfrontError` and `OSError` 1.

Results go to standard output, everything else to standard error. For people they are plain lines, with colours and
moving bars on a terminal only (and never with NO_COLOR). With `--json` standard output is one document.

`nixfront --help` has to be quick, so this module and the list of subcommands load little. A subcommand imports what it
runs when it runs.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from proxy.core import names, platforms, typed
from proxy.core.errors import ArgumentsInvalid
from proxy.core.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from proxy.settings import Settings

EXIT_CODES = """exit codes:
  0  success
  1  failed, or not found, or something is wrong
  2  wrong arguments or settings
  130  interrupted by Ctrl-C"""


INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it

#: What a command cannot see where the registry has no catalog.
NO_CATALOG = (
    "this registry lists its repositories to nobody (it has no catalog): these are the ones in nixfront's records, and "
    "nixfront cannot see others"
)

# JSON leaves these as they are; a terminal does not.
_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


_STYLES = {"bold": "1", "green": "32", "yellow": "33", "bold red": "1;31"}


class Console:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        """`as_json`: print for a program, not for people."""
        self.as_json = as_json

    def line(self, text: str, style: str = "") -> None:
        """A line of the result, for people. `style`: empty, `bold`, `green`, `yellow` or `bold red`."""
        if not self.as_json:
            sys.stdout.write(_painted(printable(text), style, sys.stdout) + "\n")

    def document(self, value: object) -> None:
        """The result, for programs."""
        if self.as_json:
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
            sys.stdout.write(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under headings, for people."""
        if self.as_json:
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        # A narrow terminal wraps the lines: a reader can neither copy nor grep text that was cut.
        for number, row in enumerate((columns, *rows)):
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self.line(text, "bold" if number == 0 else "")

    def complain(self, text: str) -> None:
        """Say what went wrong, on standard error."""
        sys.stderr.write(f"{_painted('nixfront:', 'bold red', sys.stderr)} {printable(text)}\n")

    @property
    def can_ask(self) -> bool:
        """Whether a person at a terminal is there to answer a question."""
        return not self.as_json and has_person()

    def agrees(self, question: str) -> bool:
        """Whether the person at the terminal says yes. False without a terminal: nobody is there to say it."""
        if not self.can_ask:
            return False
        sys.stderr.write(f"{printable(question)} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def note(self, text: str) -> None:
        """Say what helps a person, on standard error."""
        if not self.as_json:
            sys.stderr.write(f"{printable(text)}\n")

    def note_on_terminal(self, text: str) -> None:
        """Write a line for the person who waits at a terminal; none where there is no terminal."""
        if sys.stderr.isatty():
            self.note(text)

    @contextmanager
    def progress(self, text: str) -> Iterator["Bar"]:
        """A moving bar on standard error during the context, where that is a terminal."""
        if self.as_json or not _has_colours(sys.stderr):
            yield Bar()
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Rich(file=sys.stderr), transient=True) as progress:
            yield Bar(progress, progress.add_task(text, total=None, count=""))


class Bar:
    """A moving bar with a text; without a terminal it does nothing."""

    def __init__(self, progress: "Progress | None" = None, task: "TaskID | None" = None) -> None:
        """Use `Console.progress`."""
        self._progress = progress
        self._task = task

    def show(self, text: str, done: int = 0, total: int = 0) -> None:
        """Show another text, and a count where there is a `total`."""
        if self._progress is not None and self._task is not None:
            count = f"{done} of {total}" if total else ""
            self._progress.update(
                self._task,
                description=printable(text),
                completed=done,
                total=total or None,
                count=count,
            )


def has_person() -> bool:
    """Whether questions and answers go through a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _has_colours(stream: TextIO) -> bool:
    return (
        stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") not in ("dumb", "unknown")
    )


def _painted(text: str, style: str, stream: TextIO) -> str:
    """The text in this style, where it goes to a terminal. (rich takes longer to load than a quick command to run.)"""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and _has_colours(stream) else text


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand. `help` is its line in the list of all; `description` and `example` are on its own help page.

    `at_once` runs it without the settings and returns the exit code, or None where it cannot.
    """

    name: str
    help: str
    description: str
    run: Callable[["Settings", argparse.Namespace, Console], int]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    example: str = ""
    demo: bool = False
    at_once: Callable[[argparse.Namespace, Console], int | None] = lambda _arguments, _console: None


def check_set(settings: "Settings", name: str) -> None:
    """Raise `ArgumentsInvalid` where `--set NAME` names no package set of the settings."""
    if name and name not in settings.sets:
        there = f"sets names {', '.join(settings.sets)}" if settings.sets else "sets of the settings is empty"
        raise ArgumentsInvalid(f"there is no package set {name!r}: {there}")


def image_name(text: str, settings: "Settings") -> tuple[str, str]:
    """The repository and the tag or digest of an image as a person writes it. Raises `ArgumentsInvalid`."""
    repository, reference = typed.read(text, settings.own_hosts)
    if not names.is_repository(repository) or not (names.is_tag(reference) or ":" in reference):
        raise ArgumentsInvalid(
            f"{text!r} is no name of an image: it is in lowercase, as in shell/git or shell/git:latest"
        )
    return repository, reference


def positive(text: str) -> int:
    """The type of an argument that counts something: 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def add_platform(parser: argparse.ArgumentParser, text: str) -> None:
    """The option `--platform`; `text` is its help."""
    parser.add_argument("--platform", type=_platform, metavar="OS/ARCH", help=text)


def _platform(text: str) -> str:
    try:
        return platforms.name_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
