"""An index from the images of its platforms, with everything in memory but the store."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typing_extensions import override

from proxy.core.errors import BuildFailed, DigestLost, PackageRefused, PackageUnknown, StoreFull
from proxy.core.events import BuildEnded, Event, LayersReady, LayerStored, PlatformEnded
from proxy.core.model import OCI_INDEX, OCI_MANIFEST, Preset
from proxy.pipeline.destination import MemoryDestination
from proxy.pipeline.platforms import LayerSum
from tests.support.workshop import Workshop, request, workshop

AMD, ARM = "x86_64-linux", "aarch64-linux"
NOT_FOR_ARM = PackageRefused("a-1.0 is not made for this system")


class Order(MemoryDestination):
    """A destination that writes down the manifests that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []

    @override
    async def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> bool:
        is_listed = await super().put_manifest(repository, reference, media_type, data)
        self.references.append(reference)
        return is_listed


@pytest_asyncio.fixture
async def order() -> Order:
    return Order()


@pytest_asyncio.fixture
async def made(tmp_path: Path, order: Order) -> AsyncIterator[Workshop]:
    async with workshop(tmp_path, order, platforms=(AMD, ARM)) as open_workshop:
        yield open_workshop


async def index(made: Workshop, repository: str, reference: str = "latest") -> dict[str, Any]:
    data = await made.destination.manifest(repository, reference)
    assert data is not None
    document: dict[str, Any] = json.loads(data)
    assert document["mediaType"] == OCI_INDEX
    return document


async def test_the_manifests_come_before_the_index_and_the_tag_of_the_request_last(
    made: Workshop, order: Order
) -> None:
    await made.pipeline.make(request("a", "b"))

    children = [each["digest"] for each in (await index(made, "a/b"))["manifests"]]
    assert sorted(order.references[:2]) == sorted(children)
    assert order.references[-1] == "latest"
    assert len(order.references) == 2 + 3
    digest = order.tags("a/b")["latest"]
    assert set(order.tags("a/b").values()) == {digest}
    platforms = [each["platform"] for each in (await index(made, "a/b"))["manifests"]]
    assert [each["architecture"] for each in platforms] == ["amd64", "arm64"]
    stored = [e.how for e in made.events if isinstance(e, LayerStored)]
    assert stored.count("packed") == 2, "each layer once"
    assert {*stored} <= {"packed", "present"}, "the platform that comes second finds it or waits for it"
    assert [e.digest for e in made.events if isinstance(e, BuildEnded)] == [digest]
    # Children have records too, so that they are ours: `prune` sees them, and a digest heals.
    assert {record.digest async for record in made.state.images()} == {digest, *children}
    record = await made.state.recall_tag("a/b", "latest")
    assert record is not None
    assert record.key == await made.pipeline.key(request("a", "b"))


async def test_an_index_and_each_manifest_of_it_heal(made: Workshop, order: Order, tmp_path: Path) -> None:
    await made.pipeline.make(request("a"))
    digest = order.tags("a")["latest"]
    amd, arm = (each["digest"] for each in (await index(made, "a"))["manifests"])
    empty = Order()

    async with workshop(tmp_path, empty, platforms=(AMD, ARM)) as again:
        await again.pipeline.make(replace(request("a"), digest=arm))
        assert empty.references == [arm]
        record = await again.state.recall_image("a", arm)
        assert record is not None
        assert (record.revision, bool(record.settings)) == ("0123", True), "it is ours, and how it was made"
        await again.pipeline.make(replace(request("a"), digest=digest))
        with pytest.raises(DigestLost, match="makes another image"):
            await again.pipeline.make(replace(request("a"), digest="sha256:" + "0" * 64))

    assert empty.references == [arm, amd, arm, digest]
    assert empty.tags("a") == {}


async def test_a_prefix_gives_the_very_manifest_of_the_index(made: Workshop, order: Order) -> None:
    await made.pipeline.make(request("a"))
    await made.pipeline.make(replace(request("a", repository="arm64/a"), preset=Preset(system=ARM)))

    alone = await order.manifest("arm64/a", "latest")
    assert alone is not None
    assert json.loads(alone)["mediaType"] == OCI_MANIFEST
    assert order.tags("arm64/a")["latest"] == (await index(made, "a"))["manifests"][1]["digest"]


