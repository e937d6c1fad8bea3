"""A pipeline with everything in memory: order of the writes, whose tag it is, what is shared, what an error leaves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from typing_extensions import override

from proxy.core.errors import BuildFailed, PackageUnknown, PackageUnusable, RegistryRefused, Unforeseen
from proxy.core.events import BuildEnded, BuildStarted, LayersReady, LayerStored
from proxy.core.model import OCI_MANIFEST, BlobStream, ImageRequest, Preset, digest_of
from proxy.pipeline.destination import MemoryDestination
from proxy.state import TagRecord
from tests.support.destinations import CONFIG, manifest
from tests.support.wait import until
from tests.support.workshop import Workshop, request, workshop


class Ledger(MemoryDestination):
    """A destination that writes down its writes, and its looks for blobs; `slow` uploads wait for `go`, `late` ones at their end."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.looks = 0
        self.refuse: set[int] = set()
        self.slow: set[int] = set()
        self.late: set[int] = set()
        self.go = asyncio.Event()

    @override
    async def upload(self, repository: str, stream: BlobStream) -> None:
        number = len(self.writes)
        self.writes.append("blob")
        if number in self.slow:
            await self.go.wait()
        if number in self.refuse:
            raise RegistryRefused("PATCH", "/v2/", 403, "no")
        await super().upload(repository, stream)
        if number in self.late:
            await self.go.wait()

    @override
    async def has_blob(self, repository: str, digest: str) -> bool:
        self.looks += 1
        return await super().has_blob(repository, digest)

    @override
    async def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> bool:
        is_listed = await super().put_manifest(repository, reference, media_type, data)
        self.writes.append(reference)
        return is_listed


@pytest_asyncio.fixture
async def ledger() -> Ledger:
    return Ledger()


@pytest_asyncio.fixture
async def made(tmp_path: Path, ledger: Ledger) -> AsyncIterator[Workshop]:
    async with workshop(tmp_path, ledger) as open_workshop:
        yield open_workshop


async def person_pushes(destination: MemoryDestination, repository: str, tag: str) -> str:
    """The digest of an image that is not ours, which the tag names now."""
    await MemoryDestination.put_blob(destination, repository, CONFIG)
    await MemoryDestination.put_manifest(destination, repository, tag, OCI_MANIFEST, manifest("a person's"))
    return digest_of(manifest("a person's"))


async def test_blobs_come_first_and_the_tag_of_the_request_last(made: Workshop, ledger: Ledger) -> None:
    await made.pipeline.make(request("a", "b"))

    assert ledger.writes[:4] == ["blob"] * 4, "two layers, the root layer, the configuration"
    assert ledger.writes[-1] == "latest"
    assert len(ledger.writes) == 4 + 3
    assert len(set(ledger.tags("a/b").values())) == 1
    record = await made.state.recall_tag("a/b", "latest")
    assert record is not None
    assert (record.digest, record.moving) == (ledger.tags("a/b")["latest"], True)
    assert [event.ready for event in made.events if isinstance(event, LayersReady)] == [0, 1, 2, 3]
    ended = [event for event in made.events if isinstance(event, BuildEnded)]
    assert [event.digest for event in ended] == [record.digest]
    assert [stage for stage, _ in ended[0].seconds] == ["set", "nix", "layers", "put"]


async def test_what_a_person_pushed_during_the_build_stays(made: Workshop, ledger: Ledger) -> None:
    made.contents.go.clear()
    build = asyncio.create_task(made.pipeline.make(request("a")))
    while not made.contents.opened:
        await asyncio.sleep(0)
    digest = await person_pushes(ledger, "a", "latest")
    made.contents.go.set()
    await build

    assert ledger.tags("a")["latest"] == digest
    assert await made.state.recall_tag("a", "latest") is None
    assert "latest" not in ledger.writes


async def test_a_tag_of_ours_moves_on_refresh(made: Workshop, ledger: Ledger) -> None:
    await made.pipeline.make(request("a"))
    before = await made.state.recall_tag("a", "latest")
    assert before is not None
    made.contents.revision = "4567"
    assert await made.pipeline.key(request("a")) != before.key

    await made.pipeline.make(request("a"), before)

    after = await made.state.recall_tag("a", "latest")
    assert after is not None
    assert after.digest == ledger.tags("a")["latest"] != before.digest
    assert after.key == await made.pipeline.key(request("a"))
    assert ledger.tags("a")["revision-0123"] == before.digest, "a revision never means another image"


