"""Attaches the documents of an image to it, some time after its manifest was put, so that no pull waits.

    facts in a file -> manifest put -> documents (a child process) -> artifacts with the image as subject -> file deleted

The file is a promise. A nixfront that is killed in between leaves it, and the next start keeps the promise. The state says too
that documents are due to the image; see `builds.late_documents`. One child at a time makes the documents, for all images that
wait, because the libraries take longer to load than to work; see `maker`.

What an image has stays: a kind of document is attached only where the image lacks it. The bytes of the image never change.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cachetools import LRUCache

from proxy.core.errors import NixfrontError, ProcessFailed, RegistryRefused
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import digest_of, sha256_hex
from proxy.pipeline.attachments import referrers
from proxy.pipeline.attachments.maker import Maker
from proxy.pipeline.destination import Destination
from proxy.pipeline.tag_versions import TagVersions
from proxy.state import State
from proxy.tools.files import write_whole
from proxy.trust import kinds, record
from proxy.trust.facts import ImageFacts
from proxy.trust.kinds import Kind

T = TypeVar("T")

_log = logging.getLogger(__name__)
_MOST_AT_ONCE = 16  # images whose documents one child makes
_AGAIN = 60.0  # seconds until another try, where the registry is away
_UNTIL_ROOM = 10.0  # the same, where the disk was full
_MOST_UNWRITTEN = 64  # images whose facts wait for room on the disk


@dataclass(frozen=True, slots=True)
class _Promise:
    """An image that lacks documents of some kinds, and the file of its facts."""

    file: Path
    facts: ImageFacts
    kinds: tuple[Kind, ...]

    @property
    def image(self) -> str:
        return f"{self.facts.request.repository}@{self.facts.manifest.digest}"


class Attachments:
    """Attaches documents to the images of one destination."""

    def __init__(
        self,
        destination: Destination,
        state: State,
        versions: TagVersions,
        folder: Path,
        *,
        builder: str,
    ) -> None:
        """`folder` keeps the promises; it exists. `versions` counts writes of tags."""
        #: The URI of this builder, for provenance.
        self.builder = builder
        self._destination = destination
        self._state = state
        self._versions = versions
        self._folder = folder
        self._queue: asyncio.Queue[Path] = asyncio.Queue()
        self._maker = Maker()
        self._worker: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._unwritten: LRUCache[Path, bytes] = LRUCache(_MOST_UNWRITTEN)

    async def resume(self) -> None:
        """Keep the promises that a former process left."""
        for file in await asyncio.to_thread(lambda: sorted(self._folder.glob("*.json"))):
            self._enqueue(file)

    async def promise(self, facts: ImageFacts) -> None:
        """Write the facts of an image whose manifest is not put yet; `keep` follows when it is.

        A full disk costs no pull: the facts are in memory until there is room, or else a later pull attaches what is due.
        """
        repository, digest = facts.request.repository, facts.manifest.digest
        file, data = self._file(repository, digest), record.write(facts)
        if not await self._write(file, data):
            self._unwritten[file] = data

    def keep(self, repository: str, digests: Iterable[str]) -> None:
        """Attach documents to these images, whose manifests are put, where there is a promise."""
        for digest in digests:
            self._enqueue(self._file(repository, digest))

    async def settle(self) -> None:
        """Return once nothing waits, except for what has to be tried again later."""
        await self._queue.join()

    async def close(self) -> None:
        """Cancel what is under way. The promises stay in their folder."""
        for timer in self._timers:
            timer.cancel()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._maker.close()

    def _file(self, repository: str, digest: str) -> Path:
        return self._folder / f"{sha256_hex(f'{repository}@{digest}'.encode())}.json"

    def _enqueue(self, file: Path) -> None:
        self._queue.put_nowait(file)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            files = [await self._queue.get()]
            while len(files) < _MOST_AT_ONCE and not self._queue.empty():
                files.append(self._queue.get_nowait())
            try:
                await self._attach_all(list(dict.fromkeys(files)))
            except Exception:  # a bug must not end the worker: the next start tries these again
                _log.exception("documents of images failed images=%d", len(files))
            finally:
                for _ in files:
                    self._queue.task_done()

    async def _attach_all(self, files: list[Path]) -> None:
        promises = []
        for file in files:
            with _one_image(file):
                if (promise := await self._promise(file)) is not None:
                    promises.append(promise)
        if promises and not await self._keep_all(promises) and len(promises) > 1:
            for promise in promises:  # what ended the child for one costs no other its documents
                await self._keep_all([promise])

    async def _keep_all(self, promises: Sequence[_Promise]) -> bool:
        """Attach the documents of these. False where the child ended without any; the next start tries again."""
        try:
            made = await self._maker.documents([promise.file for promise in promises])
        except ProcessFailed as error:
            reason = error.tail[-1] if error.tail else ""
            _log.error("no documents images=%d error=%s reason=%s", len(promises), error, reason)
            return False
        for promise in promises:
            documents = made[str(promise.file)]
            with _one_image(promise.file):
                if "error" in documents:
                    _log.error("no documents image=%s error=%s", promise.image, documents["error"])
                    await self._end(promise.file, promise.facts)
                elif await self._attempt(promise.file, promise.facts, self._attach(promise, documents)):
                    _log.info("documents attached image=%s", promise.image)
                    await self._end(promise.file, promise.facts)
        return True

    async def _promise(self, file: Path) -> _Promise | None:
        """The promise in this file; None if there is nothing to do for now."""
        if (data := self._unwritten.pop(file, None)) is not None and not await self._write(file, data):
            self._unwritten[file] = data
            self._later(file, _UNTIL_ROOM)
            return None
        try:
            facts = record.read(await asyncio.to_thread(file.read_bytes))
        except FileNotFoundError:  # the image was in line twice, or it is an index
            return None
        except ValueError:  # a power failure cut it, or another version of nixfront wrote it
            _log.warning("facts of an image are unreadable file=%s", file.name)
            await self._forget(file)
            return None
        lacking = await self._attempt(file, facts, self._lacking(facts))
        if lacking is None:
            return None
        if not lacking:
            await self._end(file, facts)
            return None
        return _Promise(file, facts, lacking)

    async def _lacking(self, facts: ImageFacts) -> tuple[Kind, ...]:
        """The kinds of documents that the image lacks; none if the destination does not have the image itself."""
        repository, digest = facts.request.repository, facts.manifest.digest
        if await self._destination.manifest(repository, digest) is None:
            return ()
        return await referrers.lacking(self._destination, repository, digest)

    async def _attach(self, promise: _Promise, documents: Mapping[str, str]) -> bool:
        """Put the artifacts, and list them where the destination does not do so itself."""
        repository, subject = promise.facts.request.repository, promise.facts.manifest
        unlisted = []
        if not await self._destination.has_blob(repository, digest_of(kinds.EMPTY)):
            await self._destination.put_blob(repository, kinds.EMPTY)
        for kind in promise.kinds:
            document = documents[kind.name].encode()
            artifact = kinds.artifact(kind, document, subject)
            await self._destination.put_blob(repository, document)
            manifest = artifact.manifest_descriptor
            is_listed = await self._destination.put_manifest(
                repository, manifest.digest, manifest.media_type, artifact.manifest
            )
            if not is_listed:
                unlisted.append(kinds.entry(kind, manifest))
        if unlisted:
            async with referrers.lease(self._state, repository, subject.digest):
                # `prune` may have deleted the image meanwhile: then nothing would ever delete its list.
                if await self._destination.manifest(repository, subject.digest) is not None:
                    write = self._versions.write(repository)
                    await referrers.add(self._destination, repository, subject.digest, unlisted, write)
        return True

    async def _attempt(self, file: Path, facts: ImageFacts, step: Awaitable[T]) -> T | None:
        """The result of this step; None if it failed, after which it is tried again later, or never."""
        try:
            return await step
        except (NixfrontError, DocumentInvalid) as error:
            if isinstance(error, DocumentInvalid) or (
                isinstance(error, RegistryRefused) and not error.temporary
            ):
                _log.warning("the registry takes no documents of an image error=%s", error)
                await self._end(file, facts)
            else:
                _log.warning("documents of an image wait seconds=%.0f error=%s", _AGAIN, error)
                self._later(file)
            return None

    async def _write(self, file: Path, data: bytes) -> bool:
        try:
            await asyncio.to_thread(write_whole, file, data)
        except OSError as error:
            _log.warning("the facts of an image wait for room on the disk file=%s error=%s", file.name, error)
            return False
        return True

    def _later(self, file: Path, seconds: float = _AGAIN) -> None:
        def again() -> None:
            self._timers.discard(timer)
            self._enqueue(file)

        timer = asyncio.get_running_loop().call_later(seconds, again)
        self._timers.add(timer)

    async def _end(self, file: Path, facts: ImageFacts) -> None:
        """Nothing is due to this image any more."""
        await self._state.record_attached(facts.request.repository, facts.manifest.digest)
        await self._forget(file)

    async def _forget(self, file: Path) -> None:
        await asyncio.to_thread(file.unlink, missing_ok=True)


@contextmanager
def _one_image(file: Path) -> Iterator[None]:
    """A bug that one image meets must not cost others their documents: the next start tries this one again."""
    try:
        yield
    except Exception:
        _log.exception("documents of an image failed file=%s", file.name)
