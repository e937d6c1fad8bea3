"""Pull a list of images as a client would, so that they exist before anybody needs them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs

from proxy import __version__
from proxy.core import typed
from proxy.core.errors import NameInvalid, RegistryUnavailable
from proxy.core.model import EVERY_MANIFEST_TYPE
from proxy.core.names import is_repository, is_tag
from proxy.registry.endpoint import Endpoint, OpenEndpoint
from proxy.registry.login import pull_scopes
from proxy.registry.no_answer import why
from proxy.tools.retry import retry

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10)  # an image may be built first
_HEADERS: dict[str, str] = {hdrs.ACCEPT: EVERY_MANIFEST_TYPE, hdrs.USER_AGENT: f"nixfront-warm/{__version__}"}
_TRIES = 10  # while the host is busy
_LONGEST_PAUSE = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome for one image: the `digest` of its manifest, or an `error`."""

    name: str
    digest: str = ""
    error: str = ""


def read(lines: Iterable[str], hosts: Collection[str] = ()) -> list[tuple[str, str]]:
    """Repository and tag of each line, without repetitions. `#` begins a comment. Raises `NameInvalid`.

    `hosts`: names of this host, which may stand in front of a repository.
    """
    images: dict[tuple[str, str], None] = {}
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        repository, tag = typed.read(name, hosts)
        if not is_repository(repository) or not is_tag(tag):
            raise NameInvalid(f"line {number}: {name!r} is not NAME[:TAG]")
        images[repository, tag] = None
    return list(images)


async def warm(nixfront: Endpoint, images: Sequence[tuple[str, str]], at_once: int) -> AsyncIterator[Outcome]:
    """Pull these images (repository and tag) through a nixfront; yields each outcome as soon as it is there."""
    slots = asyncio.Semaphore(at_once)

    async def one(repository: str, tag: str) -> Outcome:
        async with slots:
            return await _pull(reached, repository, tag)

    async with nixfront.opened() as reached:
        pulls = [asyncio.create_task(one(repository, tag)) for repository, tag in images]
        try:
            for pull in asyncio.as_completed(pulls):
                yield await pull
        finally:
            for task in pulls:
                task.cancel()
            await asyncio.gather(*pulls, return_exceptions=True)


class _HostBusy(Exception):
    """nixfront builds as much as it may; it answered 429 with a `Retry-After`."""

    def __init__(self, status: str, retry_after: str) -> None:
        super().__init__(status)
        self.retry_after = retry_after


async def _pull(nixfront: OpenEndpoint, repository: str, tag: str) -> Outcome:
    name, path = f"{repository}:{tag}", f"/v2/{repository}/manifests/{tag}"

    async def pull() -> Outcome:
        async with nixfront.ask("GET", path, pull_scopes(repository), _HEADERS, timeout=_TIMEOUT) as answer:
            status = f"{answer.status} {answer.reason}"
            if answer.status == 429:
                raise _HostBusy(status, answer.headers.get(hdrs.RETRY_AFTER, ""))
            if answer.status != 200:
                return Outcome(name, error=status)
            return Outcome(name, answer.headers.get("Docker-Content-Digest", ""))

    try:
        return await retry(pull, _tries, _pause)
    except (aiohttp.ClientError, TimeoutError) as error:
        return Outcome(name, error=f"{nixfront.url}{path} did not answer: {why(error)}")
    except (_HostBusy, RegistryUnavailable) as error:
        return Outcome(name, error=str(error))


def _tries(error: Exception) -> int:
    return _TRIES if isinstance(error, _HostBusy) else 1


def _pause(error: Exception) -> float:
    return _seconds(error.retry_after) if isinstance(error, _HostBusy) else 0.0


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), _LONGEST_PAUSE) if retry_after.isdigit() else 1.0
