"""The subcommand `search`, which finds packages.

The settings take longer to read than a list of names. So a search of a list that an earlier search has read with the same
settings looks only whether they are the same.
"""

import argparse
import os
from typing import TYPE_CHECKING

from proxy.cli.command import Command, Console, check_set, positive

if TYPE_CHECKING:
    from proxy.core.facts import PackageFacts
    from proxy.settings import Settings
    from proxy.wiring.search_cache import Meaning, Question


def _search(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Print a page of packages. The exit code is 1 where nothing matches."""
    from proxy.wiring import search_cache

    check_set(settings, arguments.set)
    index = search_cache.recall(settings, arguments.set, arguments.tag)
    if index is None:
        which = arguments.set or settings.package_sources[""].kind
        console.note_on_terminal(
            f"listing the packages of set {which}: the first search does, and later ones take its list"
        )
        from proxy.cli.running import run
        from proxy.wiring import commands

        with console.progress("reading the names of the package set"):
            index = run(commands.name_index(settings, arguments.set, arguments.tag))
        search_cache.keep(settings, arguments.set, arguments.tag, index)
    search_cache.keep_meaning(_question(arguments), settings)
    meaning = search_cache.Meaning(index, settings.package_sources[arguments.set].kind, tuple(settings.sets))
    return _show(meaning, arguments, console)


def _search_at_once(arguments: argparse.Namespace, console: Console) -> int | None:
    """As `_search`, where an earlier one has left the names; None where it has not."""
    from proxy.wiring import search_cache

    meaning = search_cache.recall_meaning(_question(arguments))
    return None if meaning is None else _show(meaning, arguments, console)


def _question(arguments: argparse.Namespace) -> "Question":
    from proxy.wiring.search_cache import Question

    return Question(arguments.config, os.environ, arguments.demo, arguments.set, arguments.tag)


def _show(meaning: "Meaning", arguments: argparse.Namespace, console: Console) -> int:
    """Print a page of packages: attribute, name to pull, version, description. The exit code is 1 where nothing matches."""
    index = meaning.index
    prefix = f"{arguments.set}/" if arguments.set else ""
    positions = index.search(arguments.text)
    page = positions[(arguments.page - 1) * arguments.most :][: arguments.most]
    matches = [(facts, _pull_name(prefix, facts.name)) for facts in map(index.facts, page)]
    console.document([{"attribute": facts.name, "pull": pull, **_said(facts)} for facts, pull in matches])
    unspelled = "(no name can spell it: set one in names.aliases)"
    rows = [(facts.name, pull or unspelled, facts.version, facts.description) for facts, pull in matches]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        console.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    pages = -(-len(positions) // arguments.most)
    if pages > arguments.page:
        console.note(f"page {arguments.page} of {pages}; --page {arguments.page + 1} shows more")
    elif positions and not matches:
        console.complain(f"there is no page {arguments.page}, the last one is {pages}")
    if not positions:
        which = arguments.set or meaning.kind
        others = [f"--set {name}" for name in meaning.sets if name != arguments.set]
        more = f"; look in another set with {' or '.join(others)}" if others else ""
        console.complain(
            f"no package of set {which} has {arguments.text!r} in its name or description ({len(index)} names){more}"
        )
    return 0 if matches else 1


def _said(facts: "PackageFacts") -> dict[str, str]:
    return {
        "version": facts.version,
        "description": facts.description,
        "license": facts.license,
        "main_program": facts.main_program,
    }


def _pull_name(prefix: str, attribute: str) -> str | None:
    """The repository to pull for this attribute; None where a repository path cannot spell it."""
    from proxy.core.names import spelled

    repository = spelled(attribute)
    return None if repository is None else prefix + repository


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="part of a name, a program, or words of a description")
    parser.add_argument(
        "--page", type=positive, default=1, metavar="N", help="the page to print (default: 1)"
    )
    parser.add_argument(
        "--most", type=positive, default=25, metavar="N", help="lines of a page (default: 25)"
    )
    parser.add_argument("--set", default="", metavar="NAME", help="one of `sets` (default: the default set)")
    parser.add_argument("--tag", default="latest", metavar="TAG", help="a revision of it (default: latest)")


COMMANDS = (
    Command(
        "search",
        "find packages by name",
        "Find packages of a package set by name, program or description, and how to pull each: best first, a page at a time. "
        "Case does not matter.",
        _search,
        _arguments,
        "Example: `nixfront search numpy` prints python3Packages.numpy and python3packages.numpy, the name to pull. A channel "
        "of nixpkgs publishes its list; the first search in another set takes a while, as Nix lists all its names. The exit code is 1 where "
        "nothing matches.",
        demo=True,
        at_once=_search_at_once,
    ),
)
