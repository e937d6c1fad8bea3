"""Blobs for tests of what reads them."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from proxy.core.model import Buffer


@dataclass(frozen=True, slots=True)
class Stream:
    """These pieces, and a digest that may be wrong."""

    pieces: AsyncIterable[Buffer]
    digest: str

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return aiter(self.pieces)
