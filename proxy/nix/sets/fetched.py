"""Package sets that Nix fetches from an address or a folder: `nixpkgs`, `tarball`, `path` and `flake`."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
from typing_extensions import override

from proxy.core.errors import PackageSetUnavailable, SourceMissing
from proxy.core.model import PackageSet, sha256_hex, without_credentials
from proxy.core.names import is_revision
from proxy.nix.sets.configured import LATEST, Choice, ConfiguredSet, Tools, TreeSet
from proxy.nix.sets.heads import Heads
from proxy.nix.sets.repository import HEAD, LOOK_SECONDS
from proxy.nix.store import Source

_POINTER_SECONDS = 60.0
_POINTER_BYTES = 200
_FORGES = {"github": "github.com", "gitlab": "gitlab.com", "sourcehut": "git.sr.ht"}


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
            message = without_credentials(f"cannot ask {url} for the channel's commit: {error}")
            raise PackageSetUnavailable(message) from error
        if not is_revision(text):
            raise PackageSetUnavailable(without_credentials(f"{url} holds no commit but {text[:60]!r}"))
        await asyncio.to_thread(self.note_head, reference, text)
        return text


class FlakeSet(ConfiguredSet):
    """A flake at a branch, a tag, or a commit that one of them reaches, with all its inputs."""

    def __init__(self, name: str, choice: Choice, tools: Tools) -> None:
        super().__init__(name, choice, tools)
        address = repository_of_flake(choice.url)
        self._repository = self.repository(address) if address else None

    @property
    @override
    def lists_names(self) -> bool:
        return self._repository is not None

    @property
    @override
    def knows_history(self) -> bool:
        return self._repository is not None

    @override
    async def check_commit(self, commit: str) -> None:
        if self._repository is not None:
            await self.check_reach(self._repository, commit)

    @override
    async def fetch(self, reference: str, commit: str, root: Path) -> PackageSet:
        address = self.choice.url
        if reference != LATEST:
            address += ("&" if "?" in address else "?") + await self._query(reference)
        try:
            source = await self.tools.store.fetch_flake(address, root)
        except SourceMissing as error:
            raise self.missing(reference, error) from error
        return await asyncio.to_thread(self.describe, source, source.revision)

    async def _query(self, reference: str) -> str:
        """What chooses this reference in the address of a flake. Raises `TagUnknown`, `PackageSetUnavailable`."""
        choice, repository = self.choice, self._repository
        plain = f"{'rev' if is_revision(reference) else 'ref'}={reference}"
        if choice.any_commit or reference in (choice.ref, choice.revision, *choice.commits):
            return plain
        if repository is None:
            raise self.unknown(
                reference, "nixfront cannot list the branches and tags of this flake's address"
            )
        if is_revision(reference):
            # Nix looks for a commit in one branch, of which the forges' own addresses must not speak.
            names = await self.check_reach(repository, reference) if _has_branches(choice.url) else ()
            return plain + "".join(f"&ref={name}" for name in names[:1] if name != HEAD)
        found = await repository.find(reference)
        if found is None:
            raise self.unknown(reference, "the repository has no such branch or tag")
        return f"ref={found[0]}" if _has_branches(choice.url) else plain

    @override
    def describe(self, source: Source, commit: str) -> PackageSet:
        package_set = super().describe(source, commit)
        return replace(
            package_set,
            expression=str(self.tools.expressions / "flake.nix"),
            arguments={"flake": package_set.expression, "attribute": self.choice.attribute},
        )


def repository_of_flake(address: str) -> str:
    """The git repository of a flake's address; empty where it names none that git itself can ask."""
    place, _, query = address.partition("#")[0].partition("?")
    scheme, _, path = place.partition(":")
    if scheme.startswith("git+"):
        return place.removeprefix("git+")
    owner, _, name = path.partition("/")
    host = parse_qs(query).get("host", [_FORGES.get(scheme, "")])[0]
    return f"https://{host}/{owner}/{name.partition('/')[0]}" if scheme in _FORGES and name else ""


def _has_branches(address: str) -> bool:
    return address.startswith("git+")
