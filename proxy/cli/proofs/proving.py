"""What `verify` and `sign` do."""

import argparse
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

from proxy.cli.command import NO_CATALOG, Bar, Console, image_name
from proxy.cli.running import run
from proxy.settings import Settings
from proxy.telemetry import log
from proxy.upkeep.sign import ImageSigner, Signing
from proxy.upkeep.verify import Verdict
from proxy.wiring import commands, signing, verification


def verify(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for each image, and what differs below it."""
    if bool(arguments.names) == arguments.all:
        console.complain("name the images to verify, or say --all")
        return 2
    log.configure("warning", "json" if console.as_json else settings.log.format)
    verdicts: list[Verdict] = []

    async def verify_all(bar: Bar) -> None:
        async with verification.verifier(settings) as verifier:
            for name in arguments.names:
                repository, reference = image_name(name, settings)
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
        run(verify_all(bar))
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


def sign(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
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
        run(sign_all(bar))
    console.document([asdict(image) for image in done])
    return 1 if any(image.refused for image in done) else 0


async def _named(signer: ImageSigner, settings: Settings, names: Sequence[str]) -> AsyncIterator[Signing]:
    for name in names:
        yield await signer.one(*image_name(name, settings))
