"""What the commands do by themselves, with Nix and without a server: an image as a folder, the names of a set, its census."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from proxy import (
    census,
    configured,
    data_folder,
    making,
    state_sqlite,
)
from proxy.client_session import client_session
from proxy.errors import NameInvalid
from proxy.event_log import log_event
from proxy.events import BuildEnded, Event
from proxy.names import parse
from proxy.oci_layout import OciLayout
from proxy.own_tags import OwnTags
from proxy.settings import ImageSection, Settings


async def build(settings: Settings, repository: str, tag: str, folder: Path) -> str:
    """The digest of the manifest of this image, written into `folder` as an OCI image layout, whatever `image.format` is.

    No registry is needed, and a nixfront that serves from the same data folder is not disturbed. Raises a `NixfrontError`.
    """
    settings = settings.model_copy(update={"image": ImageSection(format="oci")})
    request = parse(repository, tag, configured.vocabulary(settings))
    if request is None:
        raise NameInvalid(f"{repository}:{tag} can be no image of ours")
    digests: list[str] = []

    def keep_digest(event: Event) -> None:
        if isinstance(event, BuildEnded) and event.digest:
            digests.append(event.digest)

    async with AsyncExitStack() as stack:
        data = settings.data_dir
        await asyncio.to_thread((data / "sets").mkdir, parents=True, exist_ok=True)
        own = await asyncio.to_thread(data_folder.build_folder, data)
        stack.push_async_callback(asyncio.to_thread, own.cleanup)
        session = await stack.enter_async_context(client_session())
        packages = making.nix_side(settings, stack, session)
        layout = OciLayout(folder, tag)
        # What the data folder remembers is about a registry.
        state = await stack.enter_async_context(state_sqlite.open_state(Path(own.name, "state.sqlite")))
        tags, sink = OwnTags(layout, state), making.each(log_event, keep_digest)
        chosen_tables = await asyncio.to_thread(making.read_tables, settings)
        pipeline = await making.pipeline(
            settings, stack, packages, layout, tags, state, Path(own.name), chosen_tables, sink
        )
        stack.push_async_callback(pipeline.close)
        await pipeline.ensure(request)
    return digests[0]


async def attribute_names(settings: Settings, package_set: str, tag: str) -> tuple[str, ...]:
    """The names of a package set's attributes at this tag. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread((settings.data_dir / "sets").mkdir, parents=True, exist_ok=True)
        packages = making.nix_side(settings, stack, await stack.enter_async_context(client_session()))
        return await packages.names.of(await packages.sets.resolve(package_set, tag))


async def census_of_set(
    settings: Settings,
    package_set: str,
    tag: str,
    attributes: Sequence[str],
    say: census.Say,
    on_line: census.Say,
) -> census.Census:
    """What the packages of a set need: those named, or else all that can be had. Raises a `NixfrontError`."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread((settings.data_dir / "sets").mkdir, parents=True, exist_ok=True)
        packages = making.nix_side(settings, stack, await stack.enter_async_context(client_session()))
        chosen = await packages.sets.resolve(package_set, tag)
        roots = await asyncio.to_thread(tempfile.TemporaryDirectory, dir=settings.data_dir)
        stack.push_async_callback(asyncio.to_thread, roots.cleanup)
        return await census.of_set(
            packages.nix,
            chosen,
            settings.system,
            configured.policy(settings),
            attributes or await packages.names.of(chosen),
            settings.packages.always,
            Path(roots.name),
            strict=bool(attributes),
            say=say,
            on_line=on_line,
        )
