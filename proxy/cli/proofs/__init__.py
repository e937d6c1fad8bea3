"""The subcommands that prove what an image is: `attest`, `verify`, `sign`."""

import argparse
from typing import TYPE_CHECKING

from proxy.cli.command import Command, Console, add_platform
from proxy.trust.kinds import KINDS, SPDX

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


def _attest(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    from proxy.cli.proofs import attesting

    return attesting.show(settings, arguments, console)


def _attest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME[:TAG]", help="an image; a HOST/ in front of it does no harm")
    parser.add_argument(
        "--format",
        choices=list(KINDS),
        default=SPDX.name,
        help=f"the kind of document (default: {SPDX.name})",
    )
    add_platform(parser, "the image of an index (default: the first one)")


COMMANDS = (
    Command(
        "attest",
        "print what is in an image, and how it was made",
        "Print a document that nixfront attached to an image: its bill of materials, in SPDX 2.3 or CycloneDX 1.6, or its "
        "provenance, an in-toto statement of SLSA. Each of them is JSON.",
        _attest,
        _attest_arguments,
        "Example: `nixfront attest shell/git | jq -r '.packages[].name'`. It reads NAME from the registry at registry.url, "
        "else from the nixfront at http.addr, which builds it if it is missing.",
    ),
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
