"""The command `nixfront`: argv and environment -> settings -> what runs. Exit codes: 0 fine, 1 failed, 2 wrong use."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from proxy import __version__, app, catalog, explain, logs, names, suggest
from proxy.errors import NixfrontError, SettingsInvalid
from proxy.settings import Settings, load


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        overrides = {"packages": {"kind": "demo"}} if getattr(arguments, "demo", False) else {}
        settings = load(arguments.config, os.environ, **overrides)
        match arguments.command:
            case "check-config":
                _say(f"{arguments.config or 'the defaults'}: fine")
            case "images":
                _list_images(settings)
            case "search":
                return _search(settings, arguments)
            case "explain":
                _explain(settings, arguments)
            case _:
                logs.configure(settings.log.level, settings.log.format)
                asyncio.run(_serve(settings))
    except SettingsInvalid as error:
        sys.stderr.write(f"nixfront: wrong settings: {error}\n")
        return 2
    except (NixfrontError, OSError) as error:
        sys.stderr.write(f"nixfront: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nixfront",
        description="docker pull of images that nobody built: a proxy before a stock registry that makes them with Nix.",
    )
    parser.add_argument("--version", action="version", version=f"nixfront {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument(
        "--config", type=Path, metavar="FILE", help="the settings, as YAML (default: none)"
    )
    demo = argparse.ArgumentParser(add_help=False)
    demo.add_argument(
        "--demo", action="store_true", help="use the small package set that comes with nixfront"
    )
    commands.add_parser(
        "serve",
        parents=[configured, demo],
        help="answer pulls",
        description="Answer pulls until SIGTERM or SIGINT.",
    )
    commands.add_parser(
        "images",
        parents=[configured],
        help="list the images that are there",
        description="List the images of the registry: of registry.url, else of the nixfront at http.addr.",
    )
    search = commands.add_parser(
        "search",
        parents=[configured, demo],
        help="find packages by name",
        description="Find attributes of a package set whose name holds TEXT, case aside, and how to pull each.",
        epilog="Example: `nixfront search numpy` prints python3Packages.numpy and python3packages.numpy, the name "
        "to pull. The list is made once for each revision of the set, which takes a while for nixpkgs.",
    )
    search.add_argument("text", metavar="TEXT", help="part of a name")
    search.add_argument("--set", default="", metavar="NAME", help="one of `sets` (default: the default set)")
    search.add_argument("--tag", default="latest", metavar="TAG", help="a revision of it (default: latest)")
    search.add_argument("--json", action="store_true", help="print a JSON list of {attribute, pull}")
    explain = commands.add_parser(
        "explain",
        parents=[configured],
        help="say what an image is made of",
        description="List the layers of an image with their digests, sizes, DiffIDs and store paths.",
        epilog="Example: `nixfront explain shell/git --json | jq '.layers[].store_paths'`. NAME is asked of the "
        "registry at registry.url, else of the nixfront at http.addr, which builds it if it is not there.",
    )
    explain.add_argument("name", metavar="NAME[:TAG]", help="an image, without the host")
    explain.add_argument("--json", action="store_true", help="print one JSON document")
    commands.add_parser(
        "check-config",
        parents=[configured],
        help="read the settings and say what is wrong with them",
        description="Read the settings, from the file and the environment, and say what is wrong with them.",
    )
    return parser


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _registry(settings: Settings) -> str:
    """Where to ask about images: a registry that is our child is reached through the proxy itself."""
    return settings.registry.url or f"http://{settings.http.addr}"


def _list_images(settings: Settings) -> None:
    """One line for each tag."""
    for repository, tags in catalog.images(_registry(settings)):
        for tag in tags:
            _say(f"{repository}:{tag}")


def _search(settings: Settings, arguments: argparse.Namespace) -> int:
    """A line for each attribute that fits and the name to pull; exit code 1 when there is none, as grep does."""
    if arguments.set and arguments.set not in settings.sets:
        raise SettingsInvalid(f"sets has no {arguments.set!r}, but {', '.join(settings.sets) or 'nothing'}")
    known = asyncio.run(app.attribute_names(settings, arguments.set, arguments.tag))
    prefix = f"{arguments.set}/" if arguments.set else ""
    found = [(name, _pull_name(prefix, name)) for name in suggest.search(arguments.text, known)]
    if arguments.json:
        _say(json.dumps([{"attribute": name, "pull": pull} for name, pull in found], indent=2))
    else:
        width = max((len(name) for name, _ in found), default=0)
        for name, pull in found:
            _say(f"{name:<{width}}  {pull or '(has no spelling: give it one with names.aliases)'}")
    return 0 if found else 1


def _pull_name(prefix: str, attribute: str) -> str | None:
    """What to pull for this attribute, None where a repository path cannot spell it."""
    spelled = names.spelled(attribute)
    return None if spelled is None else prefix + spelled


def _explain(settings: Settings, arguments: argparse.Namespace) -> None:
    """The layers of an image, lowest first."""
    repository, colon, tag = arguments.name.rpartition(":")
    if not colon:
        repository, tag = arguments.name, "latest"
    explained = asyncio.run(explain.explain(_registry(settings), repository, tag))
    if arguments.json:
        _say(json.dumps(asdict(explained), indent=2))
        return
    _say(f"{explained.name}  {explained.digest}")
    _say(f"created {explained.created}")
    for label, value in sorted(explained.labels.items()):
        _say(f"{label}={value}")
    for parameter, value in sorted(explained.run.items()):
        _say(f"{parameter} {json.dumps(value)}")
    for layer in explained.layers:
        _say(f"{layer.digest}  {layer.size:>11,} bytes  diff_id {layer.diff_id}")
        for path in layer.store_paths or (
            f"({layer.comment or 'the root'}: links to the above, /etc, /tmp)",
        ):
            _say(f"    {path}")


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    async with app.serve(settings) as origin:
        logging.getLogger("nixfront").info("listening url=%s packages=%s", origin, settings.packages.kind)
        await stop.wait()
        logging.getLogger("nixfront").info("stopping")
