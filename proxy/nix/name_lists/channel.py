"""The list of packages that a channel of nixpkgs publishes: `packages.json.br`. Nix evaluates nothing for it.

It is one JSON object, compressed by Brotli (nixpkgs: pkgs/top-level/packages-info.nix, make-tarball.nix):

    {"packages": {"git": {"version": "2.51.0", "meta": {"description": ..., "license": ..., "mainProgram": ...}, ...}, ...},
     "version": "2"}

The address comes from the settings. A channel that a client names fills its place for one, after the channel has proved to be
there. The list is large and a stranger's, so it goes to the disk first, and all of it is bounded.
"""

import asyncio
import codecs
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import aiohttp
import brotli
from yarl import URL

from proxy.core.errors import PackageSetUnavailable
from proxy.core.facts import PackageFacts
from proxy.core.model import without_credentials
from proxy.tools import name_file, redirects
from proxy.tools.json_members import MembersInvalid, members
from proxy.tools.name_index import NameIndex

_DEADLINE = aiohttp.ClientTimeout(total=600.0, sock_connect=10.0, sock_read=60.0)
_MOST_BYTES = 64 << 20  # of the compressed list; those of today have about 8 MB
_MOST_UNPACKED = 1 << 30
_PIECE = 1 << 18  # bytes that are unpacked in one step


class ChannelLists:
    """Fetches the lists of channels."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """The session leaves answers compressed."""
        self._session = session

    async def fetch(self, address: str, file: Path) -> NameIndex:
        """The list at this address, which `file` keeps as `name_file.write` does. Raises `PackageSetUnavailable`."""
        shown = without_credentials(address)
        with await asyncio.to_thread(lambda: TemporaryFile(dir=file.parent)) as packed:
            try:
                await self._download(URL(address), packed)
                return await asyncio.to_thread(_unpack, packed, file)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, brotli.error) as error:
                raise PackageSetUnavailable(
                    f"cannot read the list of packages at {shown}: {error}"
                ) from error

    async def _download(self, address: URL, packed: IO[bytes]) -> None:
        headers = {"Accept-Encoding": "identity"}
        async with await redirects.get(self._session, address, _DEADLINE, headers=headers) as answer:
            answer.raise_for_status()
            size = 0
            async for piece in answer.content.iter_chunked(_PIECE):
                size += len(piece)
                if size > _MOST_BYTES:
                    raise ValueError(f"it has more than {_MOST_BYTES >> 20} MiB")
                await asyncio.to_thread(packed.write, piece)


def _unpack(packed: IO[bytes], file: Path) -> NameIndex:
    packed.seek(0)
    return name_file.write(file, (_facts(name, value) for name, value in members(_texts(packed), "packages")))


def _texts(packed: IO[bytes]) -> Iterator[str]:
    """The text of a compressed file, piece by piece. Raises `ValueError` for one that is cut or too large."""
    unpack = brotli.Decompressor()
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    size = 0
    while not unpack.is_finished():
        piece = packed.read(_PIECE) if unpack.can_accept_more_data() else b""
        data = unpack.process(piece, output_buffer_limit=_PIECE)
        if not piece and not data and not unpack.is_finished():
            raise MembersInvalid("it is cut")
        size += len(data)
        if size > _MOST_UNPACKED:
            raise MembersInvalid("it is too large")
        yield decode(data)


def _facts(name: str, value: Any) -> PackageFacts:
    """What the list says of a package; whatever has another type than it ought to counts as absent."""
    package = value if isinstance(value, dict) else {}
    meta = package.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    licenses = meta.get("license")
    licenses = licenses if isinstance(licenses, list) else [licenses]
    return PackageFacts(
        name=name,
        version=_text(package.get("version")),
        description=_text(meta.get("description")),
        license=" AND ".join(filter(None, map(_license, licenses))),
        main_program=_text(meta.get("mainProgram")),
    )


def _license(value: Any) -> str:
    if not isinstance(value, dict):
        return _text(value)
    return next((text for key in ("spdxId", "shortName", "fullName") if (text := _text(value.get(key)))), "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
