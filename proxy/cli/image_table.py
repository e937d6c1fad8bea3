"""The subcommand `images`: a table like that of `docker images`, with a line for each manifest."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from proxy.cli.command import NO_CATALOG, Console
from proxy.cli.running import run
from proxy.core.names import is_own_hash
from proxy.settings import Settings
from proxy.upkeep.inventory import StoredImage
from proxy.web.page.views import ago, iso, number, size
from proxy.wiring import commands

_COLUMNS = ("NAME", "TAGS", "PLATFORMS", "SIZE", "OWN", "CREATED", "PULLS", "PULLED", "FROM")
_EPOCH = "1980-01-01"  # the date of images whose packages have none
_UNKNOWN = "-"
_FROM = {True: "nixfront", False: "a push", None: _UNKNOWN}


def show(settings: Settings, console: Console) -> int:
    """Print the images of the registry."""
    with console.progress("reading the registry") as bar:
        listing = run(commands.stored_images(settings, bar.show))
    if not listing.is_whole:
        console.complain(NO_CATALOG)
    console.document([_document(image) for image in listing.images])
    if not listing.images:
        console.line("no images yet: docker pull makes them")
        return 0
    columns = _COLUMNS if listing.has_details else _COLUMNS[:2]
    now = time.time()
    console.table(columns, [_row(image, now)[: len(columns)] for image in listing.images])
    for image in listing.images:
        if image.trouble:
            reference = f"@{image.digest}" if image.digest else f":{image.tags[0]}"
            console.complain(f"{image.repository}{reference}: {image.trouble}")
    return 0


def _document(image: StoredImage) -> dict[str, object]:
    """All of it, with times as `created` has them; empty for never."""
    return {**asdict(image), "pulled": iso(image.pulled) if image.pulled else ""}


def _row(image: StoredImage, now: float) -> tuple[str, ...]:
    return (
        image.repository,
        _tags(image.tags),
        ",".join(image.platforms) or _UNKNOWN,
        size(image.size) if image.size else _UNKNOWN,
        size(image.own) if image.size else _UNKNOWN,
        _created(image.created, now),
        number(image.pulls) if image.ours else _UNKNOWN,
        ago(image.pulled, now) if image.pulled else _UNKNOWN,
        _FROM[image.ours],
    )


def _tags(tags: Sequence[str]) -> str:
    """The tags for people, and the count of those that are hashes."""
    named = [tag for tag in tags if not is_own_hash(tag)]
    fixed = len(tags) - len(named)
    return " ".join(named + ([f"+{fixed} fixed"] if fixed else []))


def _created(date: str, now: float) -> str:
    """How long ago; a dash for an image without a date."""
    if not date or date.startswith((_EPOCH, "1970-01-01")):
        return _UNKNOWN
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:  # a stranger pushed it
        return _UNKNOWN
    return ago((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), now)
