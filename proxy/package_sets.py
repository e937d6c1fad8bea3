"""The source of packages -> one fixed revision of it, ready for Nix. Fetched at first use, once for all who ask.

`created` of an image comes from here: the commit date of a git source, the date of a tarball, the operator's own
date or 1980-01-01 for a path (the epoch shows as "57 years ago" in registry pages), never the clock.
"""

import asyncio
import base64
import logging
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from proxy import debian
from proxy.errors import PackageSetUnavailable
from proxy.flight import SingleFlight
from proxy.model import PackageSet
from proxy.nix import Nix, Source

_log = logging.getLogger(__name__)
_NO_DATE = "1980-01-01T00:00:00Z"

Kind = Literal["nixpkgs", "tarball", "git", "path", "demo"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the operator chose. `url`, `ref`, `revision`, `path`, `archive`: as far as the kind needs them."""

    kind: Kind
    url: str = ""
    ref: str = ""
    revision: str = ""
    path: str = ""
    date: str = ""
    archive: str = ""


class PackageSets:
    """The package set of one application."""

    def __init__(self, choice: Choice, nix: Nix, expressions: Path, folder: Path, deadline: float) -> None:
        """`folder` keeps what was resolved; `deadline` (seconds) bounds the first use."""
        self._choice = choice
        self._nix = nix
        self._expressions = expressions
        self._folder = folder
        self._deadline = deadline
        self._current: PackageSet | None = None
        self._loading: SingleFlight[str, PackageSet] = SingleFlight()

    async def current(self) -> PackageSet:
        """The set, fetched if this is the first use. Raises `PackageSetUnavailable`, which is not remembered."""
        if self._current is None:
            self._current = await self._loading.run("current", self._load)
            _log.info("package set=%s revision=%s", self._current.name, self._current.revision)
        return self._current

    async def close(self) -> None:
        """Stop fetching."""
        await self._loading.close()

    async def _load(self) -> PackageSet:
        if self._choice.kind == "demo":
            return await self._demo()
        source = await self._nix.fetch(self._tree(), self._folder / f"{self._choice.kind}-source")
        return await asyncio.to_thread(self._fetched, source)

    async def _demo(self) -> PackageSet:
        """The set that is shipped in the tree, made of Debian packages; no binary cache knows it."""
        shipped = self._expressions / "debian"
        resolved = await debian.resolve(
            self._folder / "demo",
            packages=shipped / "packages.json",
            archive=self._choice.archive or None,
            deadline=self._deadline,
        )
        return PackageSet(
            name="demo",
            expression=str(shipped),
            revision=resolved.revision,
            source="Debian packages",
            created=self._choice.date or resolved.created,
            arguments={"lock": str(resolved.lock), "builder": str(resolved.builder)},
            substitutes=False,
        )

    def _tree(self) -> Mapping[str, str | bool]:
        """The attributes for `builtins.fetchTree`."""
        choice = self._choice
        if choice.kind == "git":
            asked = {"type": "git", "url": choice.url, "ref": choice.ref, "rev": choice.revision}
            return {name: value for name, value in asked.items() if value}
        if choice.kind == "path":
            return {"type": "path", "path": str(Path(choice.path).absolute())}
        url = choice.url.replace("{ref}", choice.ref).replace("{revision}", choice.revision)
        return {"type": "tarball", "url": url}

    def _fetched(self, source: Source) -> PackageSet:
        choice = self._choice
        real = Path(self._nix.prefix + source.path)
        stated = real / ".git-revision"  # what a nixpkgs channel says of itself
        revision = source.revision or (stated.read_text(encoding="ascii").strip() if stated.is_file() else "")
        seconds = 0
        if choice.kind != "path":  # what a folder's files happen to say is no fact about the packages
            seconds = _newest(self._nix.prefix + source.archive) if source.archive else source.last_modified
        return PackageSet(
            name=choice.kind,
            expression=str(real),
            revision=revision or _hexadecimal(source.nar_hash),
            source=choice.path if choice.kind == "path" else choice.url,
            created=choice.date or (_rfc3339(seconds) if seconds else _NO_DATE),
        )


def _newest(archive: str) -> int:
    """The newest modification time in a tarball, in seconds. Raises `PackageSetUnavailable`."""
    try:
        with tarfile.open(archive) as tar:
            return int(max((member.mtime for member in tar), default=0))
    except tarfile.TarError as error:
        raise PackageSetUnavailable(f"the fetched archive is no tarball that can be read: {error}") from error


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _hexadecimal(sri: str) -> str:
    """`sha256-<base64>` as hexadecimal digits, which a tag may hold."""
    return base64.b64decode(sri.partition("-")[2]).hex()