async def test_a_short_tag_of_another_revision_stays_and_the_longer_one_is_put(
    made: Workshop, ledger: Ledger
) -> None:
    one, other = (f"{'ab' * 6}{digit * 28}" for digit in "01")
    made.contents.revision = one
    await made.pipeline.make(request("a", tag="one"))
    assert one not in ledger.tags("a"), "the short one is enough"
    made.contents.revision = other

    await made.pipeline.make(request("a", tag="other"))

    tags = ledger.tags("a")
    assert tags["revision-" + "ab" * 6] == tags["one"] != tags["other"]
    assert tags[other] == tags["other"]
    record = await made.state.recall_tag("a", other)
    assert record is not None
    assert (record.digest, record.moving) == (tags["other"], False)


async def test_a_tag_that_a_person_took_is_not_refreshed(made: Workshop, ledger: Ledger) -> None:
    await made.pipeline.make(request("a"))
    record = await made.state.recall_tag("a", "latest")
    digest = await person_pushes(ledger, "a", "latest")
    made.contents.revision = "4567"

    await made.pipeline.make(request("a"), record)

    assert ledger.tags("a")["latest"] == digest
    assert await made.state.recall_tag("a", "latest") is None


async def test_two_tags_of_one_content_are_built_once(made: Workshop, ledger: Ledger) -> None:
    made.contents.go.clear()
    builds = [asyncio.create_task(made.pipeline.make(request(*names))) for names in (("a", "b"), ("b", "a"))]
    while made.count(BuildStarted) < 2:
        await asyncio.sleep(0)
    made.contents.go.set()
    await asyncio.gather(*builds)

    assert (made.contents.opened, made.contents.closed) == (1, 1)
    assert "latest" in ledger.tags("a/b")
    assert "latest" in ledger.tags("b/a")


async def test_an_image_that_is_there_costs_a_look_for_each_blob(made: Workshop, ledger: Ledger) -> None:
    await made.pipeline.make(request("a", "b"))
    ledger.writes.clear()
    ledger.looks = 0

    await made.pipeline.make(request("a", "b", tag="other"))

    assert ledger.looks == 4, "two layers, the root layer, the configuration"
    assert ledger.writes == ["other"]


async def test_known_layers_are_mounted_and_only_root_and_configuration_sent(
    made: Workshop, ledger: Ledger
) -> None:
    await made.pipeline.make(request("a", "b"))
    ledger.writes.clear()
    made.events.clear()

    await made.pipeline.make(request("b", "a"))

    assert [event.how for event in made.events if isinstance(event, LayerStored)] == ["mounted", "mounted"]
    assert ledger.writes.count("blob") == 2
    assert ledger.tags("b/a")["latest"] in ledger._manifests["b/a"]


