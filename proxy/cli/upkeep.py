"""The subcommands for the keeper of a registry: `warm`, `prune`, `reindex`."""

import argparse
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from proxy.cli.command import NO_CATALOG, Bar, Command, Console, image_name, positive

if TYPE_CHECKING:
    from proxy.settings import Settings
    from proxy.upkeep.attest.lacking import Result
    from proxy.upkeep.prune import Old
    from proxy.upkeep.warm import Outcome

_DAY = 86_400.0  # seconds
_MOST_NAMES = 20


def _warm(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for each image; exit code 1 where a pull failed."""
    from proxy.cli.running import run
    from proxy.registry.endpoint import Endpoint
    from proxy.upkeep import warm
    from proxy.wiring import registry

    with sys.stdin if arguments.file == "-" else open(arguments.file, encoding="utf-8") as lines:  # noqa: PTH123 - Path cannot be stdin
        images = warm.read(lines, settings.own_hosts)
    nixfront = Endpoint(arguments.url) if arguments.url else registry.nixfront_endpoint(settings)
    outcomes: dict[str, Outcome] = {}

    async def pull_all(bar: Bar) -> None:
        async for image in warm.warm(nixfront, images, arguments.at_once):
            outcomes[image.name] = image
            bar.show(image.name, len(outcomes), len(images))
            if image.error:
                console.complain(f"{image.name}: {image.error}")
            else:
                console.line(f"{image.name}  {image.digest}")

    with console.progress("pulling") as bar:
        run(pull_all(bar))
    console.document([asdict(outcomes[f"{repository}:{tag}"]) for repository, tag in images])
    return 1 if any(image.error for image in outcomes.values()) else 0


def _warm_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a NAME[:TAG] a line; # begins a comment; - for standard input"
    )
    parser.add_argument(
        "--url",
        default="",
        metavar="URL",
        help="the nixfront to pull from, without credentials (default: the one at http.addr, as nixfront's own user)",
    )
    parser.add_argument(
        "--at-once",
        type=positive,
        default=4,
        metavar="N",
        help="how many images to pull at once (default: 4)",
    )


def _prune(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for each old image, delete those that may go, and say which are gone."""
    from proxy.cli.running import run
    from proxy.web.page.views import size

    old_images, freed = run(_old_images(settings, time.time() - arguments.days * _DAY))
    gone = [old for old in old_images if not old.kept]
    for old in old_images:
        console.line(_line("stays" if old.kept else "would go", old))
    if gone:
        needs = "nobody knows which of their layers others need"
        if freed is not None:
            needs = f"no other image needs {size(freed)} of their layers"
        console.line(f"{len(gone)} of these {len(old_images)} can go; {needs}")
    else:
        console.line("nothing to delete")
    agreed = gone and not arguments.dry_run and (arguments.yes or console.agrees("Delete them?"))
    results = run(_delete(settings, gone, keep_records=arguments.keep_records)) if agreed else []
    for old in results:
        console.line(_line("stays" if old.kept else "is gone", old))
    ended = {(old.repository, old.digest): old for old in results}
    latest = [ended.get((old.repository, old.digest), old) for old in old_images]
    console.document([_report(old, gone=old in results and not old.kept) for old in latest])
    if agreed or arguments.dry_run or not gone or console.can_ask:
        return 0
    console.complain("nothing is deleted; with --yes nixfront deletes without a question")
    return 2


async def _old_images(settings: "Settings", before: float) -> tuple[list["Old"], int | None]:
    """The images that were last used before this time, and the bytes that those free which may go."""
    from proxy.wiring import commands

    async with commands.pruner(settings) as pruner:
        old_images = await pruner.old(before)
        gone = [old for old in old_images if not old.kept]
        return old_images, await pruner.frees(gone) if gone else 0


async def _delete(settings: "Settings", images: list["Old"], *, keep_records: bool) -> list["Old"]:
    """What became of each: somebody may just have pushed what needs one."""
    from proxy.wiring import commands

    async with commands.pruner(settings) as pruner:
        return [await pruner.prune(old, keep_record=keep_records) for old in images]


def _line(verb: str, old: "Old") -> str:
    names = " ".join(f"{old.repository}:{tag}" for tag in old.tags) or f"{old.repository} (no tag)"
    used = datetime.fromtimestamp(old.used, tz=UTC)
    return f"{verb:<8}  {used:%Y-%m-%d}  {old.digest}  {names}" + (f": {old.kept}" if old.kept else "")


def _report(old: "Old", *, gone: bool) -> dict[str, object]:
    return {**asdict(old), "used": datetime.fromtimestamp(old.used, tz=UTC).isoformat(), "gone": gone}


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days",
        type=_days,
        default=30.0,
        metavar="N",
        help="delete images that nobody pulled for so many days (default: 30)",
    )
    parser.add_argument(
        "--keep-records",
        action="store_true",
        help="keep how each image was made: who pulls its digest later gets it again, if it can still be made",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be deleted, and delete nothing"
    )
    parser.add_argument("--yes", action="store_true", help="delete without a question")


