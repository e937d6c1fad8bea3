"""The demo package set: packages of Debian 12, whose versions a lock holds from the first use on.

It is for a host that reaches a Debian archive but no binary cache. `nix/debian/default.nix` turns the lock into derivations.

Each system has a lock of its own, from the first use of that system on. Its derivations, and so the store paths, are those of a host of
that system; `proxy/nix/stand_ins` builds them on another one.

The lock is canonical JSON:
  system       "x86_64-linux" or "aarch64-linux"
  recipe       SHA-256 (hex) of the recipe: another recipe means another lock
  created      RFC 3339, the date of the archive's release
  attributes   { path: { node, program } }
  nodes        { name: { version, description, debs: [ { name, url, sha256 } ], deps: [ node ], fixups } }
  builder      { debs: as above, hash: SHA-256 (hex) of the folder as a NAR }

nixfront never changes a lock: the set stays as it is, without any network, until somebody deletes the file.
"""

import asyncio
import json
import logging
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from proxy.core.errors import PackageSetUnavailable, PackageUnusable, ProcessFailed, TagUnknown
from proxy.core.model import PackageSet, canonical_json, sha256_hex
from proxy.core.names import is_revision
from proxy.nix.sets.debian.apt import ARCHITECTURES, Archive, download, update
from proxy.nix.sets.debian.builder import PACKAGES, unpack
from proxy.nix.sets.debian.graph import Available, resolve_nodes
from proxy.nix.sets.kinds import LATEST, ConfiguredSet
from proxy.tools.files import write_whole
from proxy.tools.process import run

#: The system of this host, whatever that of its images is.
HERE = f"{platform.machine()}-linux"
#: The recipe that has compilers, servers and media programs too, some 3 GB of them.
BIG = "big"
# The parts of a recipe; a part that it leaves out is empty.
_RECIPE: Mapping[str, type[dict[str, Any]] | type[list[str]]] = {
    "attributes": dict,
    "groups": dict,
    "skip": list,
    "drop": dict,
    "add": dict,
    "fixups": dict,
}
_LOCK = "lock.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DebianSet:
    """A resolved set. `lock` and `builder` are the arguments of the expression of the same names.

    `revision`: 64 hexadecimal digits, equal on every host that has the same packages, whatever its mirror;
    `created`: RFC 3339.
    """

    lock: Path
    builder: Path
    revision: str
    created: str


class DemoSet(ConfiguredSet):
    """The demo set, which comes with nixfront; no binary cache has its packages."""

    #: The lock is its record.
    recorded = False

    @property
    @override
    def label(self) -> str:
        return "demo"

    @override
    async def fetch(self, reference: str, commit: str, root: Path) -> PackageSet:
        if reference != LATEST and not is_revision(reference):
            raise self.unknown(reference, "it has no revisions but its own")
        package_set = await self._for(self._system)
        revisions = [package_set.revision]
        if reference not in (LATEST, *revisions):
            # The revision of any system names the set as it is here.
            revisions += [
                (await self._locked(system)).revision
                for system in ARCHITECTURES
                if system != self._system and await asyncio.to_thread(self._has_lock, system)
            ]
        if reference not in (LATEST, *revisions):
            there = " and ".join(repr(name) for name in (LATEST, *revisions))
            raise TagUnknown(f"tag {reference!r} names no revision of package set demo; there are {there}")
        return package_set

    @override
    async def on(self, package_set: PackageSet, system: str) -> PackageSet:
        if system not in ("", *ARCHITECTURES):
            systems = " and ".join(ARCHITECTURES)
            raise PackageUnusable(
                f"package set {self.label} has packages for {systems}, and none for {system}"
            )
        if system in ("", self._system):
            return package_set
        return replace(await self._for(system), whole=package_set.revision)

    async def _for(self, system: str) -> PackageSet:
        """The set of this system. Raises `PackageSetUnavailable`."""
        resolved = await self._locked(system)
        arguments = {"lock": str(resolved.lock), "builder": str(resolved.builder)}
        if system != HERE:
            here = await self._locked(HERE)
            arguments |= {"hereLock": str(here.lock), "hereBuilder": str(here.builder)}
        return PackageSet(
            name=self.label,
            expression=str(self._shipped),
            revision=resolved.revision,
            source="Debian packages",
            created=self.choice.date or resolved.created,
            arguments=arguments,
            substitutes=False,
            stand_ins="" if system == HERE else str(self._shipped / "stand-ins.nix"),
        )

    async def _locked(self, system: str) -> DebianSet:
        return await resolve(
            self._folder(system),
            expression=self._shipped,
            recipe=self._recipe()[1],
            archive=self.choice.archive or None,
            deadline=self.tools.deadline,
            system=system,
        )

    def _has_lock(self, system: str) -> bool:
        return (self._folder(system) / _LOCK).exists()

    def _folder(self, system: str) -> Path:
        """Where the lock of this system is."""
        name = self._recipe()[0]
        return self.tools.folder / (name if system == HERE else f"{name}-{system}")

    @property
    def _shipped(self) -> Path:
        return self.tools.expressions / "debian"

    @property
    def _system(self) -> str:
        """The system of images that choose none."""
        return self.tools.system or HERE

    def _recipe(self) -> tuple[str, Path]:
        """The name of the folder with the set's lock, and the file of its recipe."""
        recipe = self.choice.recipe
        if not recipe:
            return "demo", self._shipped / "packages.json"
        if recipe == BIG:
            return "demo-big", self._shipped / "packages-big.json"
        return f"demo-{sha256_hex(recipe.encode())[:16]}", Path(recipe)


