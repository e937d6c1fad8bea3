"""Package sets in a git repository, and the questions that git answers about one.

git uses the operator's own credentials (agent, helpers, netrc) and never asks for any. A name comes from a tag of the
distribution specification, so it has neither a leading dash nor a space.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from typing_extensions import override

from proxy.core.errors import PackageSetUnavailable, ProcessFailed
from proxy.core.model import without_credentials
from proxy.core.names import is_revision
from proxy.nix.sets.configured import LATEST, Choice, Tools, TreeSet
from proxy.tools.process import run

_PART_OF_COMMIT = re.compile(r"[0-9a-f]{6,39}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_VERBS = ("ls-remote", "init", "fetch", "rev-list")
_HEAD = "HEAD"  # the repository's own name for its main branch


class GitSet(TreeSet):
    """A git repository at a branch, a tag, a commit, or the last commit of a day."""

    def __init__(self, name: str, choice: Choice, tools: Tools) -> None:
        super().__init__(name, choice, tools)
        self._mirror = asyncio.Lock()  # git locks a repository while it fetches, and does not wait

    @property
    @override
    def has_commits(self) -> bool:
        return True

    @override
    def tree(self, reference: str, commit: str) -> Mapping[str, str | bool]:
        return {"type": "git", "url": self.choice.url, "rev": commit, "allRefs": True}

    @override
    async def commit(self, reference: str) -> str:
        if is_revision(reference):
            return reference
        url, deadline = self.choice.url, self.tools.deadline
        commit = await commit_of(url, _HEAD if reference == LATEST else reference, deadline)
        if commit is None and is_day(reference):
            mirror = self.tools.folder / f"{self.key}.git"
            async with self._mirror:
                commit = await commit_on(url, self.choice.ref or _HEAD, reference, mirror, deadline)
        if commit is None:
            whole = "; a commit has to be written in full" if _PART_OF_COMMIT.fullmatch(reference) else ""
            raise self.unknown(reference, f"the repository has no such branch or tag{whole}")
        return commit


def is_day(reference: str) -> bool:
    """Whether this is a day, as in `2026-01-31`."""
    try:
        return _DAY.fullmatch(reference) is not None and bool(date.fromisoformat(reference))
    except ValueError:  # the 31st of February
        return False


async def commit_of(url: str, name: str, deadline: float) -> str | None:
    """The commit of the branch of this name, else of the tag of this name, or of `HEAD`; None where there is none.

    `deadline` is in seconds. Raises `PackageSetUnavailable` when the repository does not answer.
    """
    if name == _HEAD:
        return (await _git("ls-remote", "--", url, _HEAD, deadline=deadline)).partition("\t")[0] or None
    # ^{}: the commit that an annotated tag names
    wanted = [f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}"]
    listing = await _git("ls-remote", "--", url, *wanted, deadline=deadline)
    commits = {ref: commit for commit, _, ref in (line.partition("\t") for line in listing.splitlines())}
    return next((commits[ref] for ref in wanted if ref in commits), None)


async def commit_on(url: str, branch: str, day: str, mirror: Path, deadline: float) -> str | None:
    """The last commit of the branch up to the end of a day (UTC); None where the branch is younger.

    `mirror` is a folder that keeps the history for the next question. Raises `PackageSetUnavailable`.
    """
    if not await asyncio.to_thread(mirror.exists):
        await _git("init", "--quiet", "--bare", str(mirror), deadline=deadline)
    at = ("--git-dir", str(mirror))
    refspec = f"+{branch if branch == _HEAD else 'refs/heads/' + branch}:refs/heads/{branch}"
    await _git(*at, "fetch", "--quiet", "--no-tags", "--filter=tree:0", "--", url, refspec, deadline=deadline)
    until = f"--before={day}T23:59:59Z"
    return (await _git(*at, "rev-list", "-1", until, f"refs/heads/{branch}", deadline=deadline)) or None


async def _git(*words: str, deadline: float) -> str:
    environment = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes", **os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        output = await run(("git", *words), env=environment, deadline=deadline)
    except ProcessFailed as error:
        fatal = [line for line in error.tail if line.startswith("fatal:")]
        reason = "; ".join(fatal or error.tail[-3:]) or str(error)
        verb = next(word for word in words if word in _VERBS)
        raise PackageSetUnavailable(without_credentials(f"git {verb} failed: {reason}")) from error
    return output.decode().strip()
