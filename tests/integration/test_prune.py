"""What prune deletes beside an image, on a real registry: what nixfront attached, and nothing that somebody else wrote there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from proxy.core.model import OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json, digest_of
from proxy.core.names import referrers_tag
from proxy.pipeline.attachments import referrers
from proxy.registry.client import Registry
from proxy.registry.endpoint import Endpoint
from proxy.registry.management import Management
from proxy.state import ImageRecord, TagRecord
from proxy.state.memory import MemoryState
from proxy.trust import kinds
from proxy.trust.signatures import OURS, PAYLOAD, SIGNATURE, Signatures, signature_tag
from proxy.upkeep.prune import Old, Pruner
from tests.support import handmade
from tests.support.destinations import CONFIG, manifest
from tests.support.servers import Server
from tests.support.shim import Rule, Status, shim

LAYERS = [handmade.tar(entries) for entries in handmade.store_layers()]


class Kept:
    """A registry and its keeper, with a state in memory."""

    def __init__(self, registry: Registry, management: Management) -> None:
        self.registry = registry
        self.management = management
        self.state = MemoryState()
        self.pruner = Pruner(registry, management, self.state)

    async def add(self, repository: str, layer: bytes) -> str:
        """An image of ours under `latest`."""
        made = handmade.image([layer])
        for blob in (made.config, *made.layers):
            await self.registry.put_blob(repository, blob)
        digest = digest_of(made.manifest)
        await self.registry.put_manifest(repository, "latest", made.media_type, made.manifest)
        await self.state.record_image(ImageRecord(repository, digest, 1.0))
        await self.state.record_tag(TagRecord(repository, "latest", digest, "key", 1.0))
        return digest

    async def put(self, data: bytes, reference: str = "", media_type: str = OCI_MANIFEST) -> str:
        """A manifest in the repository `one`, by default under its digest."""
        await self.registry.put_blob("one", CONFIG)
        await self.registry.put_manifest("one", reference or digest_of(data), media_type, data)
        return digest_of(data)

    async def document(self, subject: str, text: bytes = b"a document") -> dict[str, Any]:
        """A document as nixfront attaches it, whose line is not in the list yet."""
        made = kinds.artifact(kinds.SPDX, text, Descriptor(OCI_MANIFEST, 1, subject))
        for blob in (made.config, text):
            await self.registry.put_blob("one", blob)
        await self.put(made.manifest)
        return kinds.entry(kinds.SPDX, made.manifest_descriptor)

    async def has(self, digest: str) -> bool:
        return await self.registry.manifest_digest("one", digest) is not None

    async def prune(self) -> list[Old]:
        return [await self.pruner.prune(old) for old in await self.pruner.old(100.0) if not old.kept]


@asynccontextmanager
async def kept(url: str) -> AsyncIterator[Kept]:
    async with Endpoint(url).opened() as connection:
        yield Kept(Registry(connection), Management(connection))


def claim(digest: str, size: int = 1) -> dict[str, Any]:
    """A line of the list that says of any manifest that it is a document of ours."""
    return kinds.entry(kinds.CYCLONEDX, Descriptor(OCI_MANIFEST, size, digest))


async def test_a_line_in_the_list_is_no_proof(registry: Server) -> None:
    """Who may push lists the images of others as documents: nixfront would delete them with every tag of theirs."""
    async with kept(registry.url) as one:
        image = await one.add("one", LAYERS[0])
        own, tagged = await one.document(image), await one.document(image, b"a person's tag names it")
        other = await one.document(digest_of(b"another image"))
        precious = await one.put(manifest("precious"), "stable")
        untagged = await one.put(manifest("a base, pinned by its digest"))
        await one.registry.put_manifest(
            "one", "named", OCI_MANIFEST, await one.registry.content("one", "manifests", tagged["digest"])
        )
        lines = [own, tagged, other, claim(precious), claim(untagged)]
        await referrers.add(one.registry, "one", image, lines, nullcontext())

        (pruned,) = await one.prune()

        assert (pruned.digest, pruned.kept) == (image, "")
        assert not await one.has(image)
        assert not await one.has(own["digest"])
        left = [tagged["digest"], other["digest"], precious, untagged]
        assert [await one.has(digest) for digest in left] == [True] * len(left)
        assert [entry["digest"] for entry in await referrers.tagged(one.registry, "one", image)] == left
        assert await one.registry.manifest_digest("one", "stable") == precious


async def test_what_another_tag_names_stays_under_the_tags_of_an_image(registry: Server) -> None:
    """A manifest without layers has no foreign signature, and one list may stand under two tags."""
    async with kept(registry.url) as one:
        image = await one.add("one", LAYERS[0])
        entry = await one.document(image)
        await referrers.add(one.registry, "one", image, [entry], nullcontext())
        listed = await one.registry.manifest("one", referrers_tag(image))
        assert listed is not None
        await one.put(listed, "mine", OCI_INDEX)
        empty = await one.put(manifest("no layers"), signature_tag(image))

        assert [old.kept for old in await one.prune()] == [""]

        assert await one.has(empty)
        assert await one.registry.manifest_digest("one", "mine") == digest_of(listed)
        assert await one.has(entry["digest"]), "the list of somebody else needs it"

        # Signatures of ours go, but not with a tag of somebody else.
        second = await one.add("one", LAYERS[1])
        layer = {
            "mediaType": PAYLOAD,
            "size": 2,
            "digest": digest_of(b"{}"),
            "annotations": {SIGNATURE: "AAAA", OURS: ""},
        }
        signatures = Signatures((layer,)).image
        for blob in (b"{}", signatures.config):
            await one.registry.put_blob("one", blob)
        await one.put(signatures.manifest, signature_tag(second))
        await one.put(signatures.manifest, "copy")
        assert [old.kept for old in await one.prune()] == [""]
        assert await one.registry.manifest_digest("one", "copy") == signatures.manifest_descriptor.digest


async def test_one_image_that_the_registry_does_not_show_keeps_no_other(registry: Server) -> None:
    refused = Rule("HEAD", "/v2/bad/manifests/latest", Status(403), times=100)
    async with kept(registry.url) as honest, shim(registry.url, refused) as relay, kept(relay.url) as one:
        one.state = honest.state
        one.pruner = Pruner(one.registry, one.management, one.state)
        digests = {name: await honest.add(name, LAYERS[0]) for name in ("bad", "good")}

        old = {each.repository: each for each in await one.pruner.old(100.0)}
        assert "403" in old["bad"].kept
        assert old["good"].kept == ""
        assert await one.pruner.frees([old["good"]]) is None, (
            "nobody knows whether `bad` needs the same layer"
        )
        assert (await one.pruner.prune(old["bad"])).kept == old["bad"].kept
        assert (await one.pruner.prune(old["good"])).kept == ""
        assert [image.digest async for image in one.state.images()] == [digests["bad"]]


async def test_records_are_gone_as_soon_as_the_image_is(registry: Server) -> None:
    """What is attached cannot be read: the image is gone all the same, and no record says otherwise."""
    async with kept(registry.url) as honest:
        image = await honest.add("one", LAYERS[0])
        hidden = Rule("GET", f"/v2/one/manifests/{referrers_tag(image)}", Status(403), times=100)
        async with shim(registry.url, hidden) as relay, kept(relay.url) as one:
            pruner = Pruner(one.registry, one.management, honest.state)
            (old,) = await pruner.old(100.0)
            assert (await pruner.prune(old)).kept == ""
        assert [each async for each in honest.state.images()] == []
        assert await honest.state.tags("one") == ()
        assert not await honest.has(image)


async def test_what_a_pinned_image_needs_is_not_freed(registry: Server) -> None:
    """An image of ours without a tag stays, so its layers do; and so do those of an index in an index."""
    async with kept(registry.url) as one:
        gone = await one.add("one", LAYERS[0])
        size = await one.pruner.frees([Old("one", gone, ("latest",), 1.0)])
        assert size == len(handmade.image([LAYERS[0]]).layers[0])
        same = handmade.image([LAYERS[0]], config=lambda config: config.update(author="somebody"))
        for blob in (same.config, *same.layers):
            await one.registry.put_blob("two", blob)
        await one.registry.put_manifest("two", digest_of(same.manifest), same.media_type, same.manifest)
        assert await one.pruner.frees([Old("one", gone, ("latest",), 1.0)]) == size, "nobody records it"

        await one.state.record_image(ImageRecord("two", digest_of(same.manifest), 200.0))
        assert await one.pruner.frees([Old("one", gone, ("latest",), 1.0)]) == 0
        await one.state.forget_image("two", digest_of(same.manifest))

        inner = index(digest_of(same.manifest), same.media_type, len(same.manifest))
        outer = index(digest_of(inner), OCI_INDEX, len(inner))
        await one.registry.put_manifest("two", digest_of(inner), OCI_INDEX, inner)
        await one.registry.put_manifest("two", "all", OCI_INDEX, outer)
        assert await one.pruner.frees([Old("one", gone, ("latest",), 1.0)]) == 0


def index(digest: str, media_type: str, size: int) -> bytes:
    child = {"mediaType": media_type, "digest": digest, "size": size}
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
