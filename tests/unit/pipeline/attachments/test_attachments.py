"""Documents come to an image after its manifest, once, and what others attached stays."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from proxy.core.errors import ProcessFailed, RegistryUnavailable
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json, digest_of
from proxy.core.names import referrers_tag
from proxy.pipeline import attachments as module
from proxy.pipeline.attachments import Attachments, referrers
from proxy.pipeline.attachments.maker import Maker
from proxy.pipeline.destination import MemoryDestination
from proxy.pipeline.oci_layout import OciLayout
from proxy.pipeline.tag_versions import TagVersions
from proxy.state import ImageRecord, State
from proxy.state.memory import MemoryState
from proxy.trust import record
from proxy.trust.kinds import KINDS
from tests.support.attested import check_documents
from tests.support.destinations import CONFIG, manifest
from tests.support.image_facts import FACTS
from tests.support.wait import until

IMAGE = manifest("an image")
DIGEST = digest_of(IMAGE)
OURS = replace(
    FACTS,
    request=replace(FACTS.request, repository="one"),
    manifest=Descriptor(OCI_MANIFEST, len(IMAGE), DIGEST),
)
#: A descriptor with fields that nixfront does not know.
PERSONS = {"mediaType": OCI_MANIFEST, "size": 7, "artifactType": "a/b", "urls": ["https://example.org"]}


async def with_image(destination: MemoryDestination) -> MemoryDestination:
    await destination.put_blob("one", CONFIG)
    await destination.put_manifest("one", "latest", OCI_MANIFEST, IMAGE)
    return destination


async def person_attaches(destination: MemoryDestination) -> dict[str, Any]:
    """The descriptor of an artifact of somebody else, which is in the list of the image's referrers now."""
    artifact = manifest("a person's")
    await destination.put_manifest("one", digest_of(artifact), OCI_MANIFEST, artifact)
    entry = {**PERSONS, "digest": digest_of(artifact)}
    await referrers.add(destination, "one", DIGEST, [entry], nullcontext())
    return entry


@asynccontextmanager
async def attachments(
    destination: MemoryDestination,
    folder: Path,
    versions: TagVersions | None = None,
    state: State | None = None,
) -> AsyncIterator[Attachments]:
    made = Attachments(
        destination, state or MemoryState(), versions or TagVersions(), folder, builder="urn:builder"
    )
    try:
        yield made
    finally:
        await made.close()


