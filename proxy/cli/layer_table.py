"""The subcommand `popularity`: the table of layers, from a package set, a binary cache, or the images served."""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from proxy.cli.command import Command, Console
from proxy.core.errors import SettingsInvalid
from proxy.image import layer_table
from proxy.settings import Settings
from proxy.upkeep import census
from proxy.upkeep.census import Census
from proxy.wiring import commands, registry

_DESCRIPTION = """\
Make the table that `layers.table` names: which store paths share a layer.

Images share a layer only where it holds the same store paths, so these are put together by facts about the package
set, never by what one image happens to hold: paths that exactly the same packages need are one layer. The table
names paths without hash and version, so it serves later revisions of the set too; make a new one when sharing gets
worse, or never. It is part of every image: another table means that images are made anew, with other layers.

The facts come from one of three places:

  a package set  (without an option) builds or fetches the packages NAME, or all that the set lists; of these, what
                 cannot be had is left out
  --narinfo      a binary cache, of which only the small narinfo files are read: for sets too large to be realised
  --served       the images that are in the registry: what people ask for, not what there is
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
        "--names", dest="file", metavar="FILE", help="further names, one a line; - is standard input"
    )
    parser.add_argument("--set", default="", metavar="SET", help="one of `sets` (default: the default set)")
    parser.add_argument("--tag", default="latest", metavar="TAG", help="a revision of it (default: latest)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--narinfo", metavar="CACHE", help="read a binary cache: a folder, or an http(s) URL")
    source.add_argument("--served", action="store_true", help="read the images that are in the registry")
    parser.add_argument(
        "--always",
        action="append",
        default=[],
        metavar="PATH",
        help="with --narinfo: a store path that is in every image",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where to (default: standard output)"
    )


def _popularity(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """The table, in the file or on standard output; what it is made of on standard error."""
    found = asyncio.run(_census(settings, arguments, _names(arguments), console))
    for line in found.left_out:
        console.complain(line)
    if not found.images:
        raise SettingsInvalid("there is nothing to make a table of: no package, or no image of ours")
    table = found.table()
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
    """Those of the command line, then those of the file, none twice."""
    lines: Iterable[str] = ()
    if arguments.file:
        lines = sys.stdin if arguments.file == "-" else Path(arguments.file).read_text().splitlines()
    return list(dict.fromkeys((*arguments.names, *(line.strip() for line in lines if line.strip()))))


async def _census(
    settings: Settings, arguments: argparse.Namespace, asked: Sequence[str], console: Console
) -> Census:
    if arguments.served:
        with console.working("reading the images of the registry"):
            return await census.of_registry(await asyncio.to_thread(registry.image_endpoint, settings))
    if arguments.narinfo:
        with console.working("reading the cache"):
            return await census.of_cache(arguments.narinfo, asked, arguments.always)
    if arguments.set and arguments.set not in settings.sets:
        raise SettingsInvalid(f"sets has no {arguments.set!r}, but {', '.join(settings.sets) or 'nothing'}")
    with console.working("reading the package set") as working:
        return await commands.census_of_set(settings, arguments.set, arguments.tag, asked, working.at)


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
