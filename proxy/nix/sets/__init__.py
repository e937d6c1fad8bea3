"""Package sets: a set's name and a tag -> one fixed revision, fetched and ready for Nix.

A reference is *pinned* (a full commit, or another revision in hexadecimal) or *moving* (`latest`, a branch, a channel, a day).
A moving one is resolved to a pinned one once for each time-to-live; all requests that come meanwhile share the answer.

A pinned one is an address that a client chose, so it must be one that the operator serves: a branch or tag reaches it, or a
channel had it. Each request asks anew, before any record is read, because branches and settings change. What passes is
looked up in the records of the data folder, and is not fetched again.

The date of an image comes from here: the commit date of a git source, the newest file of a tarball, the operator's own date,
or 1980-01-01 for a path. It never comes from the clock.

To add a kind of package set:
  1. `kinds.py`: add its name to `Kind`, and its own settings, if any, to `Choice`.
  2. A module here: derive a class from `TreeSet`, if `builtins.fetchTree` can fetch it, else from `ConfiguredSet`. `trees.py`
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

from cachetools import LRUCache, TTLCache

from proxy.core.errors import PackageSetUnavailable, TagUnknown
from proxy.core.model import PackageSet
from proxy.core.names import is_revision, short_revision
from proxy.nix.sets.debian import DemoSet
from proxy.nix.sets.flake import FlakeSet
from proxy.nix.sets.git import GitSet
from proxy.nix.sets.kinds import LATEST, Choice, ConfiguredSet, Kind, Tools
from proxy.nix.sets.records import Records
from proxy.nix.sets.repository import LOOK_SECONDS
from proxy.nix.sets.trees import NixpkgsSet, PathSet, TarballSet
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
_MOST_MISSES = 20  # unknown names of one set that cost a question, in `LOOK_SECONDS`
_UNKNOWN = 4096  # how many references that choose no revision are cached, for `LOOK_SECONDS`


class PackageSets:
    """The package sets that the operator configured, by name; the default one's name is empty."""

    def __init__(
        self,
        choices: Mapping[str, Choice],
        tools: Tools,
        *,
        time_to_live: float,
        most_revisions: int = 64,
        state: State | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`time_to_live` of a moving reference is in seconds. Through `state` machines share which commit it is.

        `most_revisions` of each set are kept.
        """
        self._sets = {name: KINDS[choice.kind](name, choice, tools) for name, choice in choices.items()}
        self._records = Records(tools.folder, most_revisions)
        self._time_to_live = time_to_live
        self._state = state
        self._now = now
        self._moving: TTLCache[tuple[str, str], PackageSet] = TTLCache(_MOVING, time_to_live)
        self._heads: TTLCache[tuple[str, str], bool] = TTLCache(_MOVING, time_to_live)
        self._unknown: TTLCache[tuple[str, str], str] = TTLCache(_UNKNOWN, LOOK_SECONDS)
        # References that were there before: clients may name them, whatever others name.
        self._seen: LRUCache[tuple[str, str], bool] = LRUCache(_MOVING)
        self._misses: dict[str, TTLCache[str, bool]] = {
            name: TTLCache(_MOST_MISSES, LOOK_SECONDS) for name in choices
        }
        self._loading: SingleFlight[tuple[str, ...], PackageSet] = SingleFlight()

    async def resolve(self, name: str, tag: str, system: str = "") -> PackageSet:
        """The revision of this set that a tag chooses, for packages of this system; empty for that of images that choose none.

        Raises `TagUnknown`, and `PackageSetUnavailable` when its source cannot be fetched now.
        """
        chosen = self._sets[name]
        reference = _own(chosen) if tag == LATEST else tag
        if digits := short_revision(tag):
            reference = await self._whole(chosen, tag, digits)
        key = (name, reference)
        if (message := self._unknown.get(key)) is not None:
            raise TagUnknown(message)
        try:
            package_set = self._moving.get(key) or await self._loading.run(
                key, lambda: self._load(chosen, reference)
            )
        except TagUnknown as error:
            self._unknown[key] = str(error)
            raise
        if system:
            package_set = await self._on(chosen, package_set, system)
        # These are settings of today and no facts about the revision, so no record has them.
        return replace(
            package_set,
            import_from_derivation=chosen.choice.import_from_derivation,
            listing=chosen.listing(reference),
        )

    async def _on(self, chosen: ConfiguredSet, package_set: PackageSet, system: str) -> PackageSet:
        """The set for another system; requests that come meanwhile share the answer."""
        key = (chosen.name, package_set.revision, system)
        return await self._loading.run(key, lambda: chosen.on(package_set, system))

    async def _whole(self, chosen: ConfiguredSet, tag: str, digits: str) -> str:
        """The revision that begins so, among those that this host has seen. Raises `TagUnknown` if there is not one."""
        seen = {chosen.choice.revision, *chosen.choice.commits}
        seen |= {each.revision for key, each in self._moving.items() if key[0] == chosen.name}
        seen |= await asyncio.to_thread(self._records.revisions, chosen)
        there = [revision for revision in seen if revision.startswith(digits)]
        if not there:
            latest = await self.resolve(chosen.name, LATEST)
            there = [latest.revision] if latest.revision.startswith(digits) else []
        if len(there) == 1:
            return there[0]
        seen_so = "several revisions" if there else "no revision"
        raise TagUnknown(
            f"the registry has no tag {tag!r}, and this host has seen {seen_so} of package set {chosen.label} that begin so; "
            "name the revision in full"
        )

    async def has(self, name: str, tag: str) -> bool:
        """Whether a tag chooses a revision of this set by itself, as a branch does; True if nobody can say now."""
        chosen = self._sets[name]
        try:
            return chosen.allows(tag) and await chosen.has(tag)
        except PackageSetUnavailable:
            return True

    async def close(self) -> None:
        """Stop fetching."""
        await self._loading.close()

    async def _load(self, chosen: ConfiguredSet, reference: str) -> PackageSet:
        """The set at this reference, if a client may name it."""
        if is_revision(reference):
            await self._check_commit(chosen, reference)
            return await self._at(chosen, reference, reference)
        if not chosen.allows(reference):
            raise chosen.not_allowed(reference)
        if commit := await self._shared_commit(chosen, reference):
            self._seen[chosen.name, reference] = True
            await asyncio.to_thread(chosen.note_head, reference, commit)
        package_set = await self._look_for(chosen, reference, commit)
        self._seen[chosen.name, reference] = True
        self._moving[chosen.name, reference] = package_set
        self._heads[chosen.name, package_set.revision] = True
        self._unknown.pop((chosen.name, package_set.revision), None)
        if self._state is not None and chosen.has_commits and not commit:
            where = f"{chosen.name} {chosen.address}"
            await self._state.record_revision(where, reference, package_set.revision, self._now())
        return package_set

    async def _look_for(self, chosen: ConfiguredSet, reference: str, commit: str) -> PackageSet:
        """As `_at`, within the bound of unknown names. Raises `PackageSetUnavailable` beyond it."""
        misses = self._misses[chosen.name]
        is_new = reference != _own(chosen) and (chosen.name, reference) not in self._seen
        is_bounded = chosen.asks_for_each_name and is_new
        if is_bounded and len(misses) >= _MOST_MISSES:
            raise PackageSetUnavailable(
                f"clients named too many tags that package set {chosen.label} does not have, so this host does not look for "
                f"{reference!r} now; try again in {LOOK_SECONDS:.0f} s"
            )
        if is_bounded:
            misses[reference] = True  # until it is there, so that many questions at once are bounded too
        package_set = await self._at(chosen, reference, commit)
        misses.pop(reference, None)
        return package_set

    async def _check_commit(self, chosen: ConfiguredSet, commit: str) -> None:
        """Raises `TagUnknown` if no client may name this commit, `PackageSetUnavailable` if nobody can say."""
        choice = chosen.choice
        if choice.any_commit or commit in (choice.revision, *choice.commits):
            return
        if (chosen.name, commit) not in self._heads:
            await chosen.check_commit(commit)

    async def _at(self, chosen: ConfiguredSet, reference: str, commit: str) -> PackageSet:
        """The set at this reference: from its record, else fetched and recorded. `commit`: of the reference, or empty."""
        recalled = await self._recall(chosen, commit) if commit else None
        if recalled is None and commit in ("", reference):
            commit = await chosen.commit(reference)
            recalled = await self._recall(chosen, commit) if commit and commit != reference else None
        package_set = recalled or await self._fetch(chosen, reference, commit)
        _log.info(
            "package set resolved set=%s reference=%s revision=%s",
            package_set.name,
            reference,
            package_set.revision,
        )
        return package_set

    async def _fetch(self, chosen: ConfiguredSet, reference: str, commit: str) -> PackageSet:
        root = self._records.root(chosen, reference, commit)
        package_set = await chosen.fetch(reference, commit, root)
        if chosen.recorded:
            own = self._moving.get((chosen.name, _own(chosen)))
            keep = {own.revision} if own else set()
            dropped = await asyncio.to_thread(self._records.write, chosen, package_set, reference, root, keep)
            for key, moving in list(self._moving.items()):
                if key[0] == chosen.name and moving.revision in dropped:
                    self._moving.pop(key, None)
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


def _own(chosen: ConfiguredSet) -> str:
    """What `latest` means."""
    return chosen.choice.revision or chosen.choice.ref or LATEST
