"""The command `nixfront`: it reads argv, loads the settings, and runs a subcommand."""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from proxy import __version__
from proxy.cli import client, first_settings, host, images, layer_table, proofs, search, upkeep
from proxy.cli.command import EXIT_CODES, INTERRUPTED, Command, Console
from proxy.core.errors import ArgumentsInvalid, NixfrontError, SettingsInvalid, reason

COMMANDS: tuple[Command, ...] = (
    *first_settings.COMMANDS,
    *host.COMMANDS,
    *search.COMMANDS,
    *images.COMMANDS,
    *client.COMMANDS,
    *layer_table.COMMANDS,
    *proofs.COMMANDS,
    *upkeep.COMMANDS,
)
_SHELLS = ("bash", "zsh", "tcsh")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code (`EXIT_CODES`)."""
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    whole = parser()
    if words and not words[0].startswith("-") and (wrong := _no_command(words[0])):
        whole.error(wrong)
    arguments, rest = whole.parse_known_args(words)
    if rest:
        own: argparse.ArgumentParser = whole if arguments.subcommand is None else arguments.parser
        own.error(_unknown(rest, own))
    if arguments.print_completion:
        sys.stdout.write(_completions(whole, arguments.print_completion) + "\n")
        return 0
    if arguments.subcommand is None:
        whole.print_help()
        return 0
    console = Console(as_json=arguments.json)
    command: Command = arguments.command
    try:
        if (code := command.at_once(arguments, console)) is not None:
            return code
        from proxy.settings import load  # takes longer than `--help`

        overrides = {"packages": {"kind": "demo"}} if getattr(arguments, "demo", False) else {}
        return command.run(load(arguments.config, os.environ, **overrides), arguments, console)
    except SettingsInvalid as error:
        return _fail(console, error, _listed(error), 2)
    except BrokenPipeError:  # an OSError, but no failure
        raise
    except NixfrontError as error:
        return _fail(console, error, str(error), 1)
    except OSError as error:
        return _fail(console, error, _in_words(error), 1)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="nixfront",
        description="Build container images when they are pulled. A proxy in front of a stock registry, with Nix.",
        epilog=f"{EXIT_CODES}\n\n`nixfront COMMAND --help` says more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"nixfront {__version__}")
    whole.add_argument(
        "--print-completion",
        choices=_SHELLS,
        help="print the completions for a shell, which it can source",
    )
    subparsers = whole.add_subparsers(dest="subcommand", metavar="COMMAND", title="commands")
    for command in COMMANDS:
        _add(subparsers, command)
    return whole


def _no_command(word: str) -> str:
    """That there is no such command, and the one that was perhaps meant; empty where there is one."""
    names = [command.name for command in COMMANDS]
    if word in names:
        return ""
    from proxy.settings.problems import perhaps

    return f"there is no command {word!r}{perhaps(word, names)}"


def _unknown(words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """What is wrong with words that the parser left over, and the option that was perhaps meant."""
    from proxy.settings.problems import perhaps

    option = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
    if not option:
        return f"too many arguments: {' '.join(words)}"
    options = [name[2:] for action in parser._actions for name in action.option_strings if name[:2] == "--"]  # noqa: SLF001
    return f"there is no option {option}{perhaps(option.lstrip('-'), options, '--')}"


def _completions(whole: argparse.ArgumentParser, shell: str) -> str:
    """The completions for a shell. After an option or argument FILE it completes the names of files."""
    import shtab  # takes longer than `--help`

    for action in _actions(whole):
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(whole, shell))


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options and arguments of the parser and of its subcommands."""
    actions = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to them; shtab reads them too
        actions.append(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            actions += [inner for sub in action.choices.values() for inner in _actions(sub)]
    return actions


def _add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", command: Command) -> None:
    own = subparsers.add_parser(
        command.name,
        help=command.help,
        description=_wrapped(command.description),
        epilog="\n\n".join(_wrapped(text) for text in (command.example, EXIT_CODES) if text),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a command that deletes must not guess, and a later option may begin alike
    )
    own.add_argument("--config", type=Path, metavar="FILE", help="the settings, as YAML (default: none)")
    if command.demo:
        own.add_argument(
            "--demo", action="store_true", help="use the small package set that comes with nixfront"
        )
    own.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.arguments(own)
    own.set_defaults(command=command, parser=own)


def _wrapped(text: str) -> str:
    """The text at 100 columns. Indented paragraphs and the list of exit codes stay as they are."""
    verbatim = ("exit codes", " ")
    paragraphs = (
        paragraph if paragraph.startswith(verbatim) else textwrap.fill(paragraph, 100, break_on_hyphens=False)
        for paragraph in text.rstrip().split("\n\n")
    )
    return "\n\n".join(paragraphs)


def _in_words(error: OSError) -> str:
    return f"{error.filename}: {reason(error)}" if error.filename else reason(error)


def _listed(error: SettingsInvalid) -> str:
    """Each wrong setting on a line of its own. A wrong argument is no setting."""
    if isinstance(error, ArgumentsInvalid):
        return str(error)
    space = " " if len(error.problems) == 1 else "\n    "
    return f"wrong settings:{space}" + space.join(error.problems)


def _fail(console: Console, error: Exception, message: str, code: int) -> int:
    console.document(
        {"error": str(error) if isinstance(error, SettingsInvalid) else message, "kind": type(error).__name__}
    )
    console.complain(message)
    return code
