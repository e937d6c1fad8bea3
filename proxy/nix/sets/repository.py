"""The questions that git answers about one repository.

Only branches and tags count. Whoever may open a pull request, or fork the repository on a forge, can put commits of their own
under its name: in `refs/pull`, or in no ref at all. So nothing here fetches a commit by its hash, and no question to the
mirror reaches the network.

git uses the operator's own credentials (agent, helpers, netrc) and never asks for any. A password in the address reaches it
through the environment, because every user of the host reads command lines. A name comes from a tag of the distribution
specification, and is compared with those that the repository lists.
"""

import asyncio
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from proxy.core.errors import PackageSetUnavailable, ProcessFailed
from proxy.core.model import without_credentials
from proxy.tools.process import run

HEAD = "HEAD"  # the repository's own name for its main branch
_MIRROR_OF_HEAD = "refs/nixfront/HEAD"
_VERBS = ("ls-remote", "init", "fetch", "rev-list", "for-each-ref")
#: A list of refs that is younger answers for all names that it lacks.
LOOK_SECONDS = 30.0
# The mirror lacks trees and files, which git would fetch on demand: here it shall find them missing.
_OFFLINE = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
# The helper reads its answer from the environment; the empty one before it turns off the helpers of the host.
_HELPER = '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$NIXFRONT_GIT_USER" "$NIXFRONT_GIT_PASSWORD"; }; f'

_NAME_OF_OBJECT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?\n")

_log = logging.getLogger(__name__)