def promises(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


async def documents(destination: MemoryDestination) -> dict[str, bytes]:
    """The documents of the image by kind, as a client finds them."""
    found = {}
    for kind, entry in referrers.ours(await referrers.listed(destination, "one", DIGEST)).items():
        artifact = await destination.manifest("one", entry["digest"])
        assert artifact is not None
        found[kind] = destination.blobs("one")[json.loads(artifact)["layers"][0]["digest"]]
    return found


async def test_with_the_tag_of_referrers(tmp_path: Path) -> None:
    destination = await with_image(MemoryDestination())
    entry = await person_attaches(destination)
    versions = TagVersions()
    before = versions.of("one")

    async with attachments(destination, tmp_path, versions) as attaching:
        await attaching.promise(OURS)
        assert promises(tmp_path), "a promise, in case that nixfront is killed now"
        attaching.keep("one", [DIGEST, "sha256:index"])
        await attaching.settle()
        check_documents(await documents(destination), DIGEST)
        assert promises(tmp_path) == []
        tagged = await referrers.tagged(destination, "one", DIGEST)
        assert tagged[0] == entry, "what a person attached stays as it was"
        assert versions.of("one") != before, "caches learn of the new list"

        await attaching.promise(OURS)
        attaching.keep("one", [DIGEST])
        await attaching.settle()

    assert await referrers.tagged(destination, "one", DIGEST) == tagged
    assert len(tagged) == 1 + len(KINDS)
    assert len(destination.blobs("one")) == 1 + 1 + len(KINDS), "the image's, {} and one for each document"


async def test_with_the_api_of_referrers(tmp_path: Path) -> None:
    destination = await with_image(MemoryDestination(lists_referrers=True))
    async with attachments(destination, tmp_path) as attaching:
        await attaching.promise(OURS)
        attaching.keep("one", [DIGEST])
        await attaching.settle()

    assert set(await documents(destination)) == set(KINDS)
    assert set(destination.tags("one")) == {"latest"}, "the registry keeps the list, so no tag does"


async def test_an_image_that_is_not_there_gets_nothing(tmp_path: Path) -> None:
    destination = MemoryDestination()
    async with attachments(destination, tmp_path) as attaching:
        await attaching.promise(OURS)
        await attaching.resume()
        await attaching.settle()

    assert promises(tmp_path) == []
    assert dict(destination.blobs("one")) == {}


async def test_facts_that_cannot_be_written_cost_no_pull_and_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNTIL_ROOM", 0.01)
    destination, full = await with_image(MemoryDestination()), tmp_path / "full"
    async with attachments(destination, full) as attaching:
        await attaching.promise(OURS)
        attaching.keep("one", [DIGEST])
        await attaching.settle()
        assert set(destination.tags("one")) == {"latest"}

        await asyncio.to_thread(full.mkdir)
        await until(lambda: len(destination.tags("one")) > 1)
        await attaching.settle()
        assert set(await documents(destination)) == set(KINDS)
    assert promises(full) == []


class Away(MemoryDestination):
    """A registry that does not answer while it `is_away`."""

    is_away = True

    @override
    async def referrers(self, repository: str, digest: str) -> bytes | None:
        if self.is_away:
            raise RegistryUnavailable("away")
        return await super().referrers(repository, digest)


async def test_the_next_start_keeps_what_was_promised(tmp_path: Path) -> None:
    destination = Away()
    await with_image(destination)
    async with attachments(destination, tmp_path) as killed:
        await killed.promise(OURS)
        killed.keep("one", [DIGEST])
        await killed.settle()
    (tmp_path / "cut.json").write_bytes(record.write(OURS)[:100])
    assert await documents_of_nobody(destination)

    destination.is_away = False
    async with attachments(destination, tmp_path) as again:
        await again.resume()
        await again.settle()

    assert set(await documents(destination)) == set(KINDS)
    assert promises(tmp_path) == []


async def documents_of_nobody(destination: Away) -> bool:
    return referrers_tag(DIGEST) not in destination.tags("one")


async def test_a_tag_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    destination = await with_image(MemoryDestination())
    await destination.put_manifest("one", referrers_tag(DIGEST), OCI_MANIFEST, manifest("a person's"))
    async with attachments(destination, tmp_path) as attaching:
        await attaching.promise(OURS)
        attaching.keep("one", [DIGEST])
        await attaching.settle()

    assert destination.tags("one")[referrers_tag(DIGEST)] == digest_of(manifest("a person's"))
    assert promises(tmp_path) == []


async def test_two_machines_lose_nothing(tmp_path: Path) -> None:
    """Each reads the list, waits, and writes it: without the lease one of them would write over the other."""
    destination = await with_image(MemoryDestination())
    state = MemoryState()
    folders = [tmp_path / name for name in ("a", "b")]
    machines = [Attachments(destination, state, TagVersions(), folder, builder="urn:b") for folder in folders]
    for folder in folders:
        folder.mkdir()
        (folder / "x.json").write_bytes(record.write(OURS))
    await asyncio.gather(*(machine.resume() for machine in machines))
    await asyncio.gather(*(machine.settle() for machine in machines))
    await asyncio.gather(*(machine.close() for machine in machines))

    assert set(await documents(destination)) == set(KINDS)
    assert len(await referrers.tagged(destination, "one", DIGEST)) == len(KINDS)


async def test_the_state_says_what_is_due_until_it_is_attached(tmp_path: Path) -> None:
    destination, state = Away(), MemoryState()
    await with_image(destination)
    await state.record_image(ImageRecord("one", DIGEST, 1.0, due=1.0))

    async def due() -> bool:
        image = await state.recall_image("one", DIGEST)
        return image is not None and bool(image.due)

    async with attachments(destination, tmp_path, state=state) as attaching:
        await attaching.promise(OURS)
        attaching.keep("one", [DIGEST])
        await attaching.settle()
        assert await due(), "the registry is away"
        destination.is_away = False
        await attaching.resume()
        await attaching.settle()
        assert not await due()


async def test_a_folder_holds_the_documents_beside_the_image(tmp_path: Path) -> None:
    layout = OciLayout(tmp_path / "layout", "latest")
    await layout.put_blob("one", CONFIG)
    await layout.put_manifest("one", "latest", OCI_MANIFEST, IMAGE)
    (tmp_path / "promises").mkdir()
    made = Attachments(layout, MemoryState(), TagVersions(), tmp_path / "promises", builder="urn:b")
    await made.promise(OURS)
    made.keep("one", [DIGEST])
    await made.settle()
    await made.close()

    index = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    named = {item["annotations"]["org.opencontainers.image.ref.name"]: item["mediaType"] for item in index}
    assert named == {"latest": OCI_MANIFEST, referrers_tag(DIGEST): OCI_INDEX}
    assert set(referrers.ours(await referrers.listed(layout, "one", DIGEST))) == set(KINDS)


async def test_an_image_for_which_the_child_dies_costs_no_other_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = await with_image(MemoryDestination())
    other = manifest("another image")
    await destination.put_manifest("one", "other", OCI_MANIFEST, other)
    bad = replace(OURS, manifest=Descriptor(OCI_MANIFEST, len(other), digest_of(other)))
    real = Maker.documents

    async def dies(maker: Maker, files: Sequence[Path]) -> dict[str, dict[str, str]]:
        if bad_file in files:
            raise ProcessFailed("python", -9)
        return await real(maker, files)

    monkeypatch.setattr(Maker, "documents", dies)
    async with attachments(destination, tmp_path) as attaching:
        await attaching.promise(bad)
        (bad_file,) = promises(tmp_path)
        await attaching.promise(OURS)
        attaching.keep("one", [digest_of(other), DIGEST])
        await attaching.settle()

    assert set(await documents(destination)) == set(KINDS)
    assert promises(tmp_path) == [bad_file], "the next start tries it again"


async def test_a_list_is_written_while_the_lease_lasts_or_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the lease another machine may write the list: a late write would undo that."""

    class Slow(MemoryDestination):
        reads = 0

        @override
        async def manifest(self, repository: str, reference: str) -> bytes | None:
            if reference == referrers_tag(DIGEST):
                self.reads += 1
                if self.reads == 2:  # the one under the lease
                    await asyncio.Event().wait()
            return await super().manifest(repository, reference)

    monkeypatch.setattr(referrers, "_LEASE", 0.1)
    monkeypatch.setattr(referrers, "_MARGIN", 0.0)
    destination = Slow()
    await with_image(destination)
    async with attachments(destination, tmp_path) as attaching:
        await attaching.promise(OURS)
        attaching.keep("one", [DIGEST])
        await attaching.settle()
        assert destination.reads == 2
        assert len(promises(tmp_path)) == 1, "it tries again later"
        attaching.keep("one", [DIGEST])
        await attaching.settle()

    assert set(await documents(destination)) == set(KINDS)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": []}',
        canonical_json({"mediaType": OCI_INDEX, "manifests": [1]}),
        canonical_json({"mediaType": OCI_INDEX, "manifests": [{}]}),
        canonical_json({"mediaType": OCI_INDEX, "manifests": [{"digest": "x"}] * 5000}),
        canonical_json({"mediaType": OCI_INDEX, "manifests": 7}),
    ],
)
async def test_a_list_that_is_none_is_refused(text: bytes) -> None:
    class Stranger(MemoryDestination):
        @override
        async def referrers(self, repository: str, digest: str) -> bytes | None:
            return text

    with pytest.raises(DocumentInvalid):
        await referrers.listed(Stranger(), "one", DIGEST)
