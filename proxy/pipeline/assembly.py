"""One image: its content -> layers, root tree and configuration in the destination -> the image, whose manifest is not put yet.

The root tree and the layers are made side by side, with two rules that decide what waits for what:

- Where a layer is not recorded, nothing is sent before the root tree is made, because a root tree that cannot be made ends
  the build, and packing would be in vain.
  A binary cache without listings is an exception: its layers come first, because the root tree needs the same NARs. Store paths
  that Nix fetches meanwhile are another one: each layer begins when its own are there, and the root tree when all are.
- The configuration names layers, so it is sent when the last one is packed, or recorded, and not when it is sent. If a record proves
  wrong, the configuration is sent once more.

Everything that reads the store has ended when `image` returns or raises, because its caller then lets the store paths go.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from proxy.core.errors import PackageUnusable, StoreUnreadable
from proxy.core.events import Collided, LayersReady, LibraryUnusable, Sink
from proxy.core.model import Image, ImageRequest, Layer
from proxy.image import manifest
from proxy.image import recipe as image_recipe
from proxy.image.environment import Environment
from proxy.image.recipe import comments, facts, from_request
from proxy.image.root_tree import Root
from proxy.pipeline.contents.content import Content
from proxy.pipeline.keys import ImageOptions
from proxy.pipeline.publish import LayerRecord, Publisher, RootLayer

T = TypeVar("T")


class Assembly:
    """Makes one image; its tasks put layers and configuration into the destination."""

    def __init__(
        self,
        request: ImageRequest,
        content: Content,
        publisher: Publisher,
        options: ImageOptions,
        sink: Sink,
    ) -> None:
        self._request = request
        self._repository = request.repository
        self._content = content
        self._recipe = content.recipe or from_request(request, content.packages)
        self._publisher = publisher
        self._options = options
        self._sink = sink
        self._ready = 0

    async def image(self) -> Image:
        """The image; the destination has all of it but the manifest."""
        publisher, repository = self._publisher, self._repository
        records = await publisher.recall(repository, self._content.plans)
        complete = all(record.layer is not None for record in records)
        # Then the repository may have the root layer and the configuration too.
        look = complete and all(repository in record.origins for record in records)
        descriptions = [publisher.description(record) for record in records]
        self._tell_ready()
        files = self._content.files
        tree = self._begin_tree() if (complete or files.at_hand) and not files.arriving else None
        try:
            if not complete and await files.prepare(_unpacked(records)):
                tree = tree or self._begin_tree()
                await asyncio.shield(tree)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._layer(record)) for record in records]
                if tree is None:
                    await (files.arrive(self._closure) if files.arriving else asyncio.wait(tasks))
                    tree = self._begin_tree()
                root_of_image, command, around = await asyncio.shield(tree)
                root = await publisher.pack_root(repository, root_of_image.entries)
                group.create_task(self._root_layer(root, look=look))
                layers = [await asyncio.shield(layer) for layer in descriptions]
                early = self._assembled([*layers, root.layer], command, around)
                group.create_task(publisher.blob(repository, early.config, look=look))
        except ExceptionGroup as failed:
            await publisher.settle(repository, records)
            # The first error cancelled the other tasks, so it is the one to report.
            raise failed.exceptions[0] from failed
        except asyncio.CancelledError:
            await publisher.abandon(repository, records)
            raise
        finally:
            if tree is not None:
                await asyncio.wait([tree])
                _ = tree.cancelled() or tree.exception()  # read here, so that asyncio does not log it
        layers = [task.result() for task in tasks]
        if not files.at_hand:
            await self._in_thread(files.confirm)
        image = self._assembled([*layers, root.layer], command, around)
        if image.config != early.config:
            await publisher.blob(repository, image.config, look=False)
        await publisher.record(repository, records, layers)
        return image

    @property
    def _closure(self) -> set[str]:
        return {path for plan in self._content.plans for path in plan.paths}

    def _begin_tree(self) -> "asyncio.Task[tuple[Root, tuple[str, ...], Environment]]":
        return asyncio.create_task(self._root_tree())

    async def _root_tree(self) -> tuple[Root, tuple[str, ...], Environment]:
        """The root tree, which a named image has already, the command that `docker run` starts, and the environment."""
        root, command, around = await self._in_thread(self._merge)
        for collision in root.collisions:
            self._sink(Collided(self._repository, collision.path, collision.winner, collision.loser))
        for note in around.notes:
            self._sink(LibraryUnusable(self._repository, note))
        return root, command, around

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """The result of `work`, which looks at the files of the content."""
        files = self._content.files
        executor = None if files.at_hand else self._publisher.executor_of(files)
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    def _merge(self) -> tuple[Root, tuple[str, ...], Environment]:
        try:
            return self._merged()
        except (PackageUnusable, StoreUnreadable):
            # A binary cache that lists what is not there may be the reason: then the image comes through the store.
            self._content.files.confirm()
            raise

    def _merged(self) -> tuple[Root, tuple[str, ...], Environment]:
        recipe, content = self._recipe, self._content
        closure = self._closure
        listing = content.files.listing(closure)
        root = content.root or image_recipe.root(recipe, content.package_set, listing, closure)
        around = image_recipe.surroundings(recipe, root.entries, listing, closure)
        return root, image_recipe.command(recipe, listing), around

    async def _layer(self, record: LayerRecord) -> Layer:
        layer = await self._publisher.layer(self._repository, record, self._content.files)
        self._ready += 1
        self._tell_ready()
        return layer

    async def _root_layer(self, root: RootLayer, *, look: bool) -> None:
        await self._publisher.root_layer(self._repository, root, look=look)
        self._ready += 1
        self._tell_ready()

    def _tell_ready(self) -> None:
        total = len(self._content.plans) + 1  # and the root layer
        self._sink(LayersReady(self._repository, self._request.tag, self._ready, total))

    def _assembled(self, layers: Sequence[Layer], command: tuple[str, ...], around: Environment) -> Image:
        recipe, content, options = self._recipe, self._content, self._options
        system = self._request.preset.system or options.system
        return manifest.assemble(
            facts(recipe, content.package_set, system, command, around),
            tuple(layers),
            comments(recipe, content.plans),
            form=options.form,
            compression=options.compression,
        )


def _unpacked(records: Sequence[LayerRecord]) -> list[str]:
    """The store paths of the layers that are not recorded."""
    return [path for record in records if record.layer is None for path in record.plan.paths]
