"""The record of a subcommand, and the console that it prints on.

Every subcommand takes `--config FILE` and `--json`; those with `demo` take `--demo`. `run` returns the exit code or
raises: `SettingsInvalid` becomes 2, any other `NixfrontError` and `OSError` 1.

Results go to standard output, everything else to standard error. For people they are plain lines, with colours and
moving bars on a terminal only (and never with NO_COLOR). With `--json` standard output is one document.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console as Rich
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from proxy.core.errors import SettingsInvalid
from proxy.core.text import printable
from proxy.settings import Settings

EXIT_CODES = """exit codes:
  0  success
  1  failed, or not found, or something is wrong
  2  wrong arguments or settings
  130  interrupted by Ctrl-C"""


#: What a command cannot see where the registry has no catalog.
NO_CATALOG = (
    "this registry lists its repositories to nobody (it has no catalog): these are the ones in nixfront's records, and "
    "nixfront cannot see others"
)

# JSON leaves these as they are; a terminal does not.
_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Console:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        """`as_json`: print for a program, not for people."""
        self.as_json = as_json
        self._out = Rich(file=sys.stdout, highlight=False, soft_wrap=True)
        self._error = Rich(file=sys.stderr, highlight=False, soft_wrap=True)

    def line(self, text: str, style: str = "") -> None:
        """A line of the result, for people."""
        if not self.as_json:
            self._out.print(Text(printable(text), style))

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
            self._out.print(Text(printable(text), "bold" if number == 0 else ""))

    def complain(self, text: str) -> None:
        """Say what went wrong, on standard error."""
        self._error.print(Text.assemble(("nixfront: ", "bold red"), printable(text)))

    @contextmanager
    def progress(self, text: str) -> Iterator["Bar"]:
        """A moving bar on standard error during the context, where that is a terminal."""
        if self.as_json or not self._error.is_terminal:
            yield Bar(None, TaskID(0))
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._error, transient=True) as progress:
            yield Bar(progress, progress.add_task(text, total=None, count=""))


class Bar:
    """A moving bar with a text; without a terminal it does nothing."""

    def __init__(self, progress: Progress | None, task: TaskID) -> None:
        """Use `Console.progress`."""
        self._progress = progress
        self._task = task

    def show(self, text: str, done: int = 0, total: int = 0) -> None:
        """Show another text, and a count where there is a `total`."""
        if self._progress is not None:
            count = f"{done} of {total}" if total else ""
            self._progress.update(
                self._task,
                description=printable(text),
                completed=done,
                total=total or None,
                count=count,
            )


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand. `help` is its line in the list of all; `description` and `example` are on its own help page."""

    name: str
    help: str
    description: str
    run: Callable[[Settings, argparse.Namespace, Console], int]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    example: str = ""
    demo: bool = False


def check_set(settings: Settings, name: str) -> None:
    """Raise `SettingsInvalid` where `--set NAME` names no package set of the settings."""
    if name and name not in settings.sets:
        raise SettingsInvalid(f"sets has no {name!r}, but {', '.join(settings.sets) or 'nothing'}")
