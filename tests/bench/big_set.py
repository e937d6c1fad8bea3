"""The big package set that everything is measured on: resolved once, its packages realised when a line needs them, then kept.

Debian's packages, by the recipe `nix/debian/packages-big.json`. In the folder (NIXFRONT_BENCH_DIR, `.nixfront/bench`
where it is not set): `sets/demo-big` has the lock, `store` is a Nix store of its own with every package in it, `roots`
keeps them from being collected. Where Nix has no sandbox, the system's store takes its place: a store of another
folder cannot be built in without one.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy.core.errors import NixfrontError
from proxy.core.model import Closure, Package, PackageSet, PathInfo, Policy
from proxy.nix.evaluate import Evaluator
from proxy.nix.runner import Limits, NixRunner
from proxy.nix.sets import LATEST, Choice, PackageSets, Tools
from proxy.nix.sets.debian import BIG
from proxy.nix.store import NixStore
from proxy.wiring import files

SYSTEM = "x86_64-linux"
_DEADLINE = 3600.0  # seconds
_IN_EVERY_IMAGE = ("cacert", "iana-etc")


@dataclass(frozen=True, slots=True)
class BigSet:
    """The set, in an absolute folder. `packages` are by attribute, and so are `closures`: those of the packages that are realised."""

    folder: Path
    store: NixStore
    package_set: PackageSet
    packages: dict[str, Package]
    closures: dict[str, Closure]

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """The settings with which nixfront serves it, nested as in its file; the data folder has to `adopt` it."""
        return {"packages": {"kind": "demo", "recipe": BIG}, "nix": {"store": self.store.prefix}}

    def adopt(self, data: Path) -> None:
        """Let a nixfront whose data are in this folder find the set resolved."""
        # A link to the folder would not do: Nix, evaluating, reads nothing outside the folder that it was told.
        target = data / "sets" / "demo-big"
        target.mkdir(parents=True)
        for name in ("lock.json", "builder"):
            source = self.folder / "sets" / "demo-big" / name
            if source.is_dir():
                shutil.copytree(source, target / name, symlinks=True, copy_function=os.link)
            else:
                shutil.copy2(source, target / name)

    async def realise(self, attributes: Collection[str]) -> None:
        """Realise these packages, in any spelling, and what is in every image; without any, all packages."""
        wanted = {name.lower() for name in (*attributes, *_IN_EVERY_IMAGE)}
        for (
            name,
            package,
        ) in self.packages.items():  # one after another: a set that is half made goes on from there
            if name not in self.closures and (not attributes or name.lower() in wanted):
                root = self.folder / "roots" / name
                await asyncio.to_thread(root.mkdir, parents=True, exist_ok=True)
                self.closures[name] = await self.store.realise(
                    self.package_set, [package], [name], root, _say
                )

    def closure(self, *attributes: str) -> tuple[PathInfo, ...]:
        """The store paths of an image of these packages (and of what is in every image), sorted. They are realised."""
        wanted = (*attributes, *_IN_EVERY_IMAGE)
        paths = {info.path: info for name in wanted for info in self.closures[name].paths}
        return tuple(sorted(paths.values(), key=lambda info: info.path))


def folder() -> Path:
    """Where the set is kept."""
    named = os.environ.get("NIXFRONT_BENCH_DIR")
    return Path(named) if named else Path(__file__).parents[2] / ".nixfront" / "bench"


async def big_set(at: Path) -> BigSet:
    """The set in this folder, resolved where it is not there. With all its packages it has some 3 GB."""
    at = await asyncio.to_thread(at.absolute)
    await asyncio.to_thread((at / "sets").mkdir, parents=True, exist_ok=True)
    sandbox = "sandbox = false" not in os.environ.get("NIX_CONFIG", "")
    runner = NixRunner(Limits(_DEADLINE, _DEADLINE), store=str(at / "store") if sandbox else "")
    store = NixStore(runner, files.EXPRESSIONS)
    evaluator = Evaluator(runner, files.EXPRESSIONS, system=SYSTEM, policy=Policy(), folder=at / "sets")
    async with aiohttp.ClientSession() as session:
        tools = Tools(store, session, files.EXPRESSIONS, at / "sets", _DEADLINE)
        sets = PackageSets({"": Choice("demo", recipe=BIG)}, tools, time_to_live=60)
        package_set = await sets.resolve("", LATEST)
        await sets.close()
    packages = await evaluator.evaluate(package_set, await evaluator.names(package_set))
    await evaluator.close()
    return BigSet(at, store, package_set, packages, {})


async def _whole() -> BigSet:
    made = await big_set(folder())
    await made.realise(())
    return made


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(line + "\n")


if __name__ == "__main__":
    try:
        made = asyncio.run(_whole())
    except NixfrontError as error:
        raise SystemExit(str(error)) from error
    paths = {info.path: info.nar_size for closure in made.closures.values() for info in closure.paths}
    print(f"{len(made.packages)} packages, {len(paths)} store paths, {sum(paths.values()) / 1e9:.2f} GB")
