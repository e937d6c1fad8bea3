"""What `nixfront verify` and `reindex --attach` need: a pipeline that makes images for nobody, and the registry that has them."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from proxy.core.errors import SettingsInvalid
from proxy.core.model import BlobStream, ImageRequest, LayerPlan, digest_of
from proxy.image import store_tree
from proxy.pipeline.attachments import Attachments
from proxy.pipeline.build import Pipeline
from proxy.pipeline.own_tags import OwnTags
from proxy.pipeline.packing import LayerStream
from proxy.settings import Settings
from proxy.state.memory import MemoryState
from proxy.telemetry.log import log_event
from proxy.tools.scratch import scratch_folder
from proxy.upkeep.attest.lacking import Attacher
from proxy.upkeep.verify import MadeAgain, Verifier, write_all
from proxy.wiring import builder, files
from proxy.wiring.commands import open_keeper
from proxy.wiring.registry import image_endpoint


class Nowhere:
    """A destination that keeps no layer: it only remembers which blobs it saw. The methods are described in `Destination`."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._small: dict[str, bytes] = {}
        self._manifests: defaultdict[str, dict[str, bytes]] = defaultdict(dict)

    def take(self, repository: str, reference: str) -> MadeAgain:
        """The image that was put under this tag; nothing of it is kept."""
        manifests = self._manifests.pop(repository)
        blobs, self._small = self._small, {}
        by_digest = {digest_of(data): data for data in manifests.values()}
        return MadeAgain(manifests[reference], by_digest, blobs)

    async def has_blob(self, _repository: str, digest: str) -> bool:
        """Whether it saw the blob, which then need not be packed again."""
        return digest in self._seen

    async def mount(self, _repository: str, digest: str, _origin: str) -> bool:
        """As `has_blob`."""
        return digest in self._seen

    async def upload(self, _repository: str, stream: BlobStream) -> None:
        """Read the blob to its end."""
        async for _ in stream:
            pass
        self._seen.add(stream.digest)

    async def put_blob(self, _repository: str, data: bytes) -> None:
        """Keep a small blob until the image is taken."""
        self._small[digest_of(data)] = data

    async def manifest_digest(self, _repository: str, _reference: str) -> str | None:
        """None: every image is made."""
        return None

    async def manifest(self, _repository: str, _reference: str) -> None:
        """None, as `manifest_digest`."""

    async def referrers(self, _repository: str, _digest: str) -> None:
        """None, as `manifest_digest`."""

    async def put_manifest(self, repository: str, reference: str, _media_type: str, data: bytes) -> bool:
        """Keep the manifest until the image is taken."""
        self._manifests[repository][reference] = data
        return False


@asynccontextmanager
async def verifier(settings: Settings) -> AsyncIterator[Verifier]:
    """A verifier of the images of the registry. It may run beside a nixfront on the same data folder.

    Raises a `NixfrontError`.
    """
    async with AsyncExitStack() as stack:
        nowhere = Nowhere()
        pipeline = await _pipeline(settings, stack, nowhere)
        executor = ThreadPoolExecutor(settings.packers, thread_name_prefix="verifying")
        stack.push_async_callback(asyncio.to_thread, executor.shutdown)
        endpoint = await asyncio.to_thread(image_endpoint, settings)
        connection = await stack.enter_async_context(endpoint.opened())

        async def make(request: ImageRequest) -> MadeAgain:
            await pipeline.make(request)
            return nowhere.take(request.repository, request.tag)

        pack = partial(_pack, settings.nix_store, executor)
        yield Verifier(connection, settings.vocabulary, make, pack)


@asynccontextmanager
async def attacher(settings: Settings) -> AsyncIterator[Attacher]:
    """What attaches documents to images of the registry that lack them. It may run beside a nixfront, as `verifier`.

    Raises a `NixfrontError`, such as `SettingsInvalid` where the settings want no documents.
    """
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(open_keeper(settings))
        nowhere = Nowhere()
        attachments = await builder.open_attachments(
            settings,
            stack,
            keeper.registry,
            OwnTags(keeper.registry, keeper.state),
            keeper.state,
            await stack.enter_async_context(scratch_folder()),
        )
        if attachments is None:
            raise SettingsInvalid("trust.attach: it is false, so images get no documents")
        pipeline = await _pipeline(settings, stack, nowhere, attachments)

        async def make(request: ImageRequest) -> None:
            await pipeline.make(request)
            nowhere.take(request.repository, request.tag)
            await attachments.settle()

        yield Attacher(keeper.registry, settings.vocabulary, make)


async def _pipeline(
    settings: Settings, stack: AsyncExitStack, nowhere: Nowhere, attachments: Attachments | None = None
) -> Pipeline:
    """A pipeline that keeps no image, as long as the stack."""
    data = settings.data_dir
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    folder = await stack.enter_async_context(files.build_folder(data))
    packages = await builder.open_own_packages(settings, stack)
    tables = await asyncio.to_thread(builder.read_tables, settings)
    state = MemoryState()
    pipeline = await builder.build_pipeline(
        settings,
        stack,
        packages,
        nowhere,
        OwnTags(nowhere, state),
        state,
        folder,
        tables,
        log_event,
        attachments,
    )
    stack.push_async_callback(pipeline.close)
    return pipeline


async def _pack(store: str, executor: ThreadPoolExecutor, plan: LayerPlan, file: Path) -> None:
    """Write the archive of these store paths, without compression."""
    stream = LayerStream(store_tree.store_entries(plan.paths, prefix=store), "none", executor)
    await write_all(file, aiter(stream))
