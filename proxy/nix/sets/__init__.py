"""A package set and a tag -> one fixed revision, fetched and ready for Nix.

Two kinds of references. A *pinned* one (a full commit, or a revision that was seen here before) is looked up in the
records of the data folder and touches no network again. A *moving* one (`latest`, a branch, a channel, a day) is
resolved to a pinned one once for each time-to-live, and only then; all who ask meanwhile share the answer.

`created` of an image comes from here: the commit date of a git source, the newest file of a tarball, the operator's
own date or 1980-01-01 for a path (the epoch shows as "57 years ago" in registry pages), never the clock.
"""

import asyncio
import base64
import json
import logging
import lzma
import re
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import aiohttp
from cachetools import TTLCache

from proxy.core.errors import PackageSetUnavailable, SourceMissing, TagUnknown
from proxy.core.model import PackageSet, canonical_json, sha256_hex, without_credentials
from proxy.nix.sets import debian, git
from proxy.nix.store import NixStore, Source
from proxy.state import State
from proxy.tools.flight import SingleFlight

_log = logging.getLogger(__name__)
_NO_DATE = "1980-01-01T00:00:00Z"
_MOVING = 1024  # moving references that are remembered
_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PART_OF_COMMIT = re.compile(r"[0-9a-f]{6,39}")

