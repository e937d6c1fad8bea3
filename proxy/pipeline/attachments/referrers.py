"""The manifests that refer to an image by their `subject`: how a destination lists them, and how a list gets new ones.

distribution-spec, "Listing Referrers": a registry with that API lists them by itself. For one that lacks it, as the stock
registry does, the client keeps the list: an index under the tag `sha256-<hex>` ("Referrers Tag Schema"). Whoever attaches
something reads this index, adds a descriptor, and writes it again. A registry has no conditional put, so the caller holds a `lease`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from proxy.core import foreign
from proxy.core.errors import RegistryUnavailable
from proxy.core.foreign import DocumentInvalid, to_list, to_object, to_text
from proxy.core.model import OCI_INDEX, canonical_json
from proxy.core.names import referrers_tag
from proxy.image.documents import is_digest
from proxy.pipeline.destination import Destination
from proxy.state import State
from proxy.trust.kinds import KINDS, Kind, kind_of

_MOST = 4096  # referrers of one image
_LEASE = 30.0  # seconds in which the list of one image is read and written
_MARGIN = 5.0  # seconds of it that nobody uses
_LOOK = 0.2  # seconds between two tries to get that lease

#: A descriptor as its writer wrote it: fields that nixfront does not know stay.
Entry = dict[str, Any]


async def listed(destination: Destination, repository: str, digest: str) -> list[Entry]:
    """The descriptors of what refers to this manifest. Raises `DocumentInvalid`, and what the destination raises."""
    data = await destination.referrers(repository, digest)
    if data is None:
        return await tagged(destination, repository, digest)
    return await asyncio.to_thread(_entries, data)


async def lacking(destination: Destination, repository: str, digest: str) -> tuple[Kind, ...]:
    """The kinds of documents of ours that this image lacks. Raises as `listed` does."""
    there = ours(await listed(destination, repository, digest))
    return tuple(kind for name, kind in KINDS.items() if name not in there)


async def tagged(destination: Destination, repository: str, digest: str) -> list[Entry]:
    """The descriptors in the index under the tag. Raises as `listed` does."""
    data = await destination.manifest(repository, referrers_tag(digest))
    return [] if data is None else await asyncio.to_thread(_entries, data)


@asynccontextmanager
async def lease(state: State, repository: str, digest: str) -> AsyncIterator[None]:
    """The right to read and write the list of this image, for all who share the state.

    The context ends before the lease does, with `RegistryUnavailable`: another one may read and write the list after it.
    """
    key, holder = f"referrers {repository}@{digest}", secrets.token_hex(8)
    while not await state.take(key, holder, _LEASE):  # noqa: ASYNC110 - somebody else has it
        await asyncio.sleep(_LOOK)
    try:
        async with asyncio.timeout(_LEASE - _MARGIN):
            yield
    except TimeoutError as error:
        raise RegistryUnavailable("the registry takes too long for a list of referrers") from error
    finally:
        await state.release(key, holder)


async def add(
    destination: Destination,
    repository: str,
    digest: str,
    new: Sequence[Entry],
    write: AbstractContextManager[None],
) -> None:
    """Add these to the index under the tag; all that is in it stays. `write` is open while the index is put.

    Raises as `listed` does.
    """
    there = await tagged(destination, repository, digest)
    digests = {entry["digest"] for entry in there}
    if merged := [entry for entry in new if entry["digest"] not in digests]:
        with write:
            await put(destination, repository, digest, [*there, *merged])


async def put(destination: Destination, repository: str, digest: str, entries: Sequence[Entry]) -> None:
    """Write the index under the tag."""
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    await destination.put_manifest(repository, referrers_tag(digest), OCI_INDEX, canonical_json(document))


def ours(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The artifacts of nixfront among these, by kind of document, as their annotations claim."""
    kinds = ((_kind(entry), entry) for entry in entries)
    return {kind: entry for kind, entry in kinds if kind}


def claims_ours(entry: Entry) -> bool:
    """Whether this descriptor claims to be of an artifact of nixfront's."""
    return bool(_kind(entry))


def _kind(entry: Entry) -> str:
    return kind_of(to_object(entry.get("annotations"), "annotations"))


def _entries(data: bytes) -> list[Entry]:
    document = to_object(foreign.parse(data), "the index")
    if to_text(document.get("mediaType"), "mediaType") != OCI_INDEX:
        raise DocumentInvalid("the list of referrers is no OCI index")
    entries = [
        dict(to_object(item, "a referrer")) for item in to_list(document.get("manifests"), "manifests")
    ]
    if len(entries) > _MOST:
        raise DocumentInvalid(f"the image has more than {_MOST} referrers")
    for entry in entries:
        if not is_digest(entry.get("digest")):
            raise DocumentInvalid("a referrer has no digest")
        to_object(entry.get("annotations"), "annotations")
    return entries