async def resolve(
    folder: Path,
    *,
    expression: Path,
    recipe: Path,
    archive: str | None,
    deadline: float,
    system: str = HERE,
) -> DebianSet:
    """The set of the lock in `folder`; without a lock, the newest packages that Debian offers, and a new lock of them.

    `expression` is the folder of the Nix expression that builds it, and `recipe` one shaped like the
    `packages.json` in there; `archive` is the URL of a Debian archive, None for those of the host's own apt
    configuration; `deadline` is in seconds. `system` is that of the packages.

    Raises `PackageSetUnavailable`.
    """
    if system not in ARCHITECTURES:
        raise PackageSetUnavailable(
            f"the demo set has packages for {' and '.join(ARCHITECTURES)}, and none for {system}"
        )
    try:
        async with asyncio.timeout(deadline):
            place = await asyncio.to_thread(folder.absolute)
            return await _resolve(place, expression, recipe, archive, system, deadline)
    except TimeoutError as error:
        raise PackageSetUnavailable(
            f"the Debian package set was not resolved within {deadline:.0f} s"
        ) from error
    except OSError as error:
        raise PackageSetUnavailable(f"the Debian package set cannot be kept in {folder}: {error}") from error


async def _resolve(
    folder: Path, expression: Path, file: Path, archive: str | None, system: str, deadline: float
) -> DebianSet:
    recipe = await asyncio.to_thread(read_recipe, file, expression)
    path, builder, apt = folder / _LOCK, folder / "builder", folder / "apt"
    lock = await asyncio.to_thread(_read_lock, path, sha256_hex(canonical_json(recipe)))
    fresh = lock is None
    if lock is None:
        fetched = await update(apt, archive, system, deadline)
        lock = await asyncio.to_thread(_new_lock, recipe, fetched, system)
    if fresh or not await asyncio.to_thread(builder.is_dir):
        digest = await _make_builder(builder, apt, lock["builder"]["debs"], system, deadline)
        if lock["builder"].setdefault("hash", digest) != digest:
            raise PackageSetUnavailable(f"{builder} is another builder than that of {path}: delete the lock")
        # A set that is resolved anew may have other packages, so the lock outlasts a power failure.
        await asyncio.to_thread(write_whole, path, canonical_json(lock) + b"\n", lasts=True)
        _log.info("Debian set resolved nodes=%d lock=%s", len(lock["nodes"]), path)
    chosen = await asyncio.to_thread(revision, lock, expression)
    return DebianSet(path, builder, chosen, lock["created"])


def read_recipe(file: Path, shipped: Path) -> dict[str, Any]:
    """A recipe; one with a `base` (the name of a file beside it, or in the folder `shipped`) adds to that one.

    Raises `PackageSetUnavailable` for what is no recipe.
    """
    try:
        recipe = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise PackageSetUnavailable(f"the recipe {file} cannot be read: {error}") from error
    if not isinstance(recipe, dict):
        raise PackageSetUnavailable(f"the recipe {file} is no JSON object")
    for key, value in recipe.items():
        if not isinstance(value, str if key == "base" else _RECIPE.get(key, ())):
            raise PackageSetUnavailable(f"the recipe {file} has no use for this value of {key!r}")
    if (base := recipe.pop("base", None)) is None:
        return {key: kind(recipe.get(key, ())) for key, kind in _RECIPE.items()}
    beside = file.with_name(base)
    below = read_recipe(beside if beside.is_file() else shipped / base, shipped)
    return {
        key: [*value, *recipe.get(key, [])] if isinstance(value, list) else {**value, **recipe.get(key, {})}
        for key, value in below.items()
    }


def revision(lock: Mapping[str, Any], expression: Path) -> str:
    """The hash of all that decides what the set is: the lock without its URLs, and the code that builds the packages."""
    files = [*expression.glob("*.py"), expression / "default.nix"]  # stand-ins give the same bytes
    code = {file.name: sha256_hex(file.read_bytes()) for file in files}
    return sha256_hex(canonical_json({"lock": _without_urls(lock), "code": code}))


def _without_urls(value: Any) -> Any:
    """The value without any `url`: a file's hash says what it is, and its address does not."""
    if isinstance(value, dict):
        return {key: _without_urls(inner) for key, inner in value.items() if key != "url"}
    return [_without_urls(inner) for inner in value] if isinstance(value, list) else value


def _read_lock(path: Path, recipe: str) -> dict[str, Any] | None:
    """The lock; None where there is none, or where it belongs to another recipe."""
    try:
        lock: dict[str, Any] = dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise PackageSetUnavailable(
            f"{path} cannot be read ({error}): delete it to resolve the set anew"
        ) from error
    return lock if lock.get("recipe") == recipe else None


def _new_lock(recipe: Mapping[str, Any], archive: Archive, system: str) -> dict[str, Any]:
    available = Available((index.path.read_bytes(), index.repository) for index in archive.indexes)
    return {
        "system": system,
        "recipe": sha256_hex(canonical_json(recipe)),
        "created": archive.created,
        **resolve_nodes(recipe, available),
        "builder": {"debs": [available[name].locked() for name in PACKAGES]},
    }


async def _make_builder(
    builder: Path, apt: Path, debs: Iterable[Mapping[str, str]], system: str, deadline: float
) -> str:
    """Unpack the builder's .debs. Returns the folder's hash as Nix computes it."""
    paths = {deb["url"]: apt / "cache" / f"{deb['name']}.deb" for deb in debs}
    await download(apt, [(deb["url"], deb["sha256"], paths[deb["url"]]) for deb in debs], system, deadline)
    await asyncio.to_thread(unpack, paths.values(), builder)
    try:
        output = await run(("nix-hash", "--type", "sha256", str(builder)), deadline=deadline)
    except ProcessFailed as error:
        raise PackageSetUnavailable(
            f"nix-hash failed, is Nix installed? {' '.join(error.tail[-3:])}"
        ) from error
    return output.decode().strip()
