"""Package sets that Nix fetches from an address or a folder: `nixpkgs`, `tarball`, `path` and `flake`."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import aiohttp
from typing_extensions import override

from proxy.core.errors import PackageSetUnavailable, SourceMissing
from proxy.core.model import PackageSet, sha256_hex, without_credentials
from proxy.core.names import is_revision
from proxy.nix.sets.configured import LATEST, ConfiguredSet, TreeSet
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

    @override
    def tree(self, reference: str, commit: str) -> Mapping[str, str | bool]:
        if reference not in (LATEST, self.choice.ref) and "{ref}" not in self.choice.url:
            raise self.unknown(reference, "its address has no place for one")
        return {"type": "tarball", "url": self.choice.url.replace("{ref}", reference)}


class NixpkgsSet(TarballSet):
    """nixpkgs: a channel is a commit, which a text at `pointer` names. Without a pointer it is a tarball."""

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
    async def commit(self, reference: str) -> str:
        if not self.has_commits:
            return ""
        return reference if is_revision(reference) else await self._commit_of_channel(reference)

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
        return text


class FlakeSet(ConfiguredSet):
    """A flake at a branch, a tag or a commit, with all its inputs."""

    @override
    async def fetch(self, reference: str, commit: str) -> PackageSet:
        address = self.choice.url
        if reference != LATEST:
            query = f"{'rev' if is_revision(reference) else 'ref'}={reference}"
            address += ("&" if "?" in address else "?") + query
        root = self.tools.folder / f"{self.key}-{sha256_hex(address.encode())[:32]}"
        try:
            source = await self.tools.store.fetch_flake(address, root)
        except SourceMissing as error:
            raise self.missing(reference, error) from error
        return await asyncio.to_thread(self.describe, source, source.revision)

    @override
    def describe(self, source: Source, commit: str) -> PackageSet:
        package_set = super().describe(source, commit)
        return replace(
            package_set,
            expression=str(self.tools.expressions / "flake.nix"),
            arguments={"flake": package_set.expression, "attribute": self.choice.attribute},
        )
