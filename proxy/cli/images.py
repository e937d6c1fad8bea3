"""The subcommands about images: `explain`, `build`, `images`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.cli.command import Command, Console, add_platform, image_name

if TYPE_CHECKING:
    from proxy.settings import Settings


def _images(settings: "Settings", _: argparse.Namespace, console: Console) -> int:
    from proxy.cli import image_table

    return image_table.show(settings, console)


def _explain(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Print the layers of an image, lowest first."""
    from proxy.cli.running import run
    from proxy.wiring.commands import explanation as explain

    repository, tag = image_name(arguments.name, settings)
    with console.progress(f"reading {repository}:{tag}"):
        explanation = run(explain(settings, repository, tag, arguments.platform or ""))
    console.document(asdict(explanation))
    console.line(f"{explanation.name}  {explanation.digest}", "bold")
    if explanation.index:
        console.line(f"platform {explanation.platform} of {', '.join(explanation.platforms)}")
        console.line(f"index {explanation.index}")
    for platform, reason in sorted(explanation.missing.items()):
        console.line(f"missing {platform}: {reason}")
    console.line(f"created {explanation.created}")
    for label, value in sorted(explanation.labels.items()):
        console.line(f"{label}={value}")
    for parameter, value in sorted(explanation.run.items()):
        if parameter != "Env":
            console.line(f"{parameter} {json.dumps(value)}")
    for variable in explanation.environment:
        console.line(f"{variable.name}={variable.value}  ({variable.reason})")
    for note in explanation.notes:
        console.line(f"note: {note}")
    for layer in explanation.layers:
        console.line(f"{layer.digest}  {layer.size:>11,} bytes  diff_id {layer.diff_id}")
        for path in layer.store_paths or (
            f"({layer.comment or 'the root'}: links to the above, /etc, /tmp)",
        ):
            console.line(f"    {path}")
    return 0


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME[:TAG]", help="an image; a HOST/ in front of it does no harm")
    add_platform(parser, "explain the image of this platform (default: the first one of the index)")


def _build(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Print where the image is, and the digest of its manifest."""
    from proxy.cli.running import run
    from proxy.telemetry import log
    from proxy.wiring import commands

    log.configure(settings.log.level, "json" if console.as_json else settings.log.format)
    repository, tag = image_name(arguments.name, settings)
    if settings.image.format != "oci":
        console.complain(
            "image.format is docker, but a layout holds an OCI manifest, of the same layers and config"
        )
    digest = run(commands.build(settings, repository, tag, arguments.to, arguments.platform or ""))
    console.document({"layout": str(arguments.to), "tag": tag, "digest": digest})
    console.line(f"oci:{arguments.to}:{tag}  {digest}")
    return 0


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME[:TAG]", help="an image; a HOST/ in front of it does no harm")
    parser.add_argument(
        "--to", type=_folder, required=True, metavar="oci:DIR", help="the folder to write; it need not exist"
    )
    add_platform(parser, "write the plain manifest of this platform (default: what a pull gets)")


def _folder(destination: str) -> Path:
    """The folder of `oci:DIR`."""
    kind, _, folder = destination.partition(":")
    if kind != "oci" or not folder:
        raise argparse.ArgumentTypeError(f"{destination!r} is not oci:DIR")
    return Path(folder)


COMMANDS = (
    Command(
        "explain",
        "print the layers of an image",
        "List the layers of an image with their digests, sizes, DiffIDs and store paths.",
        _explain,
        _explain_arguments,
        "Example: `nixfront explain shell/git --json | jq '.layers[].store_paths'`. It reads NAME from the "
        "registry at registry.url, else from the nixfront at http.addr, which builds it if it is missing.",
    ),
    Command(
        "build",
        "write an image into a folder",
        "Make an image and write it as an OCI image layout. It needs no registry and no running nixfront.",
        _build,
        _build_arguments,
        "Example: `nixfront build shell/git --to oci:git`, then `skopeo copy oci:git:latest docker-daemon:git:latest`. The "
        "layers are the same as those of a pull. A layout holds an OCI manifest; with image.format docker a pull gets "
        "another manifest, of the same layers and config.",
        demo=True,
    ),
    Command(
        "images",
        "list the images of the registry",
        "List the images of the registry at registry.url, else those of the nixfront at http.addr: a line for each manifest, "
        "with its tags and platforms. SIZE is what a pull transfers, and OWN the part in no other image of the list, with what is "
        "attached to the image. FROM is "
        "`nixfront` or `a push`. PULLED is the last pull that nixfront saw, and up to half a minute late.",
        _images,
        example="Tags that are hashes count as `+2 fixed`; --json has each tag, the digest, and the bytes that are `attached`. Where nixfront neither names its "
        "registry nor runs with this data.dir, the list has names and tags alone.",
    ),
)
