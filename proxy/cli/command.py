"""The shape of a subcommand: one record says how it reads and what it runs, and `cli` does the rest.

Every subcommand takes `--config FILE` and `--json`; those with `demo` take `--demo`. `run` returns the exit code, or raises:
wrong settings are 2, any other `NixfrontError` and `OSError` is 1.

What a command prints: results on standard output, everything else on standard error.

For people: plain lines, colours and moving bars on a terminal alone (and never with NO_COLOR). For programs, with `--json`: one
document on standard output and nothing else there.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console as Rich
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from proxy.settings import Settings

EXIT_CODES = """exit codes:
  0  it is done, and all is well
  1  it failed, or there is nothing such, or something is wrong
  2  wrong use, or wrong settings
  130  ended by Ctrl-C"""


class Console:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        """`as_json`: what is printed is for a program."""
        self.as_json = as_json
        self._out = Rich(file=sys.stdout, highlight=False, soft_wrap=True)
        self._error = Rich(file=sys.stderr, highlight=False, soft_wrap=True)

    def line(self, text: str, style: str = "") -> None:
        """A line of the result, for people."""
        if not self.as_json:
            self._out.print(Text(text, style))

    def document(self, value: object) -> None:
        """The result, for programs."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under headings, for people."""
        if self.as_json:
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for number, row in enumerate(
            (columns, *rows)
        ):  # never cut: what is cut cannot be copied, nor read by grep
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self._out.print(Text(text, "bold" if number == 0 else ""))

    def complain(self, text: str) -> None:
        """Say what went wrong, on standard error."""
        self._error.print(Text.assemble(("nixfront: ", "bold red"), text))

    @contextmanager
    def working(self, text: str) -> Iterator["Working"]:
        """While this lasts: what is being done, moving, where standard error is a terminal."""
        if self.as_json or not self._error.is_terminal:
            yield Working(None, TaskID(0))
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._error, transient=True) as progress:
            yield Working(progress, progress.add_task(text, total=None, count=""))


class Working:
    """The bar of something that is being done; where there is no terminal it does nothing."""

    def __init__(self, progress: Progress | None, task: TaskID) -> None:
        """Use `Console.working`."""
        self._progress = progress
        self._task = task

    def at(self, text: str, done: int = 0, total: int = 0) -> None:
        """What is being done now, and how much of it, where that is known."""
        if self._progress is not None:
            count = f"{done} of {total}" if total else ""
            self._progress.update(
                self._task,
                description=text,
                completed=done,
                total=total or None,
                count=count,
            )


@dataclass(frozen=True, slots=True)
class Command:
    """`help`: a line in the list of all; `description` and `example`: what its own help says."""

    name: str
    help: str
    description: str
    run: Callable[[Settings, argparse.Namespace, Console], int]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    example: str = ""
    demo: bool = False
