"""The command `nixfront`: it reads argv, loads the settings, and runs a subcommand."""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import shtab

from proxy import __version__
from proxy.cli import host, images, layer_table, proofs, upkeep
from proxy.cli.command import EXIT_CODES, Command, Console
from proxy.core.errors import NixfrontError, SettingsInvalid
from proxy.settings import load

COMMANDS: tuple[Command, ...] = (
    *host.COMMANDS,
    *images.COMMANDS,
    *layer_table.COMMANDS,
    *proofs.COMMANDS,
    *upkeep.COMMANDS,
)
_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code (`EXIT_CODES`)."""
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    console = Console(as_json=arguments.json)
    command: Command = arguments.command
    try:
        overrides = {"packages": {"kind": "demo"}} if getattr(arguments, "demo", False) else {}
        return command.run(load(arguments.config, os.environ, **overrides), arguments, console)
    except SettingsInvalid as error:
        return _fail(console, error, f"wrong settings: {error}", 2)
    except BrokenPipeError:  # an OSError, but no failure
        raise
    except (NixfrontError, OSError) as error:
        return _fail(console, error, str(error), 1)
    except KeyboardInterrupt:
        return _INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="nixfront",
        description="Build container images when they are pulled. A proxy in front of a stock registry, with Nix.",
        epilog=f"{EXIT_CODES}\n\n`nixfront COMMAND --help` says more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"nixfront {__version__}")
    shtab.add_argument_to(
        whole, "--print-completion", help="print the completions for a shell, which it can source"
    )
    subparsers = whole.add_subparsers(dest="subcommand", required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        _add(subparsers, command)
    return whole


def _add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", command: Command) -> None:
    own = subparsers.add_parser(
        command.name,
        help=command.help,
        description=_wrapped(command.description),
        epilog="\n\n".join(_wrapped(text) for text in (command.example, EXIT_CODES) if text),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    file = own.add_argument(
        "--config", type=Path, metavar="FILE", help="the settings, as YAML (default: none)"
    )
    file.complete = shtab.FILE  # type: ignore[attr-defined]
    if command.demo:
        own.add_argument(
            "--demo", action="store_true", help="use the small package set that comes with nixfront"
        )
    own.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.arguments(own)
    own.set_defaults(command=command)


def _wrapped(text: str) -> str:
    """The text at 100 columns. Indented paragraphs and the list of exit codes stay as they are."""
    verbatim = ("exit codes", " ")
    paragraphs = (
        paragraph if paragraph.startswith(verbatim) else textwrap.fill(paragraph, 100, break_on_hyphens=False)
        for paragraph in text.rstrip().split("\n\n")
    )
    return "\n\n".join(paragraphs)


def _fail(console: Console, error: Exception, message: str, code: int) -> int:
    console.document({"error": str(error), "kind": type(error).__name__})
    console.complain(message)
    return code
