"""Evaluate package sets: which package is an attribute, what is a named image, which attributes does a set have.

A revision in the store never changes, so the answers about it are cached. An evaluation of nixpkgs takes a second or so, and
its list of names many seconds. A garbage collection may take a derivation that the cache names. Whoever realises it then
gets `DerivationLost`, calls `Evaluator.forget`, and evaluates again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.core.errors import EvaluationFailed, PackageRefused, ProcessFailed
from proxy.core.model import Package, PackageSet, Policy, canonical_json
from proxy.core.names import attribute_path
from proxy.nix.evaluation_cache import ImageNames, Level, Levels, PackageCache, Result
from proxy.nix.name_lists import SOON, NameLists
from proxy.nix.name_lists.channel import ChannelLists
from proxy.nix.output import last_lines, read_json
from proxy.nix.package_results import own_refusal, read_packages
from proxy.nix.runner import Expressions, NixRunner, readable_paths
from proxy.tools.name_index import NameIndex


@dataclass(frozen=True, slots=True)
class ImagesFile:
    """The operator's file of named images, and what it may refer to: package sets, and other names for attributes.

    `always`: attributes of every image where its set has them.
    """

    file: Path
    package_sets: tuple[str, ...]
    aliases: Mapping[str, str]
    always: tuple[str, ...]


class Evaluator:
    """Evaluates package sets for one system, under the operator's policy."""

    def __init__(
        self,
        runner: NixRunner,
        expressions: Path,
        *,
        system: str,
        policy: Policy,
        folder: Path,
        channels: ChannelLists | None = None,
    ) -> None:
        """`folder` keeps lists of attribute names; those of channels come through `channels`, if there is one."""
        self._expressions = Expressions(runner, expressions, system=system, policy=policy)
        self._lists = NameLists(self._expressions, folder, channels)
        self._packages = PackageCache()
        self._levels = Levels()
        self._image_names = ImageNames()

    async def evaluate(
        self,
        package_set: PackageSet,
        attributes: Sequence[str],
        optional: Sequence[str] = (),
        system: str = "",
    ) -> dict[str, Package]:
        """The package of each name, as typed; of the `optional` names only those that the set has.

        `system`: another one than the evaluator's.
        Raises `PackageUnknown` with suggestions, `PackageRefused`, and `EvaluationFailed` for all else.
        """
        question = self._expressions.question(package_set, system)
        source = [package_set.revision, package_set.nar_hash, package_set.import_from_derivation]
        # The policy bounds what a client names; `optional` is the operator's own wish (see `nix/describe.nix`).
        by_client, by_operator = (
            canonical_json([question, source, kind]) for kind in ("attributes", "optional")
        )
        answers = self._packages.recall(by_client, attributes) | self._packages.recall(by_operator, optional)
        absent = ((name, self._levels.missing(by_client, name)) for name in attributes if name not in answers)
        answers |= {name: result for name, result in absent if result is not None}
        new = [name for name in attributes if name not in answers]
        # Where a name is missing, there will be no image, and `packages.always` needs no evaluation.
        others = [] if _lacks(answers) else [name for name in optional if name not in answers]
        if new or others:
            request = {
                **question,
                "attributes": [_attribute(name) for name in new],
                "optional": [_attribute(name) for name in others],
                "listed": self._levels.listed(by_client),
            }
            output = await self._run("default.nix", package_set, request, " ".join(attributes))
            results, levels = await asyncio.to_thread(_read_answer, output)
            self._packages.store(by_client, results[: len(new)])
            self._packages.store(by_operator, results[len(new) :], others)
            self._levels.store(by_client, levels, results)
            answers |= {result["typed"]: result for result in results}
        if not _lacks(answers):
            results = [result for name in (*attributes, *optional) if (result := answers.get(name))]
            return await asyncio.to_thread(read_packages, results, package_set.name)
        results = [
            self._with_names(by_client, result) for name in attributes if (result := answers.get(name))
        ]
        index = await self.index_soon(package_set)
        return await asyncio.to_thread(read_packages, results, package_set.name, index)

    def _with_names(self, question: bytes, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result; one of kind `missing` with the names that are there."""
        if result["kind"] != "missing":
            return result
        return {**result, "names": self._levels.names(question, result["at"])}

    async def image(
        self,
        name: str,
        images: ImagesFile,
        package_set: PackageSet,
        chosen: str,
        pkgs: PackageSet,
        *,
        system: str = "",
    ) -> Mapping[str, Any]:
        """What the operator's file says about an image (shape: `nix/images.nix`); its strings are about `package_set`.

        `chosen` is that set's name in the file, and `pkgs` the default set; `system` and errors as for `evaluate`.
        """
        file, version = await asyncio.to_thread(_file_and_version, images.file)
        request = {
            **self._expressions.question(package_set, system),
            "file": str(file),
            "pkgs": {"expression": pkgs.expression, "arguments": dict(pkgs.arguments)},
            "set": chosen,
            "sets": sorted(images.package_sets),
            "aliases": dict(images.aliases),
            "optional": list(images.always),
        }
        question = canonical_json([request, version, package_set.nar_hash, pkgs.nar_hash])
        if (missing := self._image_names.missing(question, name)) is not None:
            return missing
        # A file that lies in the store by itself stands for itself alone, and not for the whole store.
        folder = file if file.parent == Path("/nix/store") else file.parent
        readable = (str(folder), *readable_paths(pkgs))
        output = await self._run(
            "images.nix", package_set, {**request, "image": name}, f"image {name}", readable
        )
        result: Mapping[str, Any] = await asyncio.to_thread(read_json, output)
        if result["kind"] == "missing":
            self._image_names.store(question, result["names"])
        return result

    async def names(self, package_set: PackageSet) -> tuple[str, ...]:
        """The names of `NameLists.index`."""
        return await asyncio.to_thread(tuple, await self._lists.index(package_set))

    async def index_soon(self, package_set: PackageSet) -> NameIndex:
        """As `NameLists.index_soon`."""
        return await self._lists.index_soon(package_set)

    async def facts_soon(self, package_set: PackageSet, patience: float = SOON) -> NameIndex:
        """As `NameLists.facts_soon`."""
        return await self._lists.facts_soon(package_set, patience)

    def forget(self) -> None:
        """Forget every package: a garbage collection took one derivation, and others with it."""
        self._packages.clear()

    async def close(self) -> None:
        """Stop listing names."""
        await self._lists.close()

    async def _run(
        self,
        entry: str,
        package_set: PackageSet,
        request: Mapping[str, Any],
        subject: str,
        readable: Sequence[str] = (),
    ) -> bytes:
        """As `Expressions.evaluate`, with errors about `subject`. Raises `PackageRefused`, `EvaluationFailed`."""
        try:
            return await self._expressions.evaluate(entry, package_set, request, readable)
        except ProcessFailed as error:
            if error.timed_out:
                limit = f"{self._expressions.deadline(package_set):.0f} s"
                raise EvaluationFailed(f"evaluating {subject} took longer than {limit}") from error
            reason = last_lines(error.tail)
            if (refusal := own_refusal(reason)) is not None:
                raise PackageRefused(refusal) from error
            if "allow-import-from-derivation" in reason:
                reason = (
                    "it would have to build something first (import from derivation), which is not allowed here; "
                    "import_from_derivation in the settings of this package set would allow it"
                )
            raise EvaluationFailed(f"Nix cannot evaluate {subject}: {reason}") from error


def _read_answer(output: bytes) -> tuple[list[Mapping[str, Any]], dict[str, Level]]:
    """The results and the levels in an answer of `nix/default.nix`."""
    answer = read_json(output)
    return answer["results"], {at: Level.of(names.split()) for at, names in answer["names"].items()}


def _file_and_version(path: Path) -> tuple[Path, list[int]]:
    """The file that a path leads to, and what changes when somebody writes it."""
    file = path.resolve()
    try:
        stat = file.stat()
    except OSError:  # Nix says what is wrong
        return file, []
    return file, [stat.st_ino, stat.st_mtime_ns, stat.st_size]


def _lacks(answers: Mapping[str, Result]) -> bool:
    """Whether the set lacks a package that a client named."""
    return any(result is not None and result["kind"] == "missing" for result in answers.values())


def _attribute(name: str) -> dict[str, object]:
    return {"typed": name, "path": list(attribute_path(name))}
