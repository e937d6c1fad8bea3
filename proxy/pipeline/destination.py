"""Where an image goes: what the pipeline asks of a registry, and of whatever else can hold an image.

Two things are one: `registry.Registry`, and a folder (`oci_layout.OciLayout`). A blob is put before the manifest that names
it; a manifest is what makes an image of them.
"""

from collections.abc import AsyncIterable, Callable
from typing import Protocol

from proxy.core.model import Buffer


class Destination(Protocol):
    """A holder of images, by repository. Each method may raise a `NixfrontError`."""

    async def has_blob(self, repository: str, digest: str, /) -> bool:
        """Whether the repository has this blob."""

    async def mount(self, repository: str, digest: str, origin: str, /) -> bool:
        """Give the repository a blob that another one has; False if that cannot be."""

    async def upload(
        self, repository: str, chunks: AsyncIterable[Buffer], digest: Callable[[], str], /
    ) -> None:
        """Take a blob whose digest is known only once its bytes were read (then `digest` is called)."""

    async def put_blob(self, repository: str, data: bytes, /) -> None:
        """Take a small blob."""

    async def manifest_digest(self, repository: str, reference: str, /) -> str | None:
        """The digest of a manifest that is there and stands, None if there is none."""

    async def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes, /) -> None:
        """Make the reference name this manifest."""
