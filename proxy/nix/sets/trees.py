"""Package sets that Nix fetches from an address or a folder: `nixpkgs`, `tarball` and `path`."""

import asyncio
import time
from collections.abc import Mapping

import aiohttp
from typing_extensions import override

from proxy.core.errors import PackageSetUnavailable, reason
from proxy.core.model import sha256_hex, without_credentials
from proxy.core.names import is_revision
from proxy.nix.sets.heads import Heads
from proxy.nix.sets.kinds import LATEST, Choice, Tools, TreeSet
from proxy.nix.sets.repository import LOOK_SECONDS
from proxy.nix.store import Source

_POINTER_SECONDS = 60.0
_POINTER_BYTES = 200


class PathSet(TreeSet):
    """A folder or file of this host."""

    @property
    @override
    def address(self) -> str:
        """Empty: a path means something else on every host."""
        return ""

    @override
    def tree(self, reference: str, commit: str) -> Mapping[str, str | bool]:
        if reference != LATEST:
            raise self.unknown(reference, "a path has no revisions but those that were seen here")
        return {"type": "path", "path": self.choice.path}

    @override
    def modified(self, source: Source) -> int:
        """0: the dates of a folder's files say nothing about the packages."""
        return 0


class TarballSet(TreeSet):
    """A tarball, whose address may hold the tag."""

    @property
    @override
    def asks_for_each_name(self) -> bool:
        return True

    @override
    async def has(self, reference: str) -> bool:
        return await super().has(reference) or "{ref}" in self.choice.url

    @override
    def tree(self, reference: str, commit: str) -> Mapping[str, str | bool]:
        if reference not in (LATEST, self.choice.ref) and "{ref}" not in self.choice.url:
            raise self.unknown(reference, "its address has no place for one")
        if not self.allows(reference):
            raise self.not_allowed(reference)
        return {"type": "tarball", "url": self.choice.url.replace("{ref}", reference)}


class NixpkgsSet(TarballSet):
    """nixpkgs: a channel is a commit, which a text at `pointer` names. Without a pointer it is a tarball.

    A server of archives has more commits than those of channels, such as those of forks. So a client may name a commit only
    if this host has seen it at the head of a channel.
    """

    def __init__(self, name: str, choice: Choice, tools: Tools) -> None:
        super().__init__(name, choice, tools)
        self._heads = Heads(
            tools.folder / f"{self.key}-{sha256_hex(choice.pointer.encode())[:16]}.heads.json"
        )
        self._looked = float("-inf")

    @property
    @override
    def has_commits(self) -> bool:
        return bool(self.choice.pointer)

    @override
    def tree(self, reference: str, commit: str) -> Mapping[str, str | bool]:
        if not self.has_commits:
            return super().tree(reference, commit)
        return {"type": "tarball", "url": self.choice.url.replace("{revision}", commit)}

    @override
    async def check_commit(self, commit: str) -> None:
        if not self.has_commits or await self._was_head(commit):
            return
        if time.monotonic() - self._looked > LOOK_SECONDS:  # it may be the head of our own channel by now
            self._looked = time.monotonic()
            await self._commit_of_channel(self.choice.ref)
            if await self._was_head(commit):
                return
        raise self.unknown(
            commit,
            "this host has not seen this commit at the head of a channel; pull a channel, or let the operator put the "
            f"commit into {self.setting}.commits",
        )

    @override
    def listing(self, reference: str) -> str:
        # Nobody lists the packages of a commit. Those of our own channel are hardly different.
        channel = self.choice.ref if is_revision(reference) else reference
        return self.choice.listing.replace("{ref}", channel) if self.has_commits else ""

    @override
    def note_head(self, reference: str, commit: str) -> None:
        if self.has_commits:
            self._heads.add(commit, reference)

    @override
    async def commit(self, reference: str) -> str:
        if not self.has_commits:
            return ""
        return reference if is_revision(reference) else await self._commit_of_channel(reference)

    async def _was_head(self, commit: str) -> bool:
        channels = await asyncio.to_thread(self._heads.channels, commit)
        return any(self.allows(channel) for channel in channels)

    async def _commit_of_channel(self, reference: str) -> str:
        url = self.choice.pointer.replace("{ref}", reference)
        headers, limit = {"Accept-Encoding": "identity"}, aiohttp.ClientTimeout(total=_POINTER_SECONDS)
        try:
            async with self.tools.session.get(url, headers=headers, timeout=limit) as answer:
                if answer.status in (403, 404):
                    raise self.unknown(reference, f"there is no such channel at {without_credentials(url)}")
                answer.raise_for_status()
                text = (await answer.content.read(_POINTER_BYTES)).decode("ascii", "replace").strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            message = without_credentials(
                f"cannot ask {url} for the channel's commit: {reason(getattr(error, 'os_error', error))}"
            )
            raise PackageSetUnavailable(message) from error
        if not is_revision(text):
            raise PackageSetUnavailable(without_credentials(f"{url} holds no commit but {text[:60]!r}"))
        await asyncio.to_thread(self.note_head, reference, text)
        return text
