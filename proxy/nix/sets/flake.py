"""Package sets in a flake."""

import asyncio
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, quote

from typing_extensions import override

from proxy.core.errors import SourceMissing
from proxy.core.model import PackageSet
from proxy.core.names import is_revision
from proxy.nix.sets.kinds import LATEST, Choice, ConfiguredSet, Tools
from proxy.nix.sets.repository import HEAD
from proxy.nix.store import Source

_FORGES = {"github": "github.com", "gitlab": "gitlab.com", "sourcehut": "git.sr.ht"}


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
    async def has(self, reference: str) -> bool:
        if self._repository is None:
            return self.choice.any_commit
        return await self.find(self._repository, reference) is not None

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
        found = await self.find(repository, reference)
        if found is None:
            raise self.unknown(reference, "the repository has no such branch or tag")
        ref = (
            found[0]
            if _has_branches(choice.url)
            else found[0].removeprefix("refs/heads/").removeprefix("refs/tags/")
        )
        return f"ref={quote(ref)}"

    @override
    def describe(self, source: Source, commit: str) -> PackageSet:
        package_set = super().describe(source, commit)
        prefix = self.tools.store.prefix
        return replace(
            package_set,
            expression=str(self.tools.expressions / "locked-flake.nix"),
            arguments={
                "flake": package_set.expression,
                "attribute": self.choice.attribute,
                **{f"inputs.{key}": f"{prefix}{path}" for key, path in source.inputs.items()},
            },
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