async def test_a_missing_platform_is_left_out(made: Workshop) -> None:
    made.contents.errors[ARM] = NOT_FOR_ARM
    await made.pipeline.make(request("a"))

    document = await index(made, "a")
    assert [each["platform"]["architecture"] for each in document["manifests"]] == ["amd64"]
    assert json.loads(document["annotations"]["nixfront.missing"]) == {"linux/arm64": str(NOT_FOR_ARM)}
    ended = {(e.platform, e.outcome, e.error) for e in made.events if isinstance(e, PlatformEnded)}
    assert ended == {
        ("linux/amd64", "made", ""),
        ("linux/arm64", "PackageRefused", str(NOT_FOR_ARM)),
    }
    record = await made.state.recall_tag("a", "latest")
    assert record is not None
    assert record.key == await made.pipeline.key(request("a")), "it would be the same again"


async def test_a_platform_whose_build_failed_is_due_again(made: Workshop) -> None:
    made.contents.errors[ARM] = BuildFailed("building a-1.0 failed: some log")
    await made.pipeline.make(request("a"))

    before = await made.state.recall_tag("a", "latest")
    assert before is not None
    assert "some log" not in str(await index(made, "a")), "a log is no function of the set"
    assert before.key != await made.pipeline.key(request("a"))

    made.contents.errors.clear()
    await made.pipeline.make(request("a"), before)
    assert len((await index(made, "a"))["manifests"]) == 2


@pytest.mark.parametrize(
    ("amd", "arm", "message"),
    [
        (NOT_FOR_ARM, NOT_FOR_ARM, "a-1.0 is not made for this system"),
        (
            PackageUnknown("no package a, did you mean b? (package set s of 9 packages)"),
            PackageUnknown("no package a (package set s)"),
            "no package a, did you mean b? (package set s of 9 packages)",
        ),
        (NOT_FOR_ARM, BuildFailed("it fails"), f"for linux/amd64: {NOT_FOR_ARM}; for linux/arm64: it fails"),
    ],
)
async def test_no_platform_at_all_is_the_error_of_the_first(
    made: Workshop, amd: Exception, arm: Exception, message: str
) -> None:
    made.contents.errors = {AMD: amd, ARM: arm}

    with pytest.raises(type(amd)) as failed:
        await made.pipeline.make(request("a"))
    assert str(failed.value) == message
    assert made.destination.tags("a") == {}


async def test_an_index_that_may_be_whole_another_day_has_no_tag_that_never_moves(
    made: Workshop, order: Order
) -> None:
    made.contents.errors[ARM] = BuildFailed("a binary cache is away")
    await made.pipeline.make(request("a"))
    await made.pipeline.make(request("a", tag="0" * 40))
    assert set(order.tags("a")) == {"latest", "0" * 40}
    record = await made.state.recall_tag("a", "0" * 40)
    assert record is not None
    assert record.moving, "who asks for a revision gets what there is, and the rest later"
    assert record.key != await made.pipeline.key(request("a", tag="0" * 40))

    made.contents.errors.clear()
    await made.pipeline.make(request("a", tag="0" * 40), record)
    whole = order.tags("a")["0" * 40]
    assert len((await index(made, "a", whole))["manifests"]) == 2
    assert {tag for tag, digest in order.tags("a").items() if digest == whole} == {
        "0" * 40,
        "revision-0123",
        *(tag for tag in order.tags("a") if tag.startswith("contents-")),
    }
    assert [tag.partition("-")[0] for tag in order.tags("a")].count("contents") == 1

    # One that is wrong for good is no reason to wait.
    made.contents.errors[ARM] = NOT_FOR_ARM
    await made.pipeline.make(request("b"))
    assert "revision-0123" in order.tags("b")


async def test_an_error_of_this_host_ends_the_build_of_all(made: Workshop, order: Order) -> None:
    made.contents.errors[ARM] = StoreFull("the disk is full")

    with pytest.raises(StoreFull):
        await made.pipeline.make(request("a"))
    assert order.references == [], "an index that lacks a platform for a moment would stay"


async def test_layers_are_counted_together_as_soon_as_all_are_known() -> None:
    seen: list[Event] = []
    layers = LayerSum(seen.append, (AMD, ARM, "riscv64-linux"))

    layers.sink(AMD)(LayersReady("a", "latest", 0, 3))
    layers.sink(AMD)(LayersReady("a", "latest", 2, 3))
    layers.sink(ARM)(LayersReady("a", "latest", 0, 4))
    assert seen == [], "one platform is still being built"
    layers.leave_out("riscv64-linux")
    layers.sink(ARM)(LayersReady("a", "latest", 4, 4))

    assert seen == [LayersReady("a", "latest", 2, 7), LayersReady("a", "latest", 6, 7)]
