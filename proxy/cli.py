"""The command `nixfront`: argv and environment -> settings -> what runs. Exit codes: 0 fine, 1 failed, 2 wrong use."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from proxy import __version__, app, catalog
from proxy.errors import NixfrontError, SettingsInvalid
from proxy.settings import Settings, load


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        overrides = {"packages": {"kind": "demo"}} if getattr(arguments, "demo", False) else {}
        settings = load(arguments.config, os.environ, **overrides)
        if arguments.command == "check-config":
            sys.stdout.write(f"{arguments.config or 'the defaults'}: fine\n")
            return 0
        if arguments.command == "images":
            _list_images(settings)
            return 0
        _log_to_stderr(settings.log.level)
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
    serve = commands.add_parser(
        "serve",
        parents=[configured],
        help="answer pulls",
        description="Answer pulls until SIGTERM or SIGINT.",
    )
    serve.add_argument(
        "--demo", action="store_true", help="use the small package set that comes with nixfront"
    )
    commands.add_parser(
        "images",
        parents=[configured],
        help="list the images that are there",
        description="List the images of the registry: of registry.url, else of the nixfront at http.addr.",
    )
    commands.add_parser(
        "check-config", parents=[configured], help="read the settings and say what is wrong with them"
    )
    return parser


def _list_images(settings: Settings) -> None:
    """One line for each tag; a registry that is our child is reached through the proxy itself."""
    for repository, tags in catalog.images(settings.registry.url or f"http://{settings.http.addr}"):
        sys.stdout.writelines(f"{repository}:{tag}\n" for tag in tags)


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    async with app.serve(settings) as origin:
        logging.getLogger("nixfront").info("listening url=%s packages=%s", origin, settings.packages.kind)
        await stop.wait()
        logging.getLogger("nixfront").info("stopping")


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # it tells of every statement
