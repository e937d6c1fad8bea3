"""A pull of an image whose documents are due: who makes them, when, how often, and what a pull costs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from typing_extensions import override

from proxy.builds import late_documents
from proxy.builds.coordinator import Coordinator
from proxy.builds.late_documents import LateDocuments
from proxy.core.errors import BuildFailed
from proxy.core.events import BuildStarted
from proxy.core.model import OCI_MANIFEST, Descriptor, digest_of
from proxy.core.names import Vocabulary
from proxy.pipeline.attachments import referrers
from proxy.pipeline.destination import MemoryDestination
from proxy.state import ImageRecord
from proxy.tools.fair_queue import FairQueue
from proxy.trust import kinds
from proxy.trust.kinds import KINDS
from tests.support.destinations import CONFIG, manifest
from tests.support.wait import until
from tests.support.workshop import Workshop, request, workshop


class Reads(MemoryDestination):
    """A destination that counts the questions for lists of referrers."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    @override
    async def referrers(self, repository: str, digest: str) -> bytes | None:
        self.reads += 1
        return await super().referrers(repository, digest)


@pytest_asyncio.fixture
async def made(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with workshop(tmp_path, Reads()) as open_workshop:
        yield open_workshop


def machine(made: Workshop, patience: float = 0.0) -> LateDocuments:
    queue = FairQueue(4, share=4, most_waiting=9, waiting_share=9)
    builds = Coordinator(
        made.pipeline,
        made.destination,
        made.state,
        queue,
        machine="one",
        lease_seconds=60,
        failure_seconds=60,
    )
    return LateDocuments(
        made.state, made.destination, builds, Vocabulary(), patience=patience, now=lambda: 1000.0
    )


async def settle(late: LateDocuments) -> None:
    await asyncio.gather(*late._looks)


async def image_with(made: Workshop, due: float) -> str:
    """The digest of an image of ours to which documents are due since then."""
    await made.pipeline.make(request("a"))
    digest = made.destination.tags("a")["latest"]
    await made.state.record_image(ImageRecord("a", digest, 1.0, revision="0" * 40, due=due))
    return digest


async def is_due(made: Workshop, digest: str) -> bool:
    record = await made.state.recall_image("a", digest)
    return record is not None and bool(record.due)


async def test_an_image_with_nothing_due_costs_nothing(made: Workshop) -> None:
    assert isinstance(made.destination, Reads)
    digest = await image_with(made, 0.0)
    late = machine(made)
    for _ in range(3):
        late.pulled("a", digest)
        late.pulled("a", digest_of(b"a person's"))
    await settle(late)

    assert made.count(BuildStarted) == 1
    assert made.destination.reads == 0


async def test_it_is_made_again_once_however_many_pull_it(made: Workshop) -> None:
    digest = await image_with(made, 1.0)
    late = machine(made)
    for _ in range(9):
        late.pulled("a", digest)
    await settle(late)

    assert made.count(BuildStarted) == 2
    assert made.destination.tags("a")["latest"] == digest


async def test_its_maker_has_some_time(made: Workshop) -> None:
    """It is at work: when it is done, the mark is gone, and nobody else begins."""
    digest = await image_with(made, 999.0)
    late = machine(made, patience=3600.0)
    late.pulled("a", digest)
    await asyncio.sleep(0)
    assert late._looks
    assert made.count(BuildStarted) == 1
    await late.close()

    late = machine(made, patience=0.01)
    late.pulled("a", digest)
    await made.state.record_attached("a", digest)
    await settle(late)
    assert made.count(BuildStarted) == 1


async def test_documents_that_are_there_are_not_made_again(made: Workshop) -> None:
    """Its maker was killed before it said so."""
    digest = await image_with(made, 1.0)
    await made.destination.put_blob("a", CONFIG)
    for name in KINDS:
        await made.destination.put_manifest("a", digest_of(manifest(name)), OCI_MANIFEST, manifest(name))
    entries = [
        kinds.entry(kind, Descriptor(OCI_MANIFEST, 1, digest_of(manifest(name))))
        for name, kind in KINDS.items()
    ]
    await referrers.put(made.destination, "a", digest, entries)
    late = machine(made)
    late.pulled("a", digest)
    await settle(late)

    assert not await is_due(made, digest)
    assert made.count(BuildStarted) == 1


async def test_who_cannot_make_it_says_so_and_pauses(
    made: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """Another machine may know more, so they stay due."""
    digest = await image_with(made, 1.0)
    made.contents.error = BuildFailed("its source is gone")
    late = machine(made)
    late.pulled("a", digest)
    await settle(late)

    assert await is_due(made, digest)
    assert "its source is gone" in caplog.text
    late.pulled("a", digest)
    assert not late._looks


async def test_no_more_looks_at_once_than_a_bound(made: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_documents, "_MOST_AT_ONCE", 2)
    late = machine(made)
    for number in range(9):
        late.pulled("a", digest_of(bytes([number])))
    assert len(late._looks) == 2
    await settle(late)
    late.pulled("a", digest_of(bytes([8])))
    assert len(late._looks) == 1, "it was not looked at before"
    await until(lambda: not late._looks)
