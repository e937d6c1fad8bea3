"""The attribute names of each package set's revision: listed once, kept in memory and on disk.

Listing a small set takes Nix some milliseconds, and nixpkgs many seconds; a revision never changes, so its list does not.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from cachetools import LRUCache

from proxy.core.errors import NixfrontError
from proxy.core.model import PackageSet, Policy, canonical_json, sha256_hex
from proxy.nix.store import Nix
from proxy.tools.flight import SingleFlight

_log = logging.getLogger(__name__)
_REVISIONS = 8  # lists that are kept in memory
_PATIENCE = 2.0  # seconds that an error message waits for better suggestions


class AttributeNames:
    """The lists of one application."""

    def __init__(self, nix: Nix, system: str, policy: Policy, folder: Path) -> None:
        """`folder` keeps a file for each revision."""
        self._nix = nix
        self._system = system
        self._policy = policy
        self._folder = folder
        self._lists: LRUCache[str, tuple[str, ...]] = LRUCache(_REVISIONS)
        self._listing: SingleFlight[str, tuple[str, ...]] = SingleFlight()

    async def of(self, package_set: PackageSet) -> tuple[str, ...]:
        """Every name of this revision, sorted. Raises a `NixfrontError`."""
        key = sha256_hex(
            canonical_json([package_set.name, package_set.source, package_set.revision, self._system])
        )
        known = self._lists.get(key)
        return known or await self._listing.run(key, lambda: self._list(key, package_set))

    async def soon(self, package_set: PackageSet) -> Sequence[str]:
        """The same if it is at hand within a moment, else nothing; the listing goes on for the next who asks."""
        try:
            return await asyncio.wait_for(self.of(package_set), _PATIENCE)
        except TimeoutError:
            return ()
        except (
            NixfrontError
        ) as error:  # it is only for suggestions: the error that wants them is the one to tell
            _log.warning("no list of names set=%s error=%s", package_set.name, error)
            return ()

    async def close(self) -> None:
        """Stop listing."""
        await self._listing.close()

    async def _list(self, key: str, package_set: PackageSet) -> tuple[str, ...]:
        file = self._folder / f"names-{key[:32]}.json"
        found = await asyncio.to_thread(_read, file)
        if found is None:
            found = tuple(sorted(await self._nix.names(package_set, self._system, self._policy)))
            await asyncio.to_thread(_write, file, found)
        self._lists[key] = found
        return found


def _read(file: Path) -> tuple[str, ...] | None:
    try:
        return tuple(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return None


def _write(file: Path, names: Sequence[str]) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_bytes(canonical_json(list(names)))
    temporary.replace(file)