LATEST = "latest"
#: The recipe of the demo set that holds compilers, servers and media programs too, some 3 GB of them.
BIG = "big"
Kind = Literal["nixpkgs", "tarball", "git", "path", "flake", "demo"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the operator chose for one set.

    `url`: of a git repository, a flake reference, or a template of a tarball's with `{ref}` or `{revision}`;
    `recipe`: of the demo set: empty, `big`, or a file; `attribute`: the output of a flake that holds its packages by system; `pointer`: a template with
    `{ref}` of a text that holds a commit; `ref`: what `latest` means; `revision`: a commit, instead of `ref`.
    """

    kind: Kind
    url: str = ""
    pointer: str = ""
    ref: str = ""
    revision: str = ""
    path: str = ""
    date: str = ""
    archive: str = ""
    recipe: str = ""
    attribute: str = ""
    import_from_derivation: bool = False


class PackageSets:
    """The package sets of one application; the name of the default one is empty."""

    def __init__(
        self,
        choices: Mapping[str, Choice],
        store: NixStore,
        session: aiohttp.ClientSession,
        expressions: Path,
        folder: Path,
        *,
        time_to_live: float,
        deadline: float,
        state: State | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`folder` keeps what was resolved; `time_to_live` and `deadline` (of one fetch) are in seconds.

        `state`: where machines agree which commit a moving reference is.
        """
        self._choices = choices
        self._store = store
        self._session = session
        self._expressions = expressions
        self._folder = folder
        self._deadline = deadline
        self._mirrors = asyncio.Lock()  # git locks a repository while it fetches, and does not wait
        self._time_to_live = time_to_live
        self._state = state
        self._now = now
        self._moving: TTLCache[tuple[str, str], PackageSet] = TTLCache(_MOVING, time_to_live)
        self._loading: SingleFlight[tuple[str, str], PackageSet] = SingleFlight()

    async def resolve(self, name: str, tag: str) -> PackageSet:
        """The revision of this set that a tag chooses.

        Raises `TagUnknown`, and `PackageSetUnavailable` when its source cannot be had now.
        """
        choice = self._choices[name]
        reference = (choice.revision or choice.ref or LATEST) if tag == LATEST else tag
        known = self._moving.get((name, reference))
        found = known or await self._loading.run(
            (name, reference), lambda: self._load(name, choice, reference)
        )
        # A word of today's operator, not a fact about the revision: it is in no record.
        return replace(found, import_from_derivation=choice.import_from_derivation)

    async def close(self) -> None:
        """Stop fetching."""
        await self._loading.close()

    async def _load(self, name: str, choice: Choice, reference: str) -> PackageSet:
        """The set at this reference: from a record where it is pinned and known, else fetched and recorded."""
        pinned = _REVISION.fullmatch(reference) is not None
        if pinned and (known := await asyncio.to_thread(self._recall, name, reference)) is not None:
            return known
        if not pinned and (commit := await self._agreed(name, choice, reference)):
            return await self._load(name, choice, commit)
        if choice.kind == "demo":
            found = await self._demo(choice, reference)
        elif choice.kind == "flake":
            found = await self._flake(name, choice, reference)
        else:
            tree, commit = await self._tree(name, choice, reference)
            known = await asyncio.to_thread(self._recall, name, commit) if commit else None
            found = known or await self._fetch(name, choice, reference, tree, commit)
        if not pinned:
            self._moving[name, reference] = found
            if self._state is not None and _has_commits(choice):
                where = f"{name} {_address(choice)}"
                await self._state.record_revision(where, reference, found.revision, self._now())
        _log.info("package set=%s reference=%s revision=%s", found.name, reference, found.revision)
        return found

    async def _agreed(self, name: str, choice: Choice, reference: str) -> str:
        """The commit that a moving reference was resolved to by any machine, not too long ago; else empty."""
        if self._state is None or not _has_commits(choice):
            return ""
        commit, when = await self._state.recall_revision(f"{name} {_address(choice)}", reference) or ("", 0.0)
        return commit if git.is_commit(commit) and self._now() - when < self._time_to_live else ""

    async def _tree(self, name: str, choice: Choice, reference: str) -> tuple[Mapping[str, str | bool], str]:
        """What `builtins.fetchTree` is to fetch, and the commit that it is where the kind has commits."""
        match choice.kind:
            case "git":
                commit = await self._git_commit(name, choice, reference)
                return {"type": "git", "url": choice.url, "rev": commit, "allRefs": True}, commit
            case "path":
                if reference != LATEST:
                    raise _unknown(
                        name, choice, reference, "a path has no revisions but those that were seen here"
                    )
                return {"type": "path", "path": choice.path}, ""
            case "nixpkgs" if choice.pointer:
                commit = (
                    reference if git.is_commit(reference) else await self._pointed(name, choice, reference)
                )
                return {"type": "tarball", "url": choice.url.replace("{revision}", commit)}, commit
            case _:
                if reference not in (LATEST, choice.ref) and "{ref}" not in choice.url:
                    raise _unknown(name, choice, reference, "its address has no place for one")
                return {"type": "tarball", "url": choice.url.replace("{ref}", reference)}, ""

    async def _git_commit(self, name: str, choice: Choice, reference: str) -> str:
        if git.is_commit(reference):
            return reference
        branch = git.HEAD if reference == LATEST else reference
        commit = await git.commit_of(choice.url, branch, self._deadline)
        if commit is None and git.is_day(reference):
            mirror = self._folder / f"{name or 'default'}.git"
            async with self._mirrors:
                branch = choice.ref or git.HEAD
                commit = await git.commit_on(choice.url, branch, reference, mirror, self._deadline)
        if commit is None:
            whole = "; a commit has to be written in full" if _PART_OF_COMMIT.fullmatch(reference) else ""
            raise _unknown(name, choice, reference, f"the repository has no such branch or tag{whole}")
        return commit

    async def _pointed(self, name: str, choice: Choice, reference: str) -> str:
        """The commit that a channel is at now."""
        url = choice.pointer.replace("{ref}", reference)
        try:
            async with self._session.get(
                url, headers={"Accept-Encoding": "identity"}, timeout=aiohttp.ClientTimeout(total=60)
            ) as answer:
                if answer.status in (403, 404):
                    raise _unknown(
                        name, choice, reference, f"there is no such channel at {without_credentials(url)}"
                    )
                answer.raise_for_status()
                text = (await answer.content.read(200)).decode("ascii", "replace").strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            told = without_credentials(f"cannot ask {url} for the channel's commit: {error}")
            raise PackageSetUnavailable(told) from error
        if not git.is_commit(text):
            raise PackageSetUnavailable(without_credentials(f"{url} holds no commit but {text[:60]!r}"))
        return text

    async def _demo(self, choice: Choice, reference: str) -> PackageSet:
        """The set that is shipped in the tree, made of Debian packages; no binary cache knows it."""
        if reference != LATEST and not _REVISION.fullmatch(reference):
            raise _unknown("demo", choice, reference, "it has no revisions but its own")
        shipped = self._expressions / "debian"
        folder, recipe = "demo", shipped / "packages.json"
        if choice.recipe == BIG:
            folder, recipe = "demo-big", shipped / "packages-big.json"
        elif choice.recipe:
            folder, recipe = f"demo-{sha256_hex(choice.recipe.encode())[:16]}", Path(choice.recipe)
        resolved = await debian.resolve(
            self._folder / folder,
            expression=shipped,
            recipe=recipe,
            archive=choice.archive or None,
            deadline=self._deadline,
        )
        if reference not in (LATEST, resolved.revision):
            raise TagUnknown(
                f"tag {reference!r} names no revision of package set demo; "
                f"there are {LATEST!r} and {resolved.revision!r}"
            )
        return PackageSet(
            name="demo",
            expression=str(shipped),
            revision=resolved.revision,
            source="Debian packages",
            created=choice.date or resolved.created,
            arguments={"lock": str(resolved.lock), "builder": str(resolved.builder)},
            substitutes=False,
        )

    async def _flake(self, name: str, choice: Choice, reference: str) -> PackageSet:
        """A flake at a branch, a tag or a commit."""
        asked = "" if reference == LATEST else f"{'rev' if git.is_commit(reference) else 'ref'}={reference}"
        address = choice.url + (("&" if "?" in choice.url else "?") + asked if asked else "")
        root = self._folder / f"{name or 'default'}-{sha256_hex(address.encode())[:32]}"
        try:
            source = await self._store.fetch_flake(address, root)
        except SourceMissing as error:
            if reference in (LATEST, choice.ref):
                raise
            raise _unknown(name, choice, reference, str(error)) from error
        return await asyncio.to_thread(self._record, name, choice, source, source.revision)

    async def _fetch(
        self, name: str, choice: Choice, reference: str, tree: Mapping[str, str | bool], commit: str
    ) -> PackageSet:
        """Fetch what is not known yet, and record it."""
        root = self._folder / f"{name or 'default'}-{sha256_hex(canonical_json(tree))[:32]}"
        try:
            source = await self._store.fetch(tree, root)
        except SourceMissing as error:
            if reference in (LATEST, choice.ref):
                raise
            raise _unknown(name, choice, reference, str(error)) from error
        return await asyncio.to_thread(self._record, name, choice, source, commit)

    def _record(self, name: str, choice: Choice, source: Source, commit: str) -> PackageSet:
        """The set that this source is; remembered under its revision."""
        real = Path(self._store.prefix + source.path)
        stated = real / ".git-revision"  # what a nixpkgs channel says of itself
        if not commit and stated.is_file():
            commit = stated.read_text(encoding="ascii").strip()
        seconds = 0
        if choice.kind != "path":  # what a folder's files happen to say is no fact about the packages
            seconds = _newest(self._store.prefix + source.archive) if source.archive else source.last_modified
        flake = {"flake": str(real), "attribute": choice.attribute}
        found = PackageSet(
            name=name or choice.kind,
            expression=str(self._expressions / "flake.nix") if choice.kind == "flake" else str(real),
            arguments=flake if choice.kind == "flake" else {},
            revision=commit or _hexadecimal(source.nar_hash),
            source=_address(choice),
            created=choice.date or (_rfc3339(seconds) if seconds else _NO_DATE),
            nar_hash=source.nar_hash,
        )
        file = self._record_file(name, found.revision)
        # Two references may come to one revision at the same time.
        temporary = file.with_suffix(f".{threading.get_ident()}.new")
        temporary.write_bytes(canonical_json({"date": choice.date, "set": asdict(found)}))
        temporary.replace(file)
        return found

    def _recall(self, name: str, revision: str) -> PackageSet | None:
        """The recorded set of this revision, if the operator's choice is still the same and the store has it."""
        choice = self._choices[name]
        try:
            record = json.loads(self._record_file(name, revision).read_bytes())
            known = PackageSet(**record["set"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        same = known.source == _address(choice) and record["date"] == choice.date
        same &= known.arguments.get("attribute", choice.attribute) == choice.attribute
        paths = (known.expression, *known.arguments.values())
        there = all(Path(path).exists() for path in paths if path.startswith("/"))
        return known if same and there else None

    def _record_file(self, name: str, revision: str) -> Path:
        return self._folder / f"{name or 'default'}-{revision}.json"


def _unknown(name: str, choice: Choice, reference: str, reason: str) -> TagUnknown:
    return TagUnknown(f"tag {reference!r} names no revision of package set {name or choice.kind}: {reason}")


def _has_commits(choice: Choice) -> bool:
    """Whether a moving reference of this set becomes a commit, which every machine can fetch by itself."""
    return choice.kind == "git" or (choice.kind == "nixpkgs" and bool(choice.pointer))


def _address(choice: Choice) -> str:
    """Where a set comes from, for labels: nothing for a path, which is another one on every host."""
    return "" if choice.kind == "path" else without_credentials(choice.url)


def _newest(archive: str) -> int:
    """The newest modification time in a tarball, in seconds. Raises `PackageSetUnavailable`."""
    try:
        with tarfile.open(archive) as tar:
            return int(max((member.mtime for member in tar), default=0))
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise PackageSetUnavailable(f"the fetched archive is no tarball that can be read: {error}") from error


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _hexadecimal(sri: str) -> str:
    """`sha256-<base64>` as hexadecimal digits, which a tag may hold."""
    return base64.b64decode(sri.partition("-")[2]).hex()
