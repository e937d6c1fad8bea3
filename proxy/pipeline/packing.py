"""Store paths on disk -> the bytes of a layer, hashed, counted and compressed in the one pass that uploads them.

Compression is part of what a digest depends on, so its bytes must be the same on every machine: libdeflate (pinned)
gives equal bytes on every processor, unlike ISA-L, and unlike zlib, which distributions replace by others. It takes
whole blocks only, so a layer is a row of gzip members of 1 MiB of tar each (RFC 1952, section 2.2: "a gzip file
consists of a series of members"; eStargz layers are made so too); zstd layers are a row of frames in the same way. With
fixed blocks the bytes do not depend on the sizes of the reads, and several threads can work on one layer: they read block
after block under a lock and compress side by side; the results are hashed and sent in the order of the blocks.
Memory: a few blocks for each layer that is being packed, whatever its size.

Measured with 173 MB of libraries (seconds of one processor, MB): level 1 1.08/65.0, 2 1.52/62.0, 3 1.67/61.5, 5 2.12/60.0,
zlib 6 7.2/60.4. Images of the same packages that a peer made with Go's gzip have 64.5 MB. So level 2 is the fastest that sends
no more. With 146 MB of the demo set: level 1 0.95/49.7, 2 1.40/47.6, 3 1.58/47.2, 5 2.15/45.8, zstd 1 0.56/48.7, zstd 3
1.12/43.0. zstd is no default, because not every client reads it. Blocks of 4 MiB save 0.1 %. scandir instead of lstat, and more
threads than processors, change nothing.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Executor
from itertools import count
from threading import Lock

import deflate
import zstandard

from proxy.core.errors import STORE_CURE, DigestNotReady, NixfrontError, StoreUnreadable, Unforeseen
from proxy.core.model import Buffer, Layer
from proxy.image import tar
from proxy.image.manifest import Compression
from proxy.image.tar import BLOCK, Entry

_log = logging.getLogger(__name__)
_ZSTD_BLOCK = 4 << 20  # bytes of tar in one frame: those of 1 MiB are 3 % larger
_ZSTD_LEVEL = 3
_LEVEL = 2  # the fastest level that makes no more bytes than the images of peers, which Go's gzip made
_AHEAD = 4  # blocks of a layer that are being packed or wait to be sent

#: Names of the formats, one for all that decides the bytes: part of the key of a layer and of an image.
CODECS: Mapping[Compression, str] = {
    "gzip": f"tar{tar.FORMAT}+gzip-members-{BLOCK}-libdeflate-{_LEVEL}",
    "zstd": f"tar{tar.FORMAT}+zstd-frames-{_ZSTD_BLOCK}-{_ZSTD_LEVEL}",
    "none": f"tar{tar.FORMAT}",
}
_PACK: Mapping[Compression, Callable[[memoryview], Buffer]] = {
    "gzip": lambda block: deflate.gzip_compress(block, _LEVEL),
    "zstd": lambda block: zstandard.compress(block, _ZSTD_LEVEL),
    "none": lambda block: block,
}
_LENGTHS: Mapping[Compression, int] = {"gzip": BLOCK, "zstd": _ZSTD_BLOCK, "none": BLOCK}


class LayerStream:
    """The bytes of one layer, to be read once, with `async for`; `layer` describes them afterwards."""

    def __init__(
        self,
        entries: Iterable[Entry],
        compression: Compression,
        executor: Executor,
        description: asyncio.Future[Layer] | None = None,
    ) -> None:
        """`entries` in their final order; reading and compressing run in `executor`, a few blocks at once.

        `description` gets the layer as soon as the last byte was read.
        """
        self._description = description
        self._blocks = tar.blocks(entries, _LENGTHS[compression])
        self._pack = _PACK[compression]
        self._executor = executor
        self._reading, self._ordering = Lock(), Lock()
        self._numbers = count()
        self._read_all = False
        self._packed: dict[int, Buffer] = {}  # by number, until all before it are there
        self._next = 0
        self._ready: deque[Buffer] = deque()
        self._diff_id, self._digest, self._size = hashlib.sha256(), hashlib.sha256(), 0
        self._layer: Layer | None = None
        #: Why the store could not be read, or None. The code that sends the layer may see only a broken connection.
        self.failure: NixfrontError | None = None

    @property
    def layer(self) -> Layer:
        """Digest, size and diff_id. Raises `DigestNotReady` before the last byte was read."""
        if self._layer is None:
            raise DigestNotReady("the layer was not read to its end")
        return self._layer

    @property
    def digest(self) -> str:
        """The digest of the bytes. Raises as `layer` does."""
        return self.layer.digest

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        """The layer's bytes in pieces of at most about 1 MiB; only a few of them are packed ahead."""
        loop = asyncio.get_running_loop()
        running: set[asyncio.Future[None]] = set()
        while True:
            running = {step for step in running if not step.done()}
            while not self._read_all and len(running) + len(self._packed) + len(self._ready) < _AHEAD:
                running.add(loop.run_in_executor(self._executor, self._step))
            if self._ready:
                yield self._ready.popleft()
            elif running:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            elif self.failure is not None:
                raise self.failure
            else:
                break
        self._layer = Layer(
            f"sha256:{self._digest.hexdigest()}", self._size, f"sha256:{self._diff_id.hexdigest()}"
        )
        if self._description is not None and not self._description.done():
            self._description.set_result(self._layer)

    def _step(self) -> None:
        """Pack a block, in a thread. Raises nothing, because perhaps no caller waits any more."""
        try:
            with self._reading:
                block = None if self._read_all else next(self._blocks, None)
                if block is None:
                    self._read_all = True
                    return
                number = next(self._numbers)
                self._diff_id.update(block)
            packed = self._pack(block)
        except NixfrontError as error:
            self._fail(error)
        except OSError as error:
            self._fail(StoreUnreadable(f"cannot read the Nix store: {error}; {STORE_CURE}"))
        except (
            Exception
        ) as error:  # a bug; what read the members has ended, and the rest must not look like a whole layer
            _log.exception("packing failed")
            self._fail(
                Unforeseen(f"nixfront failed to pack a layer ({type(error).__name__}); its log says more")
            )
        else:
            with self._ordering:
                self._packed[number] = packed
                while (following := self._packed.get(self._next)) is not None:
                    self._digest.update(following)
                    self._size += len(following)
                    self._ready.append(following)
                    del self._packed[self._next]  # now, as each block counts at all times
                    self._next += 1

    def _fail(self, error: NixfrontError) -> None:
        self.failure = error
        self._read_all = True
