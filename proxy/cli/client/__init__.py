"""The subcommands that use a nixfront as its clients do: `run`, `try`."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from proxy.cli.command import Command, Console, image_name
from proxy.core import typed
from proxy.core.errors import RegistryUnavailable

if TYPE_CHECKING:
    from proxy.settings import Settings

ENGINES = ("docker", "podman", "nerdctl")
_SECONDS = 3.0
_ANSWER = 10.0  # seconds for an engine to say its version


def _run(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Become the engine that runs the image."""
    import shutil

    from proxy.settings.values import here

    engine = arguments.engine or _engine_here()
    if not engine or not shutil.which(engine):
        raise RegistryUnavailable(
            f"this host has no {engine or 'engine'} to run an image: install one of {', '.join(ENGINES)}"
        )
    image = typed.write(*image_name(arguments.name, settings))
    address = here(settings.http.addr)
    _check_listening(address)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal:
        scheme = "https" if settings.http.certificate else "http"
        console.note(f"silent? it is building: {scheme}://{address}/")
    words = engine_line(
        engine,
        f"{address}/{image}",
        [word for at, word in enumerate(arguments.words) if at or word != "--"],
        is_terminal=is_terminal,
        is_plain=not settings.http.certificate,
    )
    sys.stdout.flush()
    os.execvp(words[0], words)  # noqa: S606 - no shell is in between, and the engine is the user's own


def _engine_here() -> str:
    """The first engine that works here; of those that do not, the first; empty where there is none."""
    import shutil

    from proxy.cli.running import run

    engines = [engine for engine in ENGINES if shutil.which(engine)]
    if len(engines) > 1:  # a client may be there without its daemon
        engines.sort(key=lambda engine: not run(_works(engine)))
    return next(iter(engines), "")


async def _works(engine: str) -> bool:
    """Whether the engine answers: `version` asks its daemon too, if it has one."""
    from proxy.core.errors import ProcessFailed
    from proxy.tools import process

    try:
        await process.run((engine, "version"), deadline=_ANSWER)
    except ProcessFailed:
        return False
    return True


def engine_line(engine: str, image: str, words: list[str], *, is_terminal: bool, is_plain: bool) -> list[str]:
    """The command that runs an image once. `is_plain`: nixfront speaks plain HTTP, which docker allows on loopback."""
    before = ["--insecure-registry"] if is_plain and engine == "nerdctl" else []
    options = ["--rm", "-i", *(["-t"] if is_terminal else [])]
    if is_plain and engine == "podman":
        options.append("--tls-verify=false")
    return [engine, *before, "run", *options, image, *words]


def _check_listening(address: str) -> None:
    """Raises `RegistryUnavailable` if nothing listens there: the engine's own words would name no nixfront."""
    import socket

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
    except OSError as error:
        raise RegistryUnavailable(
            f"no nixfront answers at {address}: start it with nixfront serve, or with "
            "deploy/quickstart where that installed it"
        ) from error


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=ENGINES, help="the engine (default: the first that works here)")
    parser.add_argument("name", metavar="NAME[:TAG]", help="an image; a HOST/ in front of it does no harm")
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="-- PROGRAM ARGUMENT",
        help="what to run in it (default: its own command)",
    )


def _try(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for each check; exit code 1 where one fails."""
    from proxy.cli.client import trial
    from proxy.cli.doctor.finding import show
    from proxy.cli.running import run
    from proxy.settings.values import here

    own = ("https://" if settings.http.certificate else "http://") + here(settings.http.addr)
    repository, tag = image_name(arguments.image, settings)
    url = trial.url_of(arguments.host) if arguments.host else own
    with console.progress(f"trying {url}"):
        findings = run(trial.examine(url, repository, tag))
    return show(findings, console)


def _try_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "host",
        nargs="?",
        default="",
        metavar="HOST",
        help="HOST[:PORT] or a URL (default: the nixfront at http.addr)",
    )
    parser.add_argument(
        "--image", default="hello", metavar="NAME[:TAG]", help="the image to pull (default: hello)"
    )


COMMANDS = (
    Command(
        "run",
        "run a program of an image, with the engine of this host",
        "Pull an image from the nixfront at http.addr and run it, with docker, podman or nerdctl, and remove the container "
        "afterwards. The exit code is that of the program.",
        _run,
        _run_arguments,
        "Example: `nixfront run shell/git -- git --version`.",
    ),
    Command(
        "try",
        "check a nixfront as a client sees it",
        "Ping a nixfront, pull an image and check each digest, ask for a part of a layer, and make a mistake. It has no login. "
        "The output says what to mend, and is fit for a report of a problem.",
        _try,
        _try_arguments,
        "Example: `nixfront try pull.example.net`. HOST is https, but on loopback http. The exit code is 1 where something is "
        "wrong (XX).",
    ),
)
