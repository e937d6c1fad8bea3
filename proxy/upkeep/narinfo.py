"""Narinfo files of a binary cache, in a folder or over HTTP: what a cache knows about store paths.

A narinfo is a few lines of `Key: value`, filed under the hash of its store path. This module reads names, sizes and
references only, and nothing is installed by them, so it checks no signatures.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from proxy.core.errors import PackageSetUnavailable
from proxy.core.model import PathInfo, without_credentials
from proxy.core.names import is_store_path
from proxy.nix.cache.narinfo import read_fields
from proxy.tools.retry import retry

_READS_AT_ONCE = 32
_TRIES = 3
_PAUSE = 0.5  # seconds before the second try; doubled for each further one
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
_HASH = re.compile(r"(?:\S*/)?([0-9a-z]{32})(?:-[^\s/]+)?/?")

#: Reads the narinfo of a hash; None where the cache has none.
_Read = Callable[[str], Coroutine[None, None, str | None]]


def hash_of(name: str) -> str:
    """The hash of a store path; `name` may also be the hash itself. Raises `PackageSetUnavailable` for anything else."""
    match = _HASH.fullmatch(name)
    if match is None:
        raise PackageSetUnavailable(
            f"{name!r} is no store path (/nix/store/<hash>-<name>) and no hash of one"
        )
    return match[1]


def parse(text: str) -> PathInfo:
    """The store path of a narinfo, with its size and references. Raises `ValueError` for a text that is no narinfo."""
    fields, _ = read_fields(text)
    path, size = fields.get("StorePath", ""), fields.get("NarSize", "")
    folder, _, name = path.rpartition("/")  # a cache may be of another folder than /nix/store
    if not (folder.startswith("/") and is_store_path(f"/nix/store/{name}") and size.isdecimal()):
        raise ValueError("it has no StorePath and NarSize")
    needed = {f"{folder}/{reference}" for reference in fields.get("References", "").split()} - {path}
    return PathInfo(path, int(size), tuple(sorted(needed)))


async def closures(cache: str, roots: Iterable[str]) -> dict[str, PathInfo]:
    """These store paths (paths or hashes) and all that they need, by hash, as far as the cache has them.

    `cache` is a folder or a URL. Raises `PackageSetUnavailable`.
    """
    hashes = dict.fromkeys(map(hash_of, roots))
    if urlsplit(cache).scheme not in ("http", "https"):
        folder = Path(cache.removeprefix("file://"))
        if not await asyncio.to_thread((folder / "nix-cache-info").is_file):
            raise PackageSetUnavailable(f"{folder} is no binary cache: it has no file nix-cache-info")
        return await _walk(hashes, lambda digest: asyncio.to_thread(_read, folder / f"{digest}.narinfo"))
    base = cache.rstrip("/")
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
        if await _get(session, f"{base}/nix-cache-info") is None:
            raise PackageSetUnavailable(
                f"{without_credentials(base)} is no binary cache: it has no nix-cache-info"
            )
        return await _walk(hashes, lambda digest: _get(session, f"{base}/{digest}.narinfo"))


async def _walk(roots: Iterable[str], read: _Read) -> dict[str, PathInfo]:
    found: dict[str, PathInfo] = {}
    slots = asyncio.Semaphore(_READS_AT_ONCE)

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
    """The text at a URL; None for a 404, or for a 403, which some object stores send instead."""

    async def get() -> str | None:
        async with session.get(url) as answer:
            if answer.status in (403, 404):
                return None
            answer.raise_for_status()
            return await answer.text()

    try:
        return await retry(get, _tries, _PAUSE)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PackageSetUnavailable(without_credentials(f"cannot read {url}: {reason}")) from error


def _tries(error: Exception) -> int:
    """A client's mistake (4xx) is final; a cache that is busy or away gets another try."""
    return _TRIES if getattr(error, "status", 500) >= 500 else 1
