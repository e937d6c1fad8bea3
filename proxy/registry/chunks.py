"""The first chunks of a blob that streams: a small blob goes out in the request that ends its upload."""

from collections.abc import AsyncIterator

from proxy.core.model import Buffer

_ONE_REQUEST = (
    1 << 20
)  # bytes of a blob that go out in one request; a larger blob streams in a request of its own


async def first_chunks(chunks: AsyncIterator[Buffer]) -> tuple[list[Buffer], bool]:
    """The first chunks, up to the one that passes `_ONE_REQUEST` bytes, and whether they are all."""
    first: list[Buffer] = []
    async for chunk in chunks:
        first.append(chunk)
        if sum(len(each) for each in first) > _ONE_REQUEST:
            return first, False
    return first, True


async def chain(first: list[Buffer], rest: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
    """All chunks. Empties `first` on its way, so that no sent chunk stays in memory."""
    while first:
        yield first.pop(0)
    async for chunk in rest:
        yield chunk
