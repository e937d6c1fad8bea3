"""What a binary cache says of store paths: its narinfo files, in a folder or over HTTP.

A narinfo is a few lines of `Key: value`, under the hash of its store path. Only names, sizes and references are
read, and nothing is installed by them, so signatures are not checked.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from proxy.errors import PackageSetUnavailable
from proxy.model import PathInfo, without_credentials

_AT_ONCE = 32  # requests
_TRIES = 3
_PAUSE = 0.5  # seconds before a question is asked anew; doubled for each further try
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
_STORE_PATH = re.compile(r"/[^\s/]+(?:/[^\s/]+)*/[0-9a-z]{32}-[^\s/]+")
_HASH = re.compile(r"(?:\S*/)?([0-9a-z]{32})(?:-[^\s/]+)?/?")

#: The text of the narinfo of a hash, None where the cache has none.
_Read = Callable[[str], Coroutine[None, None, str | None]]


def hash_of(name: str) -> str:
    """The hash in a store path, or a hash itself. Raises `PackageSetUnavailable` for what is neither."""
    match = _HASH.fullmatch(name)
    if match is None:
        raise PackageSetUnavailable(
            f"{name!r} is no store path, as /nix/store/<hash>-<name>, and no hash of one"
        )
    return match[1]


def parse(text: str) -> PathInfo:
    """The store path that a narinfo is about. Raises `ValueError` for what is no narinfo."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    path, size = fields.get("StorePath", ""), fields.get("NarSize", "")
    if not (_STORE_PATH.fullmatch(path) and size.isdecimal()):
        raise ValueError("it has no StorePath and NarSize")
    folder = path.rpartition("/")[0]
    needed = {f"{folder}/{name}" for name in fields.get("References", "").split()} - {path}
    return PathInfo(path, int(size), tuple(sorted(needed)))


async def closures(cache: str, roots: Iterable[str]) -> dict[str, PathInfo]:
    """All that the cache (a folder, or the URL of one) has of these store paths, given as paths or hashes, and of all that they need.

    By hash. What it has not is left out. Raises `PackageSetUnavailable`.
    """
    wanted = dict.fromkeys(map(hash_of, roots))
    if urlsplit(cache).scheme not in ("http", "https"):
        folder = Path(cache.removeprefix("file://"))
        if not await asyncio.to_thread((folder / "nix-cache-info").is_file):
            raise PackageSetUnavailable(f"{folder} is no binary cache: it has no file nix-cache-info")
        return await _walk(wanted, lambda digest: asyncio.to_thread(_read, folder / f"{digest}.narinfo"))
    base = cache.rstrip("/")
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
        if await _get(session, f"{base}/nix-cache-info") is None:
            raise PackageSetUnavailable(
                f"{without_credentials(base)} is no binary cache: it has no nix-cache-info"
            )
        return await _walk(wanted, lambda digest: _get(session, f"{base}/{digest}.narinfo"))


async def _walk(roots: Iterable[str], read: _Read) -> dict[str, PathInfo]:
    found: dict[str, PathInfo] = {}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(digest: str) -> PathInfo | None:
        async with slots:
            text = await read(digest)
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise PackageSetUnavailable(f"the narinfo of {digest} cannot be read: {error}") from error

    seen, pending = set(roots), list(roots)
    while pending:
        infos = await asyncio.gather(*map(one, pending))
        found.update((digest, info) for digest, info in zip(pending, infos, strict=True) if info)
        needed = {hash_of(path) for info in infos if info for path in info.references}
        pending = sorted(needed - seen)
        seen |= needed
    return found


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PackageSetUnavailable(f"cannot read {file}: {error}") from error


async def _get(session: aiohttp.ClientSession, url: str) -> str | None:
    """The text at a URL, None for a 404 (or 403, which is how some object stores say it)."""
    for attempt in range(_TRIES):
        try:
            async with session.get(url) as answer:
                if answer.status in (403, 404):
                    return None
                answer.raise_for_status()
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            told = getattr(error, "status", 500)
            if attempt == _TRIES - 1 or told < 500:
                reason = f"{type(error).__name__}: {error}"
                raise PackageSetUnavailable(without_credentials(f"cannot read {url}: {reason}")) from error
            await asyncio.sleep(_PAUSE * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")