class Repository:
    """One repository: a list of its branches and tags, and a mirror of their history."""

    def __init__(
        self, url: str, mirror: Path, *, deadline: float, follow_head: bool, patience: float
    ) -> None:
        """`mirror` is a folder that keeps the history; `deadline` of each run of git is in seconds.

        `follow_head`: the repository's `HEAD` counts as a branch of that name. The mirror answers for commits that it
        reaches without a new fetch for `patience` seconds.
        """
        self.url, self.environment = without_password(url)
        self._mirror = mirror
        self._deadline = deadline
        self._follow_head = follow_head
        self._patience = max(patience, LOOK_SECONDS)
        self._refs: Mapping[str, str] = {}
        self._listed = self._fetched = float("-inf")
        self._listing = asyncio.Lock()
        self._fetching = asyncio.Lock()  # git locks a repository while it fetches, and does not wait

    async def head(self) -> str | None:
        """The commit of `HEAD`; None where there is none. Raises `PackageSetUnavailable`."""
        return (await self._git("ls-remote", "--", self.url, HEAD)).partition("\t")[0] or None

    async def find(self, name: str) -> tuple[str, str] | None:
        """The ref and the commit of the branch of this name, else of the tag; None where there is neither.

        A name that a list of the last moments lacks costs no question. Raises `PackageSetUnavailable`.
        """
        async with self._listing:
            if self._ref(name) or time.monotonic() - self._listed > LOOK_SECONDS:
                lines = (await self._git("ls-remote", "--heads", "--tags", "--", self.url)).splitlines()
                self._refs = {ref: commit for commit, _, ref in (line.partition("\t") for line in lines)}
                self._listed = time.monotonic()
            ref = self._ref(name)
            # ^{}: the commit that an annotated tag names
            return (ref, self._refs.get(f"{ref}^{{}}", self._refs[ref])) if ref else None

    async def names_that_reach(self, commit: str) -> tuple[str, ...]:
        """The full names of the branches and tags whose history has this commit, and `HEAD` if it counts.

        Where the repository does not answer, the mirror answers as it was last. Raises `PackageSetUnavailable`.
        """
        async with self._fetching:
            age = time.monotonic() - self._fetched
            names = await self._names_in_mirror(commit) if age <= self._patience else ()
            if names or age <= LOOK_SECONDS:
                return names
            try:
                await self._fetch()
            except PackageSetUnavailable as error:
                names = await self._names_in_mirror(commit)
                if not names:
                    raise
                _log.warning("the mirror answers for a repository commit=%s error=%s", commit, error)
                return names
            return await self._names_in_mirror(commit)

    async def last_of_day(self, branch: str, day: str) -> str | None:
        """The last commit of the branch, the tag or `HEAD` up to the end of a day (UTC); None where it is younger.

        Raises `PackageSetUnavailable`.
        """
        async with self._fetching:
            if time.monotonic() - self._fetched > LOOK_SECONDS:
                await self._fetch()
            ref = await self._ref_in_mirror(branch)
            if ref is None:
                return None
            return await self._in_mirror("rev-list", "-1", f"--before={day}T23:59:59Z", ref) or None

    async def first_day(self, branch: str) -> str:
        """The day (UTC) of the oldest commit that the branch, the tag or `HEAD` has in the mirror; empty where there is none.

        Raises `PackageSetUnavailable`.
        """
        async with self._fetching:
            ref = await self._ref_in_mirror(branch)
            if ref is None:
                return ""
            lines = (await self._in_mirror("rev-list", "--max-parents=0", "--timestamp", ref)).splitlines()
        first = min(int(line.partition(" ")[0]) for line in lines)
        return datetime.fromtimestamp(first, tz=UTC).date().isoformat()

    async def _ref_in_mirror(self, branch: str) -> str | None:
        """The full name of a branch, a tag or `HEAD` in the mirror; None where it has no such."""
        starts = [_MIRROR_OF_HEAD] if branch == HEAD else [f"refs/heads/{branch}", f"refs/tags/{branch}"]
        refs = await self._in_mirror("for-each-ref", "--format=%(refname)", *starts)
        return next((ref for ref in starts if ref in refs.splitlines()), None)

    def _ref(self, name: str) -> str:
        return next((ref for ref in (f"refs/heads/{name}", f"refs/tags/{name}") if ref in self._refs), "")

    async def _fetch(self) -> None:
        """Bring the mirror up to date; one that is damaged is made anew."""
        try:
            await self._fetch_into_mirror()
        except PackageSetUnavailable as error:
            if await self._is_sound():
                raise
            _log.warning("a damaged mirror is made anew mirror=%s error=%s", self._mirror, error)
            await asyncio.to_thread(shutil.rmtree, self._mirror, ignore_errors=True)
            await self._fetch_into_mirror()

    async def _is_sound(self) -> bool:
        """Whether git finds what the refs of the mirror name, and no git that was killed has left a lock."""
        try:
            await self._in_mirror("for-each-ref", "--format=%(objecttype)")
        except PackageSetUnavailable:
            return False
        return await asyncio.to_thread(_has_sound_refs, self._mirror)

    async def _fetch_into_mirror(self) -> None:
        if not await asyncio.to_thread(self._mirror.exists):
            await self._git("init", "--quiet", "--bare", str(self._mirror))
        head = (f"+{HEAD}:{_MIRROR_OF_HEAD}",) if self._follow_head else ()
        refspecs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", *head)
        options = ("--quiet", "--no-tags", "--prune", "--filter=tree:0")
        await self._git("--git-dir", str(self._mirror), "fetch", *options, "--", self.url, *refspecs)
        self._fetched = time.monotonic()

    async def _names_in_mirror(self, commit: str) -> tuple[str, ...]:
        if not await asyncio.to_thread(self._mirror.exists):
            return ()
        places = ("refs/heads", "refs/tags", _MIRROR_OF_HEAD)
        try:
            output = await self._in_mirror(
                "for-each-ref", f"--contains={commit}", "--format=%(refname)", *places
            )
        except PackageSetUnavailable:  # it has no such commit
            return ()
        return tuple(HEAD if ref == _MIRROR_OF_HEAD else ref for ref in output.splitlines())

    async def _in_mirror(self, *words: str) -> str:
        return await self._git("--git-dir", str(self._mirror), *words, environment=_OFFLINE)

    async def _git(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        variables = {
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            **os.environ,
            **self.environment,
            **(environment or {}),
            "GIT_TERMINAL_PROMPT": "0",
        }
        try:
            output = await run(("git", *words), env=variables, deadline=self._deadline)
        except ProcessFailed as error:
            fatal = [line for line in error.tail if line.startswith("fatal:")]
            reason = "; ".join(fatal or error.tail[-3:]) or str(error)
            verb = next(word for word in words if word in _VERBS)
            raise PackageSetUnavailable(without_credentials(f"git {verb} failed: {reason}")) from error
        return output.decode().strip()


def _has_sound_refs(mirror: Path) -> bool:
    """Whether each ref that has a file of its own names an object. git passes over one that a power failure emptied."""
    refs = [file for file in (mirror / "refs").rglob("*") if file.is_file()]
    locked = next(mirror.rglob("*.lock"), None) is not None
    return not locked and all(_NAME_OF_OBJECT.fullmatch(file.read_bytes()) for file in refs)


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """An address over http(s) without its user and password, and the variables that give both to git for this origin.

    Any other address stays as it is, with no variables.
    """
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if parts.scheme not in ("http", "https") or not at:
        return url, {}
    name, _, password = user.partition(":")
    first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    key = f"credential.{parts.scheme}://{place}.helper"
    return urlunsplit(parts._replace(netloc=place)), {
        "GIT_CONFIG_COUNT": str(first + 2),
        f"GIT_CONFIG_KEY_{first}": key,
        f"GIT_CONFIG_VALUE_{first}": "",
        f"GIT_CONFIG_KEY_{first + 1}": key,
        f"GIT_CONFIG_VALUE_{first + 1}": _HELPER,
        "NIXFRONT_GIT_USER": unquote(name),
        "NIXFRONT_GIT_PASSWORD": unquote(password),
    }
