"""Package sets in a git repository."""

import re
from collections.abc import Mapping
from datetime import date

from typing_extensions import override

from proxy.core.names import is_revision
from proxy.nix.sets.kinds import LATEST, Choice, Tools, TreeSet
from proxy.nix.sets.repository import HEAD

_PART_OF_COMMIT = re.compile(r"[0-9a-f]{6,39}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class GitSet(TreeSet):
    """A git repository at a branch, a tag, a commit that one of them reaches, or the last commit of a day."""

    def __init__(self, name: str, choice: Choice, tools: Tools) -> None:
        super().__init__(name, choice, tools)
        self._repository = self.repository(choice.url)

    @property
    @override
    def has_commits(self) -> bool:
        return True

    @property
    @override
    def lists_names(self) -> bool:
        return True

    @property
    @override
    def environment(self) -> Mapping[str, str]:
        return self._repository.environment

    @override
    def tree(self, reference: str, commit: str) -> Mapping[str, str | bool]:
        return {"type": "git", "url": self._repository.url, "rev": commit, "allRefs": True}

    @override
    def allows(self, reference: str) -> bool:
        return super().allows(reference) or is_day(reference)  # a day is one of the operator's own branch

    @override
    async def check_commit(self, commit: str) -> None:
        await self.check_reach(self._repository, commit)

    @override
    async def commit(self, reference: str) -> str:
        if is_revision(reference):
            return reference
        found = await self._commit_of_name(reference)
        if found is None and is_day(reference):
            return await self._commit_of_day(reference)
        if found is None:
            whole = "; a commit has to be written in full" if _PART_OF_COMMIT.fullmatch(reference) else ""
            raise self.unknown(reference, f"the repository has no such branch or tag{whole}")
        return found

    async def _commit_of_name(self, reference: str) -> str | None:
        if reference in (LATEST, HEAD):
            return await self._repository.head()
        found = await self.find(self._repository, reference)
        return found[1] if found else None

    async def _commit_of_day(self, day: str) -> str:
        branch = self.choice.ref or HEAD
        commit = await self._repository.last_of_day(branch, day)
        if commit is None:
            first = await self._repository.first_day(branch)
            reason = (
                f"the first commit is of {first}" if first else "the repository has no such branch or tag"
            )
            raise self.unknown(day, reason)
        return commit


def is_day(reference: str) -> bool:
    """Whether this is a day, as in `2026-01-31`."""
    try:
        return _DAY.fullmatch(reference) is not None and bool(date.fromisoformat(reference))
    except ValueError:  # the 31st of February
        return False
