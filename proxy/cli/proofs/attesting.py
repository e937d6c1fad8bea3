"""The subcommand `attest`: the documents that nixfront attached to an image."""

import argparse
import asyncio
import sys

from proxy.cli.command import Console, image_name
from proxy.cli.running import run
from proxy.settings import Settings
from proxy.trust.kinds import KINDS
from proxy.upkeep.attest import attest
from proxy.wiring.registry import image_endpoint


def show(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """Print the document as the registry has it, byte for byte."""
    repository, tag = image_name(arguments.name, settings)

    async def read() -> bytes:
        endpoint = await asyncio.to_thread(image_endpoint, settings)
        async with endpoint.opened() as connection:
            return await attest(connection, repository, tag, KINDS[arguments.format], arguments.platform)

    with console.progress(f"reading {repository}:{tag}"):
        document = run(read())
    sys.stdout.buffer.write(document + b"\n")
    return 0
