"""A pipeline with everything in memory but the store, which is a folder: for unit tests of pipeline and coordinator."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from proxy.core.events import Event, Sink
from proxy.core.model import ImageRequest, LayerPlan, Package, PackageSet, Policy, canonical_json, sha256_hex
from proxy.image.recipe import output_tag
from proxy.pipeline.build import Pipeline
from proxy.pipeline.contents.content import Content, ResolvedContent
from proxy.pipeline.contents.store_files import DiskFiles
from proxy.pipeline.destination import Destination, MemoryDestination
from proxy.pipeline.keys import ImageOptions
from proxy.pipeline.own_tags import OwnTags
from proxy.pipeline.publish import Publisher
from proxy.state import State
from proxy.state.memory import MemoryState

PACKAGE_SET = PackageSet("set", "/nix/store/source", "0123", "https://example.org", "2026-01-31T00:00:00Z")
OPTIONS = ImageOptions(
    system="x86_64-linux", policy=Policy(), always=(), most_layers=100, form="oci", compression="none"
)


def request(*attributes: str, repository: str = "", tag: str = "latest") -> ImageRequest:
    return ImageRequest(repository or "/".join(attributes), tag, attributes)


class FolderContents:
    """Packages in a folder that stands for the Nix store: each has one file, and is a layer of its own.

    A content opens when `go` is set, and not at all with an `error`, or with one of `errors` by Nix system. `revision` is of
    the package set.
    """

    def __init__(self, folder: Path) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None
        self.errors: dict[str, Exception] = {}
        self.revision = "0123"
        self.opened = 0
        self.closed = 0
        self._folder = folder

    def add(self, name: str, text: str = "text") -> Path:
        """The program of a package, written into the store."""
        file = self._folder / f"nix/store/{name}-1.0/bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
        return file

    async def resolve(self, request: ImageRequest) -> ResolvedContent:
        system = request.preset.system
        key = sha256_hex(canonical_json([sorted(request.attributes), self.revision, system]))
        return ResolvedContent(key, partial(self._open, request))

    @asynccontextmanager
    async def _open(self, request: ImageRequest) -> AsyncIterator[Content]:
        self.opened += 1
        await self.go.wait()
        if (error := self.errors.get(request.preset.system, self.error)) is not None:
            raise error
        names = sorted(request.attributes)
        paths = {name: f"/nix/store/{name}-1.0" for name in names}
        packages = {
            name: Package(name, f"{name}-1.0", "", (("out", path),), "") for name, path in paths.items()
        }
        package_set = PackageSet(
            PACKAGE_SET.name,
            PACKAGE_SET.expression,
            self.revision,
            PACKAGE_SET.source,
            PACKAGE_SET.created,
        )
        try:
            plans = tuple(LayerPlan((path,)) for path in paths.values())
            yield Content(
                package_set,
                plans,
                output_tag([*paths.values(), self.revision]),
                DiskFiles(str(self._folder)),
                packages=packages,
            )
        finally:
            self.closed += 1


class Workshop:
    """A pipeline and its parts. `events` are those of all its builds."""

    def __init__(
        self,
        folder: Path,
        executor: ThreadPoolExecutor,
        destination: MemoryDestination,
        state: State,
        options: ImageOptions,
    ) -> None:
        self.events: list[Event] = []
        self.contents = FolderContents(folder)
        self.destination = destination
        self.state = state
        self.tags = OwnTags(destination, state, now=lambda: 1000.0)
        self.publisher = publisher(destination, state, executor, self.events.append)
        self.pipeline = Pipeline(
            packages=self.contents,
            images=self.contents,
            tags=self.tags,
            publisher=self.publisher,
            options=options,
            sink=self.events.append,
        )

    def count(self, kind: type[Event]) -> int:
        """How many events there were of this kind."""
        return sum(isinstance(event, kind) for event in self.events)


def publisher(destination: Destination, state: State, executor: ThreadPoolExecutor, sink: Sink) -> Publisher:
    """A publisher that packs in this executor."""
    return Publisher(destination, state, executor, compression="none", uploads=4, sink=sink)


@asynccontextmanager
async def workshop(
    folder: Path,
    destination: MemoryDestination | None = None,
    state: State | None = None,
    platforms: tuple[str, ...] = (),
) -> AsyncIterator[Workshop]:
    """A workshop with packages `a`, `b` and `c` in its store; `platforms` are the systems of an index."""
    options = replace(OPTIONS, platforms=platforms)
    with ThreadPoolExecutor(2) as executor:
        made = Workshop(folder, executor, destination or MemoryDestination(), state or MemoryState(), options)
        for name in "abc":
            made.contents.add(name, name * 100)
        try:
            yield made
        finally:
            await made.pipeline.close()
