"""Questions to a git repository, asked with git itself: which commit a name is, which one was the last on a day.

git runs with the operator's own credentials (agent, helpers, netrc) and never asks for any. A name comes from a
tag of the distribution specification, so it has neither a leading dash nor a space.
"""

import asyncio
import os
import re
from datetime import date
from pathlib import Path

from proxy.core.errors import PackageSetUnavailable, ProcessFailed
from proxy.core.model import without_credentials
from proxy.tools.process import run

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_VERBS = ("ls-remote", "init", "fetch", "rev-list")
HEAD = "HEAD"  # what the repository itself takes for its main branch


def is_commit(reference: str) -> bool:
    """Whether this is a full commit, which needs no question."""
    return _COMMIT.fullmatch(reference) is not None


def is_day(reference: str) -> bool:
    """Whether this is a day, as in `2026-01-31`."""
    try:
        return _DAY.fullmatch(reference) is not None and bool(date.fromisoformat(reference))
    except ValueError:  # the 31st of February
        return False


async def commit_of(url: str, name: str, deadline: float) -> str | None:
    """The commit that a branch or, where there is none, a tag of this name is, or `HEAD`; None if there is none.

    Raises `PackageSetUnavailable` when the repository does not answer.
    """
    if name == HEAD:
        return (await _git("ls-remote", "--", url, HEAD, deadline=deadline)).partition("\t")[0] or None
    wanted = [
        f"refs/heads/{name}",
        f"refs/tags/{name}^{{}}",
        f"refs/tags/{name}",
    ]  # ^{}: what an annotated tag tags
    listing = await _git("ls-remote", "--", url, *wanted, deadline=deadline)
    found = {ref: commit for commit, _, ref in (line.partition("\t") for line in listing.splitlines())}
    return next((found[ref] for ref in wanted if ref in found), None)


async def commit_on(url: str, branch: str, day: str, mirror: Path, deadline: float) -> str | None:
    """The last commit of the branch up to the end of a day (UTC), None if it is younger than that.

    `mirror` is a folder that keeps the history for the next question. Raises `PackageSetUnavailable`.
    """
    if not await asyncio.to_thread(mirror.exists):
        await _git("init", "--quiet", "--bare", str(mirror), deadline=deadline)
    at = ("--git-dir", str(mirror))
    refspec = f"+{branch if branch == HEAD else 'refs/heads/' + branch}:refs/heads/{branch}"
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
