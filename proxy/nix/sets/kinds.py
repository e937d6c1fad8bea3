"""A package set as the operator configured it: what every kind of package set is derived from, and what it may use."""

import asyncio
import base64
import fnmatch
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import aiohttp
from typing_extensions import override

from proxy.core.errors import PackageSetUnavailable, SourceMissing, TagUnknown
from proxy.core.model import PackageSet, sha256_hex, without_credentials
from proxy.core.names import is_revision, is_tag, unspelled_tag
from proxy.nix.sets.repository import HEAD, Repository
from proxy.nix.store import NixStore, Source
from proxy.tools.name_index import close

LATEST = "latest"
_NO_DATE = "1980-01-01T00:00:00Z"  # pages of registries show the epoch as "57 years ago"
# Forges take a part of a commit for the commit, also as `git describe` writes it, and with the ending of an archive.
_LIKE_A_COMMIT = re.compile(r"(?:.*-g)?[0-9a-fA-F]{4,64}(?:\.(?:zip|tgz|tar(?:\.\w+)?))?")
_ALL = "*"
Kind = Literal["nixpkgs", "tarball", "git", "path", "flake", "demo"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The operator's settings of one set; what a kind does not use is empty.

    `url`: the address of a git repository, a flake reference, or a template of a tarball's address with `{ref}` or
    `{revision}`. `pointer`: a template with `{ref}` of the address of a text that holds a commit; `listing`: such a template
    of the address of a channel's list of packages. `ref`: what `latest` means; `revision`: a commit, instead of `ref`. `path`:
    a folder or file of this host. `date`: RFC 3339, the date of every image. `archive`: the URL of a Debian archive. `recipe`:
    of the demo set: empty, `big`, or a file. `attribute`: the output of a flake that holds its packages by system.

    `refs`: patterns of the branches, tags and channels that a client may name beside `ref`. `commits`: full commits that a
    client may name although none of these reaches them; `any_commit`: whether a client may name every commit.
    """

    kind: Kind
    url: str = ""
    pointer: str = ""
    listing: str = ""
    ref: str = ""
    revision: str = ""
    path: str = ""
    date: str = ""
    archive: str = ""
    recipe: str = ""
    attribute: str = ""
    import_from_derivation: bool = False
    refs: tuple[str, ...] = (_ALL,)
    commits: tuple[str, ...] = ()
    any_commit: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What a kind of package set works with.

    `expressions` is the folder of nixfront's Nix expressions. `folder` keeps garbage-collector roots and whatever a kind wants
    to keep. `deadline` of one fetch and `time_to_live` of an answer from a repository are in seconds. `system`: of images that
    choose none, or empty.
    """

    store: NixStore
    session: aiohttp.ClientSession
    expressions: Path
    folder: Path
    deadline: float
    time_to_live: float = 0.0
    system: str = ""


class ConfiguredSet(ABC):
    """One configured package set. A kind of package set is a class derived from this one or from `TreeSet`."""

    #: Whether each fetched revision gets a record, so that a tag can choose it again without the network.
    recorded = True

    def __init__(self, name: str, choice: Choice, tools: Tools) -> None:
        """`name` is empty for the default set."""
        self.name = name
        self.choice = choice
        self.tools = tools

    @property
    def label(self) -> str:
        """The name of the set in messages and in the labels of images."""
        return self.name or self.choice.kind

    @property
    def key(self) -> str:
        """What the names of this set's files begin with."""
        return self.name or "default"

    @property
    def address(self) -> str:
        """Where the set comes from, for the labels of images, without credentials."""
        return without_credentials(self.choice.url)

    @property
    def has_commits(self) -> bool:
        """Whether `commit` says more than "": any machine can fetch a commit that another one resolved."""
        return False

    @property
    def lists_names(self) -> bool:
        """Whether a name is looked up in a list of branches and tags, so that it never means a commit."""
        return False

    @property
    def asks_for_each_name(self) -> bool:
        """Whether each unknown name costs a question to another server, as nobody lists the names there."""
        return False

    @property
    def knows_history(self) -> bool:
        """Whether `check_commit` decides about revisions; else those of records count whose reference is allowed."""
        return self.has_commits

    def allows(self, reference: str) -> bool:
        """Whether the operator lets clients name the branch, tag or channel that this tag of an image spells."""
        return any(map(self._allows_name, _spelled(reference) if self.lists_names else (reference,)))

    def _allows_name(self, reference: str) -> bool:
        """Whether the operator lets clients name this branch, tag or channel.

        What may be a commit, or a part of one, needs a pattern of its own, unless it is looked up in a list.
        """
        choice = self.choice
        if choice.any_commit or reference in (LATEST, choice.ref, choice.revision, *choice.commits):
            return True
        patterns: Sequence[str] = choice.refs
        if not self.lists_names and _LIKE_A_COMMIT.fullmatch(reference):
            patterns = [pattern for pattern in patterns if pattern != _ALL]
        return any(fnmatch.fnmatchcase(reference, pattern) for pattern in patterns)

    async def check_commit(self, commit: str) -> None:  # noqa: B027 - where records decide, it has nothing to check
        """Raises `TagUnknown` where the operator does not let clients name this commit, which `allows` does not allow.

        Raises `PackageSetUnavailable` where nobody can say.
        """

    def listing(self, reference: str) -> str:  # noqa: ARG002 - only channels publish lists
        """The address of the list of packages at this reference, which chooses a revision; empty where there is none."""
        return ""

    def note_head(self, reference: str, commit: str) -> None:  # noqa: B027 - only channels need their past
        """A branch or channel that `allows` allows is at this commit now. Blocking: it may write a file."""

    def repository(self, url: str) -> Repository:
        """The git repository at this address."""
        mirror = self.tools.folder / f"{self.key}-{sha256_hex(url.encode())[:16]}.git"
        return Repository(
            url,
            mirror,
            deadline=self.tools.deadline,
            follow_head=self.choice.ref in ("", HEAD),
            patience=self.tools.time_to_live,
        )

    async def check_reach(self, repository: Repository, commit: str) -> tuple[str, ...]:
        """The full names of the branches and tags that reach a commit and that clients may name.

        Raises `TagUnknown` if there are none, `PackageSetUnavailable`.
        """
        names = await repository.names_that_reach(commit)
        chosen = tuple(name for name in names if name == HEAD or self._allows_name(_short(name)))
        if not chosen:
            raise self.unknown(
                commit,
                f"no branch or tag that this host serves reaches this commit; {self.setting}.refs, "
                f"{self.setting}.commits and {self.setting}.any_commit say which commits it serves",
            )
        return chosen

    async def find(self, repository: Repository, reference: str) -> tuple[str, str] | None:
        """The ref and the commit of the branch or tag that a tag of an image spells; None where clients may name none.

        Raises `PackageSetUnavailable`.
        """
        for name in _spelled(reference):
            if self._allows_name(name) and (found := await repository.find(name)):
                return found
        return None

    @property
    def setting(self) -> str:
        """The name of this set's section in the settings."""
        return f"sets.{self.name}" if self.name else "packages"

    async def has(self, reference: str) -> bool:
        """Whether this name, which `allows` allows, chooses a revision. Raises `PackageSetUnavailable`."""
        try:
            return bool(await self.commit(reference))
        except TagUnknown:
            return False

    async def commit(self, reference: str) -> str:  # noqa: ARG002 - a kind without commits has no use for it
        """The commit that a reference (a branch, a tag, a day, a channel, `latest`) is now; empty where there are none.

        Raises `TagUnknown`, `PackageSetUnavailable`.
        """
        return ""

    @abstractmethod
    async def fetch(self, reference: str, commit: str, root: Path) -> PackageSet:
        """The set at this reference, fetched into the store; `commit` is the answer of the method `commit`.

        Garbage-collector roots at `root`, `root-2`, ... hold it.

        Raises `TagUnknown`, `PackageSetUnavailable`.
        """

    async def on(self, package_set: PackageSet, system: str) -> PackageSet:  # noqa: ARG002 - most sets have every system
        """What `fetch` returned, for packages of this system. Raises `PackageUnusable`, `PackageSetUnavailable`."""
        return package_set

    def describe(self, source: Source, commit: str) -> PackageSet:
        """The package set in a fetched source. Reads the source. Raises `PackageSetUnavailable`."""
        tree = Path(self.tools.store.prefix + source.path)
        revision_file = tree / ".git-revision"  # a channel of nixpkgs has it
        if not commit and revision_file.is_file():
            commit = revision_file.read_text(encoding="ascii").strip()
        seconds = self.modified(source)
        date = datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else _NO_DATE
        return PackageSet(
            name=self.label,
            expression=str(tree),
            # Of `sha256-<base64>` the digest in hexadecimal digits, which a tag may hold.
            revision=commit or base64.b64decode(source.nar_hash.partition("-")[2]).hex(),
            source=self.address,
            created=self.choice.date or date,
            nar_hash=source.nar_hash,
        )

    def modified(self, source: Source) -> int:
        """The date of a source, in seconds since the epoch; 0 where it has none."""
        return source.last_modified

    def missing(self, reference: str, error: SourceMissing) -> PackageSetUnavailable | TagUnknown:
        """The error for a source that is not there: a client's tag is unknown, the operator's own is a wrong setting."""
        own = reference in (LATEST, self.choice.ref)
        return error if own else self.unknown(reference, str(error))

    def not_allowed(self, reference: str) -> TagUnknown:
        """The error for a name that `allows` does not allow."""
        if not is_revision(reference) and not self.lists_names and _LIKE_A_COMMIT.fullmatch(reference):
            return self.unknown(
                reference,
                "a part of a revision chooses none; name it in full, or as revision- and its first 12 digits",
            )
        return self.unknown(reference, f"{self.setting}.refs of this host does not allow it")

    def unknown(self, reference: str, reason: str) -> TagUnknown:
        """The error for a tag that chooses no revision, with the one that was perhaps meant."""
        names = (LATEST, self.choice.ref, *self.choice.refs)
        likely = close(reference, [name for name in names if is_tag(name) and name != reference])
        hint = f", did you mean {likely[0]}?" if likely else ""
        return TagUnknown(f"tag {reference!r} names no revision of package set {self.label}: {reason}{hint}")


class TreeSet(ConfiguredSet):
    """A set whose source `builtins.fetchTree` fetches."""

    @abstractmethod
    def tree(self, reference: str, commit: str) -> Mapping[str, str | bool]:
        """The argument of `builtins.fetchTree` for this reference. Raises `TagUnknown`."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for the fetch, which no other user of the host can read."""
        return {}

    @override
    async def fetch(self, reference: str, commit: str, root: Path) -> PackageSet:
        tree = self.tree(reference, commit)
        try:
            source = await self.tools.store.fetch(tree, root, self.environment)
        except SourceMissing as error:
            raise self.missing(reference, error) from error
        return await asyncio.to_thread(self.describe, source, commit)


def _spelled(reference: str) -> tuple[str, ...]:
    """The names that a tag of an image may spell: itself, and the one without escapes."""
    return tuple(dict.fromkeys((reference, unspelled_tag(reference))))


def _short(ref: str) -> str:
    """The name of a branch or tag without its folder."""
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
