"""The shape of a subcommand: one record says how it reads and what it runs, and `cli` does the rest.

Every subcommand takes `--config FILE` and `--json`; those with `demo` take `--demo`. `run` returns the exit code, or raises:
wrong settings are 2, any other `NixfrontError` and `OSError` is 1.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from proxy.console import Console
from proxy.settings import Settings

EXIT_CODES = """exit codes:
  0  it is done, and all is well
  1  it failed, or there is nothing such, or something is wrong
  2  wrong use, or wrong settings
  130  ended by Ctrl-C"""


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
