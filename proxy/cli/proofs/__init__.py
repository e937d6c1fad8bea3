"""The subcommands that prove what an image is: `verify`, `sign`."""

import argparse
from typing import TYPE_CHECKING

from proxy.cli.command import Command, Console

if TYPE_CHECKING:
    from proxy.settings import Settings


def _verify(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    from proxy.cli.proofs import proving

    return proving.verify(settings, arguments, console)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME[:TAG]", help="an image; a HOST/ in front of it does no harm"
    )
    parser.add_argument("--all", action="store_true", help="every image of nixfront's in the registry")


def _sign(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    from proxy.cli.proofs import proving

    return proving.sign(settings, arguments, console)


COMMANDS = (
    Command(
        "verify",
        "make images again and compare them",
        "Make an image again, from packages in the Nix store or from a binary cache, and compare it with the one of the "
        "registry: its digest, layer by layer, and which store path differs. It writes to the Nix store alone.",
        _verify,
        _verify_arguments,
        "Example: `nixfront verify shell/git --json`. The revision of the packages is the one in the image's labels. The "
        "exit code is 1 where an image differs or cannot be made again: use it in CI.",
        demo=True,
    ),
    Command(
        "sign",
        "sign images that are in the registry",
        "Sign images of nixfront's that the registry has already, with the key of trust.key. New images are signed as they "
        "are made.",
        _sign,
        _verify_arguments,
        "Example: `nixfront sign --all`, once after trust.key was set or changed. It signs what nixfront's records name. "
        "An image whose record comes from `nixfront reindex` is made again first, and only an equal one is signed.",
        demo=True,
    ),
)
