"""The subcommands of who keeps a registry: `warm`, `prune`, `reindex`."""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime

import shtab

from proxy.cli.command import Command, Console, Working
from proxy.registry.endpoint import Endpoint
from proxy.settings import Settings
from proxy.upkeep import warm
from proxy.upkeep.warm import Outcome
from proxy.wiring import commands, registry

_DAY = 86_400.0


def _warm(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """A line for each image; exit code 1 when one could not be had."""
    with sys.stdin if arguments.file == "-" else open(arguments.file, encoding="utf-8") as lines:  # noqa: PTH123 - or standard input
        images = warm.read(lines)
    nixfront = Endpoint(arguments.url) if arguments.url else registry.nixfront_endpoint(settings)
    outcomes: dict[str, Outcome] = {}

    async def pull_all(working: Working) -> None:
        async for one in warm.warm(nixfront, images, arguments.at_once):
            outcomes[one.name] = one
            working.at(one.name, len(outcomes), len(images))
            if one.error:
                console.complain(f"{one.name}: {one.error}")
            else:
                console.line(f"{one.name}  {one.digest}")

    with console.working("pulling") as working:
        asyncio.run(pull_all(working))
    console.document([asdict(outcomes[f"{repository}:{tag}"]) for repository, tag in images])
    return 1 if any(one.error for one in outcomes.values()) else 0


def _warm_arguments(parser: argparse.ArgumentParser) -> None:
    file = parser.add_argument(
        "file", metavar="FILE", help="a NAME[:TAG] a line; # begins a comment; - for standard input"
    )
    file.complete = shtab.FILE  # type: ignore[attr-defined]
    parser.add_argument(
        "--url",
        default="",
        metavar="URL",
        help="the nixfront to ask, without credentials (default: at http.addr, as nixfront's own user)",
    )
    parser.add_argument(
        "--at-once", type=_positive, default=4, metavar="N", help="images at once (default: 4)"
    )


def _prune(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """A line for each image that is old: whether it went, or why it stays."""
    return asyncio.run(_prune_all(settings, arguments, console))


async def _prune_all(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    told = []
    async with commands.pruner(settings) as pruner:
        for old in await pruner.old(time.time() - arguments.days * _DAY):
            gone = not old.kept and (arguments.dry_run or await pruner.prune(old))
            verb = "stays" if not gone else "would go" if arguments.dry_run else "is gone"
            why = f": {old.kept}" if old.kept else ""
            used = datetime.fromtimestamp(old.used, tz=UTC)
            names = " ".join(f"{old.repository}:{tag}" for tag in old.tags) or f"{old.repository} (no tag)"
            console.line(f"{verb:<8}  {used:%Y-%m-%d}  {old.digest}  {names}{why}")
            told.append({**asdict(old), "used": used.isoformat(), "gone": gone and not arguments.dry_run})
    console.document(told)
    return 0


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=_days, default=30.0, metavar="N", help="not pulled for so long (default: 30)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and delete nothing")


def _reindex(settings: Settings, _: argparse.Namespace, console: Console) -> int:
    """What was found."""
    with console.working("reading the registry"):
        found = asyncio.run(commands.reindex(settings))
    console.document(asdict(found))
    console.line(f"{found.tags} tags, {found.ours} of them are ours")
    console.line(f"{found.layers} layers are known; {found.unproved} more this host could not make by itself")
    for name in _some(found.strangers):
        console.line(f"an image of ours under a tag that is not: {name}")
    return 0


def _some(names: list[str], most: int = 20) -> Iterable[str]:
    yield from names[:most]
    if len(names) > most:
        yield f"and {len(names) - most} more"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _days(text: str) -> float:
    days = float(text)
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days")
    return days


COMMANDS = (
    Command(
        "warm",
        "make images before they are asked for",
        "Pull every image of a list from the nixfront that runs, so that it is made where it is not there yet.",
        _warm,
        _warm_arguments,
        "Example: `nixfront warm /etc/nixfront/warm`, run by a timer some minutes after packages.time_to_live has passed. "
        "Moving tags that are due are renewed by it, as by any pull.",
    ),
    Command(
        "prune",
        "delete images that nobody pulls",
        "Delete images that nixfront made and that were not pulled for some days. What a tag names that somebody pushed "
        "stays, and so does what an index needs.",
        _prune,
        _prune_arguments,
        "Example: `nixfront prune --days 90 --dry-run`. The registry has to allow deletes (storage.delete.enabled). Space is "
        "free after its own garbage collection: `registry garbage-collect CONFIG`.",
    ),
    Command(
        "reindex",
        "learn from the registry what is in it",
        "Make anew what nixfront remembers, from the images in the registry: which tags are its own, and which layers are there.",
        _reindex,
        example="Nothing depends on it: what is not remembered costs time. A layer is taken over only where this host has its store "
        "paths and packs them to the same bytes, and a tag only where the image is as nixfront made it and its labels name "
        "this repository and tag; of tags that move, `latest` and the `ref` of the settings.",
    ),
)