async def test_what_cannot_be_an_image_sends_nothing(made: Workshop, ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "nix/store/single-1.0"
    file.write_text("a file and no program")

    with pytest.raises(Exception, match="single file"):
        await made.pipeline.make(request("a", "single"))

    assert ledger.writes == []
    assert made.contents.closed == 1


async def test_the_configuration_does_not_wait_until_layers_are_sent(made: Workshop, ledger: Ledger) -> None:
    ledger.late = {0}
    build = asyncio.create_task(made.pipeline.make(request("a")))

    await until(lambda: len(ledger.writes) == 3)  # the layer, the root layer, the configuration
    ledger.go.set()
    await build

    assert len(ledger.writes) == 3 + 3, "the configuration was right"


async def test_tags_are_recorded_in_one_step_before_any_of_them_is_put(
    made: Workshop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[list[str]] = []
    record = made.state.record_tag

    async def seen(*records: TagRecord) -> None:
        assert not ledger.tags("a")
        steps.append([each.tag for each in records])
        await record(*records)

    monkeypatch.setattr(made.state, "record_tag", seen)
    await made.pipeline.make(request("a"))

    assert [len(step) for step in steps] == [3]
    assert set(steps[0]) == set(ledger.tags("a"))


async def test_a_push_after_the_look_at_all_tags_stays(
    made: Workshop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, record = manifest("theirs"), made.state.record_tag

    async def pushed_meanwhile(*records: TagRecord) -> None:
        await ledger.put_blob("a", CONFIG)
        await ledger.put_manifest("a", "latest", OCI_MANIFEST, theirs)
        await record(*records)

    monkeypatch.setattr(made.state, "record_tag", pushed_meanwhile)
    await made.pipeline.make(request("a"))

    assert ledger.tags("a")["latest"] == digest_of(theirs)
    assert await made.state.recall_tag("a", "latest") is None, "it is not ours"


async def test_a_tag_that_another_machine_puts_meanwhile_for_the_same_image_stays_ours(
    made: Workshop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = ledger.manifest_digest
    looks = 0

    async def put_meanwhile(repository: str, reference: str) -> str | None:
        nonlocal looks
        looks += reference == "latest"
        if (reference, looks) != ("latest", 2):
            return await look(repository, reference)
        record = await made.state.recall_tag(repository, reference)
        assert record is not None
        return record.digest

    monkeypatch.setattr(ledger, "manifest_digest", put_meanwhile)
    await made.pipeline.make(request("a"))

    assert looks == 2
    record = await made.state.recall_tag("a", "latest")
    assert record is not None
    assert record.digest in ledger.tags("a").values()


async def test_packing_has_ended_before_the_store_paths_may_go(made: Workshop, ledger: Ledger) -> None:
    ledger.refuse, ledger.slow = {0}, {1}
    build = asyncio.create_task(made.pipeline.make(request("a", "b")))
    while len(ledger.writes) < 2:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert made.contents.closed == 0, "the second layer is still being packed"
    ledger.go.set()

    with pytest.raises(RegistryRefused):
        await build
    assert made.contents.closed == 1
    assert ledger.tags("a/b") == {}


async def test_a_build_that_is_cancelled_lets_the_content_go(made: Workshop, ledger: Ledger) -> None:
    ledger.slow = {0}
    build = asyncio.create_task(made.pipeline.make(request("a")))
    while not ledger.writes:
        await asyncio.sleep(0)
    build.cancel()

    with pytest.raises(asyncio.CancelledError):
        await build
    assert made.contents.closed == 1
    assert made.publisher._packing.keys == (), "nothing reads the store that was let go"
    assert ledger.tags("a") == {}
    ledger.slow = set()
    ledger.go.set()
    await made.pipeline.make(request("a"))
    assert "latest" in ledger.tags("a")


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (BuildFailed("building a failed"), BuildFailed, "building a failed"),
        (OSError(28, "No space left on device"), Unforeseen, r"nixfront failed \(OSError\)"),
    ],
)
async def test_an_error_ends_the_build_and_is_told(
    made: Workshop, error: Exception, outcome: type[Exception], message: str
) -> None:
    made.contents.error = error

    with pytest.raises(outcome, match=message):
        await made.pipeline.make(request("a"))

    ended = [event for event in made.events if isinstance(event, BuildEnded)]
    assert [event.outcome for event in ended] == [outcome.__name__]


async def test_a_package_that_nobody_typed_is_explained(made: Workshop) -> None:
    made.contents.error = PackageUnknown("no package bash")
    shell = ImageRequest(
        "shell/a", "latest", ("bash", "a"), preset=Preset(packages=("bash",)), presets=("shell",)
    )

    with pytest.raises(PackageUnknown, match="no package bash; shell in front stands for bash"):
        await made.pipeline.make(shell)


async def test_a_meta_package_behind_a_package_is_explained(made: Workshop) -> None:
    made.contents.error = PackageUnknown("no package shell, did you mean hello?")
    hints = (("shell", "shell is a meta-package and comes first: shell/a"), ("she", "never"))
    late = ImageRequest("a/shell", "latest", ("a", "shell"), hints=hints)

    message = r"^shell is a meta-package and comes first: shell/a \(no package shell, did you mean hello\?\)$"
    with pytest.raises(PackageUnknown, match=message):
        await made.pipeline.make(late)


@pytest.mark.parametrize("place", [".wh.a", "share/deep/.wh..wh..opq"])
async def test_a_name_that_no_layer_can_hold_sends_nothing(
    made: Workshop, ledger: Ledger, tmp_path: Path, place: str
) -> None:
    file = tmp_path / "nix/store/a-1.0" / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

    with pytest.raises(PackageUnusable, match=r"no image can hold the file /.*\.wh\."):
        await made.pipeline.make(request("a", "b"))

    assert ledger.writes == []
