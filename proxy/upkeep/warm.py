"""A list of images, pulled as a client would, so that they are there when somebody wants them: by hand, or by a timer."""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs

from proxy import __version__
from proxy.core.errors import NameInvalid, RegistryUnavailable
from proxy.registry.client import EVERY_MANIFEST_TYPE
from proxy.registry.endpoint import Endpoint, OpenEndpoint
from proxy.registry.login import pulling

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10)  # an image may be built first
_HEADERS: dict[str, str] = {hdrs.ACCEPT: EVERY_MANIFEST_TYPE, hdrs.USER_AGENT: f"nixfront-warm/{__version__}"}
_TRIES = 10  # while the host is busy
_LONGEST_PAUSE = 60.0  # seconds
_NAME = re.compile(r"(?P<repository>[a-z0-9][a-z0-9._/-]*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]*))?")


@dataclass(frozen=True, slots=True)
class Warmed:
    """What became of one: the `digest` of its manifest, or an `error`."""

    name: str
    digest: str = ""
    error: str = ""


def read(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Repository and tag of each line, once; empty lines and what follows a `#` do not count. Raises `NameInvalid`."""
    found: dict[tuple[str, str], None] = {}
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            raise NameInvalid(f"line {number}: {name!r} is no NAME[:TAG]")
        found[match["repository"], match["tag"] or "latest"] = None
    return list(found)


async def warm(
    nixfront: Endpoint, images: Sequence[tuple[str, str]], at_once: int, on_done: Callable[[Warmed], None]
) -> list[Warmed]:
    """What became of each image of this nixfront, in their order; `on_done` hears it as it comes."""
    slots = asyncio.Semaphore(at_once)

    async def one(repository: str, tag: str) -> Warmed:
        async with slots:
            done = await _one(reached, repository, tag)
        on_done(done)
        return done

    async with nixfront.opened() as reached:
        return await asyncio.gather(*(one(repository, tag) for repository, tag in images))


async def _one(nixfront: OpenEndpoint, repository: str, tag: str) -> Warmed:
    name, path = f"{repository}:{tag}", f"/v2/{repository}/manifests/{tag}"
    for attempt in range(_TRIES):
        try:
            async with nixfront.ask("GET", path, pulling(repository), _HEADERS, timeout=_TIMEOUT) as answer:
                if answer.status == 200:
                    return Warmed(name, answer.headers.get("Docker-Content-Digest", ""))
                if answer.status != 429 or attempt == _TRIES - 1:
                    return Warmed(name, error=f"{answer.status} {answer.reason}")
                pause = _seconds(answer.headers.get(hdrs.RETRY_AFTER, ""))
        except (aiohttp.ClientError, TimeoutError) as error:
            return Warmed(name, error=f"no answer of {nixfront.url}{path}: {error}")
        except RegistryUnavailable as error:
            return Warmed(name, error=str(error))
        await asyncio.sleep(pause)
    raise AssertionError("unreachable: the last try returns")


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), _LONGEST_PAUSE) if retry_after.isdigit() else 1.0
