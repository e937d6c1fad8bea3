"""Packages of another system, which this host builds in place of a host of that system, without an emulator.

A package of the demo set is unpacked and patched, never compiled or started. A host of any system can do that, but its derivation,
with its own system and builder in it, has other store paths. So it builds a stand-in for each package (`nix/debian/default.nix`): the
same bytes, but for the store paths in them. These get the paths of the packages themselves on their way into the store. Nix then
takes the packages for built, and an image of them has the same digest whichever host made it.

Nix lets only users whom it trusts put a path into its store: root without a daemon, the owner of a store, or the daemon's
`trusted-users`.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.core.errors import BuildFailed, ProcessFailed
from proxy.core.model import Package, PackageSet, canonical_json
from proxy.nix import commands
from proxy.nix.runner import NixRunner, readable_paths
from proxy.nix.stand_ins import renaming

_QUERY_SECONDS = 120.0


async def build(
    runner: NixRunner,
    package_set: PackageSet,
    packages: Sequence[Package],
    roots: Path,
    on_line: Callable[[str], None],
) -> None:
    """Put the packages, and all that they need, into the store. What is there already costs one question.

    `roots` is a folder; `on_line` gets each line of the log. Raises `ProcessFailed`, `BuildFailed`.
    """
    wanted = [path for package in packages for _, path in package.outputs]
    absent = set(await _absent(runner, wanted))
    if not absent:
        return
    lacking = [package for package in packages if absent.intersection(path for _, path in package.outputs)]
    pairs = await _pairs(runner, package_set, lacking)
    await runner.run(
        commands.keep_argv(
            [pair["standInDrv"] for pair in pairs if pair["path"] in absent], roots / "stand-in"
        ),
        runner.limits.build_seconds,
        substitutes=False,
        on_line=on_line,
    )
    tops = [pair["standIn"] for pair in pairs if pair["path"] in absent]
    closure = (await _query(runner, commands.requisites_argv(tops))).split()
    paths = {pair["standIn"]: pair["path"] for pair in pairs}
    if strange := [path for path in closure if path not in paths]:
        raise BuildFailed(f"a stand-in refers to {strange[0]}, which stands in for nothing")
    missing = set(await _absent(runner, [paths[path] for path in closure]))
    await _copy(runner, [path for path in closure if paths[path] in missing], pairs, roots)


async def _copy(
    runner: NixRunner, stand_ins: Sequence[str], pairs: Sequence[Mapping[str, str]], roots: Path
) -> None:
    """Put these stand-ins into the store once more, under the paths that they stand in for."""
    names = {
        _hash_of(old): _hash_of(new)
        for pair in pairs
        for old, new in ((pair["standIn"], pair["path"]), (pair["standInDrv"], pair["drvPath"]))
    }
    file = roots / "names.json"
    await asyncio.to_thread(file.write_bytes, canonical_json(names))
    try:
        await runner.run(
            commands.rename_argv((sys.executable, renaming.__file__), file, stand_ins),
            runner.limits.build_seconds,
            substitutes=False,
        )
    except ProcessFailed as error:
        if any("lacks a" in line and "signature" in line for line in error.tail):
            raise BuildFailed(
                "packages of another system are put into the Nix store by nixfront, and the Nix daemon of this host does not let "
                "this user do so; trusted-users in nix.conf would, or nix.store, a folder of nixfront's own"
            ) from error
        raise


async def _pairs(
    runner: NixRunner, package_set: PackageSet, packages: Sequence[Package]
) -> list[Mapping[str, str]]:
    """Each store path that may be in the closure of the packages, and its stand-in (shape: `nix/debian/stand-ins.nix`)."""
    request: dict[str, Any] = {
        "arguments": dict(package_set.arguments),
        "names": sorted({package.name for package in packages}),
    }
    argv = commands.evaluate_argv(
        Path(package_set.stand_ins),
        request,
        readable_paths(package_set),
        memory=runner.limits.evaluation_bytes,
    )
    output = await runner.run(argv, runner.limits.evaluation_seconds, substitutes=False)
    pairs: list[Mapping[str, str]] = json.loads(output)
    return pairs


async def _absent(runner: NixRunner, paths: Sequence[str]) -> list[str]:
    """Those of the store paths that are not in the store."""
    return (await _query(runner, commands.invalid_argv(paths))).split()


async def _query(runner: NixRunner, argv: tuple[str, ...]) -> str:
    return (await runner.run(argv, _QUERY_SECONDS, substitutes=False)).decode()


def _hash_of(path: str) -> str:
    return path.removeprefix("/nix/store/")[:32]
