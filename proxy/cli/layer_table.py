"""The subcommand `popularity`: the layer table, from a package set, a binary cache, or the images of the registry."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.cli.command import Command, Console, check_set
from proxy.core.errors import ArgumentsInvalid

if TYPE_CHECKING:
    from proxy.settings import Settings
    from proxy.upkeep.census import Census

_DESCRIPTION = """\
Make the file for `layers.table`, the table that says which store paths share a layer.

Two images share a layer only if it holds the same store paths. So the table groups paths by facts about the package
set, never by the content of one image: paths that exactly the same packages need become one layer. The table names
paths without hash and version, so it also serves later revisions of the set. Make a new one when sharing gets worse.
The table is part of every image: after a change nixfront makes images anew, with other layers.

The facts come from one of three places:

  a package set  (without an option) builds or fetches the packages NAME, or all packages that the set lists; it
                 leaves out those of them that fail
  --narinfo      a binary cache; it reads only the small narinfo files, so it serves sets that are too large to build
  --served       the images in the registry: what people pull, not what a set has
"""
_EXAMPLES = """\
  nixfront popularity --demo -o table.json
  nixfront popularity git curl python3 gcc -o table.json
  nixfront popularity --narinfo https://cache.example.org --names store-paths -o table.json
  nixfront popularity --served -o table.json
  NIXFRONT_LAYERS_TABLE=$PWD/table.json nixfront serve
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="an attribute; with --narinfo a store path, or the hash of one",
    )
    parser.add_argument(
        "--names",
        dest="file",
        metavar="FILE",
        help="a file of further names, one a line; - for standard input",
    )
    parser.add_argument("--set", default="", metavar="SET", help="one of `sets` (default: the default set)")
    parser.add_argument("--tag", default="latest", metavar="TAG", help="a revision of it (default: latest)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--narinfo", metavar="CACHE", help="read a binary cache: a folder, or an http(s) URL")
    source.add_argument("--served", action="store_true", help="read the images in the registry")
    parser.add_argument(
        "--always",
        action="append",
        default=[],
        metavar="PATH",
        help="with --narinfo: a store path that is in every image",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the file to write (default: standard output)"
    )


def _popularity(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Write the table to the file or to standard output, and its source to standard error."""
    from proxy.cli.running import run
    from proxy.image import layer_table

    facts = run(_census(settings, arguments, _names(arguments), console))
    for line in facts.left_out:
        console.complain(line)
    if not facts.images:
        raise ArgumentsInvalid("there is no package, or no image of ours, to make a table from")
    table = facts.table()
    text = layer_table.write(table) + b"\n"
    if arguments.output:
        arguments.output.write_bytes(text)
        groups = len(set(table.groups.values()))
        console.line(f"{table.source}: {groups} groups")
        console.document({"source": table.source, "groups": groups, "digest": table.digest})
    else:
        sys.stdout.buffer.write(text)
    return 0


def _names(arguments: argparse.Namespace) -> list[str]:
    """The names of the command line, then those of the file, none twice."""
    lines: Iterable[str] = ()
    if arguments.file:
        lines = sys.stdin if arguments.file == "-" else Path(arguments.file).read_text().splitlines()
    return list(dict.fromkeys((*arguments.names, *(line.strip() for line in lines if line.strip()))))


async def _census(
    settings: "Settings", arguments: argparse.Namespace, names: Sequence[str], console: Console
) -> "Census":
    import asyncio

    from proxy.upkeep import census
    from proxy.wiring import commands, registry

    if arguments.served:
        with console.progress("reading the images of the registry"):
            return await census.of_registry(await asyncio.to_thread(registry.image_endpoint, settings))
    if arguments.narinfo:
        with console.progress("reading the cache"):
            return await census.of_cache(arguments.narinfo, names, arguments.always)
    check_set(settings, arguments.set)
    with console.progress("reading the package set") as bar:
        return await commands.census_of_set(settings, arguments.set, arguments.tag, names, bar.show)


COMMANDS = (
    Command(
        "popularity",
        "make the table that says which store paths share a layer",
        _DESCRIPTION,
        _popularity,
        _arguments,
        f"examples:\n\n{_EXAMPLES}",
        demo=True,
    ),
)
