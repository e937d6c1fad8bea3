"""The cheapest way that brings a layer into a repository: it is there, it is mounted, it is packed."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio
from typing_extensions import override

from proxy.core.errors import PackageUnusable, RegistryRefused, RegistryUnavailable, StoreUnreadable
from proxy.core.events import Event, LayerStored
from proxy.core.model import BlobStream, LayerPlan
from proxy.image.tar import FILE, Entry, file
from proxy.pipeline import publish
from proxy.pipeline.contents.store_files import DiskFiles
from proxy.pipeline.destination import MemoryDestination
from proxy.pipeline.publish import LayerRecord, Publisher
from proxy.state.memory import MemoryState
from tests.support.workshop import publisher

PLAN = LayerPlan(("/nix/store/a",))


class Relay(MemoryDestination):
    """A destination that counts uploads, and fails the first ones with these errors."""

    def __init__(self, *errors: Exception, mounts: bool = True) -> None:
        super().__init__(mounts=mounts)
        self.errors = list(errors)
        self.uploads = 0
        self.looks = 0

    @override
    async def upload(self, repository: str, stream: BlobStream) -> None:
        self.uploads += 1
        if self.errors:
            raise self.errors.pop(0)
        await super().upload(repository, stream)

    @override
    async def has_blob(self, repository: str, digest: str) -> bool:
        self.looks += 1
        return await super().has_blob(repository, digest)


class Bench:
    """A publisher, and what it told; its store has the path of `PLAN`."""

    def __init__(self, folder: Path, executor: ThreadPoolExecutor) -> None:
        self.events: list[Event] = []
        self.state = MemoryState()
        self.folder = folder
        self.files = DiskFiles(str(folder))
        self.executor = executor

    def publisher(self, destination: MemoryDestination) -> Publisher:
        return publisher(destination, self.state, self.executor, self.events.append)

    @property
    def how(self) -> list[str]:
        return [event.how for event in self.events if isinstance(event, LayerStored)]


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    (tmp_path / "nix/store").mkdir(parents=True)
    (tmp_path / "nix/store/a").write_text("text")
    with ThreadPoolExecutor(2) as executor:
        yield Bench(tmp_path, executor)


async def test_a_layer_is_packed_then_present_then_mounted(bench: Bench) -> None:
    destination = Relay()
    work = bench.publisher(destination)
    (new,) = await work.recall("one", [PLAN])
    assert (new.layer, new.origins) == (None, ())

    layer = await work.layer("one", new, bench.files)
    (record,) = await work.recall("one", [PLAN])
    assert (record.layer, record.origins) == (layer, ("one",))
    assert await work.layer("one", record, bench.files) == layer
    (elsewhere,) = await work.recall("two", [PLAN])
    assert await work.layer("two", elsewhere, bench.files) == layer

    assert bench.how == ["packed", "present", "mounted"]
    assert destination.uploads == 1
    assert layer.digest in destination.blobs("two")


async def test_a_layer_that_cannot_be_mounted_is_packed_for_the_repository(bench: Bench) -> None:
    destination = Relay(mounts=False)
    work = bench.publisher(destination)
    (new,) = await work.recall("one", [PLAN])
    layer = await work.layer("one", new, bench.files)
    (record,) = await work.recall("two", [PLAN])

    assert await work.layer("two", record, bench.files) == layer
    assert bench.how == ["packed", "packed"]


async def test_a_record_that_is_wrong_is_forgotten(bench: Bench) -> None:
    destination = Relay()
    work = bench.publisher(destination)
    layer = await work.layer("one", (await work.recall("one", [PLAN]))[0], bench.files)
    destination.delete_blob("one", layer.digest)
    (record,) = await work.recall("one", [PLAN])
    assert record.origins == ("one",)

    assert await work.layer("one", record, bench.files) == layer
    assert bench.how == ["packed", "packed"]
    assert layer.digest in destination.blobs("one")


async def test_a_blob_that_somebody_else_put_is_not_sent_again(bench: Bench) -> None:
    destination = Relay()
    work = bench.publisher(destination)
    layer = await work.layer("one", (await work.recall("one", [PLAN]))[0], bench.files)

    assert await work.layer("one", LayerRecord(PLAN, "key", layer, ()), bench.files) == layer
    assert destination.uploads == 1


async def test_two_images_pack_a_new_layer_once(bench: Bench) -> None:
    destination = Relay()
    work = bench.publisher(destination)
    (record,) = await work.recall("one", [PLAN])

    one, two = await asyncio.gather(
        work.layer("one", record, bench.files), work.layer("two", record, bench.files)
    )

    assert one == two
    assert sorted(bench.how) == ["mounted", "packed"]
    assert destination.uploads == 1
    assert one.digest in destination.blobs("one")
    assert one.digest in destination.blobs("two")


async def test_an_image_that_recalled_its_records_before_another_packed_packs_nothing_again(
    bench: Bench,
) -> None:
    """Images of two platforms are made side by side."""
    destination = Relay()
    uploading = bench.publisher(destination)
    records = [(await uploading.recall("one", [PLAN]))[0] for _ in range(2)]

    layers = [await uploading.layer("one", record, bench.files) for record in records]

    assert layers[0] == layers[1]
    assert bench.how == ["packed", "present"]
    assert destination.uploads == 1


@pytest.mark.parametrize(
    "errors",
    [
        pytest.param([RegistryUnavailable("away")] * 3, id="no answer"),
        pytest.param([RegistryRefused("PATCH", "/v2/", 503, "busy")] * 2, id="busy"),
    ],
)
async def test_an_upload_that_breaks_off_is_made_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, errors: list[Exception]
) -> None:
    monkeypatch.setattr(publish, "_PAUSE", 0.0)
    destination = Relay(*errors)
    work = bench.publisher(destination)

    layer = await work.layer("one", (await work.recall("one", [PLAN]))[0], bench.files)

    assert layer.digest in destination.blobs("one")
    assert destination.uploads == len(errors) + 1


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (RegistryUnavailable("away"), 4),
        (RegistryRefused("PATCH", "/v2/", 503, "busy"), 3),
        (RegistryRefused("PATCH", "/v2/", 403, "no"), 1),
    ],
)
async def test_an_upload_is_tried_a_few_times_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    monkeypatch.setattr(publish, "_PAUSE", 0.0)
    destination = Relay(*[error] * 9)
    work = bench.publisher(destination)
    (record,) = await work.recall("one", [PLAN])

    with pytest.raises(type(error)):
        await work.layer("one", record, bench.files)

    assert destination.uploads == tries
    assert await work.recall("one", [PLAN]) == (record,), "nothing is recorded"


async def test_a_store_that_cannot_be_read_is_the_error_to_report(bench: Bench) -> None:
    work = bench.publisher(Relay())
    (record,) = await work.recall("one", [LayerPlan(("/nix/store/gone",))])

    with pytest.raises(StoreUnreadable, match="gone"):
        await work.layer("one", record, bench.files)


async def test_a_small_root_layer_is_sent_after_it_is_packed(bench: Bench) -> None:
    destination = Relay()
    work = bench.publisher(destination)

    root = await work.pack_root("one", [file("etc/passwd", b"root")])
    assert root.unsent
    assert destination.uploads == 0
    for _ in range(2):
        await work.root_layer("one", root, look=True)

    assert root.layer.digest in destination.blobs("one")
    assert (destination.uploads, destination.looks) == (1, 2)


async def test_a_root_layer_with_files_of_the_store_is_sent_while_it_is_packed(bench: Bench) -> None:
    destination = Relay()
    work = bench.publisher(destination)
    large = Entry("a", FILE, 0o444, source=str(bench.folder / "nix/store/a"), size=4)

    root = await work.pack_root("one", [large])
    await work.root_layer("one", root, look=False)

    assert root.unsent == b""
    assert root.layer.digest in destination.blobs("one")
    assert destination.uploads == 1


async def test_what_cannot_be_in_a_layer(bench: Bench) -> None:
    os.mkfifo(bench.folder / "nix/store/pipe")
    work = bench.publisher(Relay())
    (record,) = await work.recall("one", [LayerPlan(("/nix/store/pipe",))])

    with pytest.raises(PackageUnusable, match="neither a file"):
        await work.layer("one", record, bench.files)
