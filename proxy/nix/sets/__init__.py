"""Package sets: a set's name and a tag -> one fixed revision, fetched and ready for Nix.

A reference is *pinned* (a full commit, or another revision in hexadecimal) or *moving* (`latest`, a branch, a channel, a day).
A pinned one is looked up in the records of the data folder, and touches no network again. A moving one is resolved to a
pinned one once for each time-to-live; all requests that come meanwhile share the answer.

The date of an image comes from here: the commit date of a git source, the newest file of a tarball, the operator's own date,
or 1980-01-01 for a path. It never comes from the clock.

To add a kind of package set:
  1. `configured.py`: add its name to `Kind`, and its own settings, if any, to `Choice`.
  2. A module here: derive a class from `TreeSet`, if `builtins.fetchTree` can fetch it, else from `ConfiguredSet`. `fetched.py`
     has the shortest examples, `git.py` one with commits, `debian/` one that Nix does not fetch. A kind with a loader of its own
     also has a file in the top-level folder `nix/`; its `describe` names that file in `expression`, as `FlakeSet` does.
  3. This file: add the class to `KINDS`.
  4. `proxy/settings/packages.py`, class `PackageSource`: the same name and settings, and which of them the kind needs.
  5. Tests: what it fetches in `tests/unit/nix/sets/`, an image of it in `tests/integration/test_package_sets.py`.
  6. For operators: `config/packages.md`, the section `packages` of `config/nixfront.yml`, the other tags of the kind in
     `config/names.md`, the row `packages.kind` in README.md, and CHANGELOG.md. For developers: the room in proxy/README.md.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from cachetools import TTLCache

from proxy.core.model import PackageSet
from proxy.core.names import is_revision
from proxy.nix.sets.configured import LATEST, Choice, ConfiguredSet, Kind, Tools
from proxy.nix.sets.debian import DemoSet
from proxy.nix.sets.fetched import FlakeSet, NixpkgsSet, PathSet, TarballSet
from proxy.nix.sets.git import GitSet
from proxy.nix.sets.records import Records
from proxy.state import State
from proxy.tools.flight import SingleFlight

__all__ = ["KINDS", "LATEST", "Choice", "PackageSets", "Tools"]

#: The class of each kind of package set.
KINDS: Mapping[Kind, type[ConfiguredSet]] = {
    "nixpkgs": NixpkgsSet,
    "tarball": TarballSet,
    "git": GitSet,
    "path": PathSet,
    "flake": FlakeSet,
    "demo": DemoSet,
}

_log = logging.getLogger(__name__)
_MOVING = 1024  # how many moving references are cached


class PackageSets:
    """The package sets that the operator configured, by name; the default one's name is empty."""

    def __init__(
        self,
        choices: Mapping[str, Choice],
        tools: Tools,
        *,
        time_to_live: float,
        state: State | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`time_to_live` of a moving reference is in seconds. Through `state` machines share which commit it is."""
        self._sets = {name: KINDS[choice.kind](name, choice, tools) for name, choice in choices.items()}
        self._records = Records(tools.folder)
        self._time_to_live = time_to_live
        self._state = state
        self._now = now
        self._moving: TTLCache[tuple[str, str], PackageSet] = TTLCache(_MOVING, time_to_live)
        self._loading: SingleFlight[tuple[str, str], PackageSet] = SingleFlight()

    async def resolve(self, name: str, tag: str) -> PackageSet:
        """The revision of this set that a tag chooses.

        Raises `TagUnknown`, and `PackageSetUnavailable` when its source cannot be fetched now.
        """
        chosen = self._sets[name]
        own = chosen.choice.revision or chosen.choice.ref or LATEST
        reference = own if tag == LATEST else tag
        cached = self._moving.get((name, reference))
        package_set = cached or await self._loading.run(
            (name, reference), lambda: self._load(chosen, reference)
        )
        # This is a setting of today and no fact about the revision, so no record has it.
        return replace(package_set, import_from_derivation=chosen.choice.import_from_derivation)

    async def close(self) -> None:
        """Stop fetching."""
        await self._loading.close()

    async def _load(self, chosen: ConfiguredSet, reference: str) -> PackageSet:
        """The set at this reference: from its record, else fetched and recorded."""
        pinned = is_revision(reference)
        if pinned and (package_set := await self._recall(chosen, reference)) is not None:
            return package_set
        if not pinned and (commit := await self._shared_commit(chosen, reference)):
            return await self._load(chosen, commit)
        commit = await chosen.commit(reference)
        package_set = await self._recall(chosen, commit) if commit else None
        if package_set is None:
            package_set = await chosen.fetch(reference, commit)
            if chosen.recorded:
                await asyncio.to_thread(self._records.write, chosen, package_set)
        if not pinned:
            self._moving[chosen.name, reference] = package_set
            if self._state is not None and chosen.has_commits:
                where = f"{chosen.name} {chosen.address}"
                await self._state.record_revision(where, reference, package_set.revision, self._now())
        _log.info(
            "package set=%s reference=%s revision=%s", package_set.name, reference, package_set.revision
        )
        return package_set

    async def _recall(self, chosen: ConfiguredSet, revision: str) -> PackageSet | None:
        return await asyncio.to_thread(self._records.recall, chosen, revision)

    async def _shared_commit(self, chosen: ConfiguredSet, reference: str) -> str:
        """The commit to which any machine resolved a moving reference within its time-to-live; else empty."""
        if self._state is None or not chosen.has_commits:
            return ""
        where = f"{chosen.name} {chosen.address}"
        commit, when = await self._state.recall_revision(where, reference) or ("", 0.0)
        return commit if is_revision(commit) and self._now() - when < self._time_to_live else ""
