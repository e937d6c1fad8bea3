"""The manual page nixfront(1), made from the parser: `python -m tests.support.manual >config/nixfront.1`."""

import argparse
import sys
from collections.abc import Iterator

from proxy import cli
from proxy.cli.command import EXIT_CODES

_FILES = """.SH FILES
.TP
.I nixfront.yml
The settings, which \\-\\-config names. Each key is also a variable of the environment, NIXFRONT_SECTION_KEY.
"""


def page() -> str:
    """The page in the language of man(7)."""
    parser = cli.parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    parts = [
        '.\\" python -m tests.support.manual makes this file from the parser of the command line.',
        '.TH NIXFRONT 1 "" "nixfront" "User Commands"',
        ".SH NAME",
        _text(f"nixfront - {(parser.description or '').partition('.')[0].lower()}"),
        ".SH SYNOPSIS",
        ".B nixfront",
        "COMMAND [OPTION]... [ARGUMENT]...",
        ".SH DESCRIPTION",
        _text(parser.description or ""),
        *_options(parser),
        ".SH COMMANDS",
    ]
    for command in cli.COMMANDS:
        own = commands.choices[command.name]
        usage = " ".join(own.format_usage().split()).removeprefix("usage: ")
        parts += [f".SS {_text(command.name)}", f".B {_text(usage)}", ".PP", _paragraphs(command.description)]
        parts += _options(own)
        parts += [".PP", _paragraphs(command.example)] if command.example else []
    parts += [_FILES.rstrip(), ".SH EXIT STATUS"]
    for line in EXIT_CODES.splitlines()[1:]:
        code, _, meaning = line.strip().partition("  ")
        parts += [".TP", f".B {code}", _text(meaning)]
    return "\n".join(parts) + "\n"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        names = ", ".join(action.option_strings) or str(action.metavar)
        takes = (
            action.option_strings and action.nargs != 0 and not isinstance(action, argparse._VersionAction)
        )
        value = action.metavar or (
            "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
        )
        yield from (
            ".TP",
            f".B {_text(names)}{f' {_text(str(value))}' if takes else ''}",
            _text(action.help or ""),
        )


def _paragraphs(text: str) -> str:
    """Paragraphs; those that are indented stay as they are."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        is_verbatim = paragraph.startswith(" ")
        parts.append(f".nf\n{_text(paragraph)}\n.fi" if is_verbatim else _text(" ".join(paragraph.split())))
    return "\n.PP\n".join(parts)


def _text(text: str) -> str:
    """The text with what roff would take for its own escaped."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines())


if __name__ == "__main__":
    sys.stdout.write(page())