def _reindex(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Print the summary."""
    from proxy.cli.running import run
    from proxy.wiring import commands

    names = [image_name(name, settings)[0] for name in arguments.names]
    with console.progress("reading the registry"):
        summary = run(commands.reindex(settings, names))
    if not summary.is_whole:
        console.complain(f"{NO_CATALOG}; name those: nixfront reindex NAME")
    attached = _attach(settings, names, console) if arguments.attach else []
    console.document({**asdict(summary), "attached": [asdict(image) for image in attached]})
    console.line(f"{summary.tags} tags, {summary.ours} of them are ours")
    console.line(f"{summary.layers} layers recorded; this host cannot make {summary.unproved} more by itself")
    for name in summary.strangers[:_MOST_NAMES]:
        console.line(f"an image of ours under a tag that is not ours: {name}")
    if (more := len(summary.strangers) - _MOST_NAMES) > 0:
        console.line(f"and {more} more")
    return 1 if any(image.error for image in attached) else 0


def _attach(settings: "Settings", names: list[str], console: Console) -> list["Result"]:
    """Attach documents to the images that lack them, and print a line for each."""
    from proxy.cli.running import run
    from proxy.telemetry import log
    from proxy.wiring import commands, verification

    log.configure("warning", "json" if console.as_json else settings.log.format)
    done: list[Result] = []

    async def attach_all(bar: Bar) -> None:
        async with verification.attacher(settings) as attacher, commands.listing(settings, names) as listing:
            async for image in attacher.all(listing.images):
                done.append(image)
                bar.show(image.name, len(done))
                console.line(
                    f"{'no documents' if image.error else 'attached':<12}  {image.name}  {image.error}".rstrip()
                )

    with console.progress("attaching documents") as bar:
        run(attach_all(bar))
    return done


def _reindex_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a repository to read (default: all of the registry's catalog; without one, those in nixfront's records)",
    )
    parser.add_argument(
        "--attach",
        action="store_true",
        help="also attach documents to images that lack them: each of these is made again, which may take long",
    )


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days")
    return days


COMMANDS = (
    Command(
        "warm",
        "make images before anybody pulls them",
        "Pull every image of a list from the nixfront that runs. It builds those that are missing.",
        _warm,
        _warm_arguments,
        "Example: `nixfront warm /etc/nixfront/warm`, run by a timer some minutes after packages.time_to_live has passed. "
        "As any pull does, it renews moving tags that are due.",
    ),
    Command(
        "prune",
        "delete images that nobody pulls",
        "Delete images that nixfront made and that nobody pulled for some days. An image stays if a tag that somebody "
        "pushed names it, or if an index needs it. nixfront writes down half a minute late when an image was pulled.",
        _prune,
        _prune_arguments,
        "Example: `nixfront prune --days 90 --dry-run`. On a terminal it asks before it deletes; elsewhere it needs --yes. "
        "The registry has to allow deletes (storage.delete.enabled). Its own "
        "garbage collection then frees the space: `registry garbage-collect CONFIG`.",
    ),
    Command(
        "reindex",
        "rebuild nixfront's records from the registry",
        "Read the images in the registry, and record which tags are nixfront's own and which layers are there.",
        _reindex,
        _reindex_arguments,
        "Run it after the state was lost. Without records tags do not move, `prune` deletes nothing, and layers are packed "
        "again. It records a layer only where this host has its store paths and packs them to the same bytes. It records a "
        "tag only where the image is as nixfront made it and its labels name this repository and tag; of moving tags, only "
        "`latest` and the `ref` of the settings.",
    ),
)
