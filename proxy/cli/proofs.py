"""The subcommands that prove what an image is: `verify`, `sign`."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

from proxy.cli.command import NO_CATALOG, Bar, Command, Console
from proxy.core import typed
from proxy.settings import Settings
from proxy.telemetry import log
from proxy.upkeep.sign import ImageSigner, Signing
from proxy.upkeep.verify import Verdict
from proxy.wiring import commands, signing, verification


def _verify(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for each image, and what differs below it."""
    if bool(arguments.names) == arguments.all:
        console.complain("name the images to verify, or say --all")
        return 2
    log.configure("warning", "json" if console.as_json else settings.log.format)
    verdicts: list[Verdict] = []

    async def verify_all(bar: Bar) -> None:
        async with verification.verifier(settings) as verifier:
            for name in arguments.names:
                repository, reference = typed.read(name, settings.own_hosts)
                bar.show(name, len(verdicts), len(arguments.names))
                verdicts.append(await verifier.one(repository, reference))
                _print(verdicts[-1], console)
            if arguments.all:
                async with commands.listing(settings) as listing:
                    if not listing.is_whole:
                        console.complain(NO_CATALOG)
                    async for verdict in verifier.all(listing.images):
                        verdicts.append(verdict)
                        _print(verdict, console)
                        bar.show(verdict.name, len(verdicts))

    with console.progress("making images again") as bar:
        asyncio.run(verify_all(bar))
    console.document([{**asdict(verdict), "same": verdict.is_same} for verdict in verdicts])
    differing = sum(not verdict.is_same for verdict in verdicts)
    console.line(f"{len(verdicts)} images, {differing} of them differ or cannot be made again")
    return 1 if differing else 0


def _print(verdict: Verdict, console: Console) -> None:
    if verdict.error:
        console.line(f"unclear  {verdict.name}  {verdict.digest}")
        console.line(f"    {verdict.error}")
        return
    if verdict.is_same:
        console.line(f"same     {verdict.name}  {verdict.digest}  ({verdict.total} layers)")
        return
    console.line(f"differs  {verdict.name}  {verdict.digest} is {verdict.now} now")
    for layer in verdict.layers:
        console.line(f"    layer {layer.digest or 'none'} is {layer.now or 'gone'} now")
        for difference in layer.differences:
            console.line(f"        {difference}")
    for difference in verdict.differences:
        console.line(f"    {difference}")


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME[:TAG]", help="an image; a HOST/ in front of it does no harm"
    )
    parser.add_argument("--all", action="store_true", help="every image of nixfront's in the registry")


def _sign(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for each image."""
    if bool(arguments.names) == arguments.all:
        console.complain("name the images to sign, or say --all")
        return 2
    log.configure("warning", "json" if console.as_json else settings.log.format)
    done: list[Signing] = []

    async def sign_all(bar: Bar) -> None:
        async with signing.image_signer(settings) as signer:
            images = signer.all() if arguments.all else _named(signer, settings, arguments.names)
            async for image in images:
                done.append(image)
                bar.show(image.name, len(done))
                state = "refused" if image.refused else "signed" if image.new else "has one"
                console.line(
                    f"{state:<8}  {image.digest}  {image.name}{': ' if image.refused else ''}{image.refused}"
                )

    with console.progress("signing") as bar:
        asyncio.run(sign_all(bar))
    console.document([asdict(image) for image in done])
    return 1 if any(image.refused for image in done) else 0


async def _named(signer: ImageSigner, settings: Settings, names: Sequence[str]) -> AsyncIterator[Signing]:
    for name in names:
        yield await signer.one(*typed.read(name, settings.own_hosts))


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
