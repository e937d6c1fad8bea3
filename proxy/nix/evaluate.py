"""Evaluate package sets: which package is an attribute, what is a named image, which attributes does a set have.

A revision in the store never changes, so the answers about it are cached. An evaluation of nixpkgs takes a second or so, and
its list of names many seconds. A garbage collection may take a derivation that the cache names. Whoever realises it then
gets `DerivationLost`, calls `Evaluator.forget`, and evaluates again.
"""

import asyncio
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from proxy.core.errors import EvaluationFailed, NixfrontError, PackageRefused, ProcessFailed
from proxy.core.model import Package, PackageSet, Policy, canonical_json, sha256_hex
from proxy.core.names import attribute_path
from proxy.nix import commands
from proxy.nix.output import last_lines
from proxy.nix.package_results import own_refusal, read_packages
from proxy.nix.runner import NixRunner
from proxy.tools.files import keep_newest, write_whole
from proxy.tools.flight import SingleFlight

_log = logging.getLogger(__name__)
_PACKAGES = 10_000  # packages in the cache, of about a kilobyte each
_NAME_LISTS = 8  # lists of names in memory
_NAME_FILES = 64  # lists of names on disk, of up to some megabytes each
_SUGGESTION_SECONDS = 2.0  # how long an error message waits for better suggestions
_SET_OF_PACKAGES = re.compile(r".*Packages")
_LISTED_SETS = 100  # how many sets are listed one by one, where Nix cannot list them together

#: One result of `nix/default.nix`, of the kind `package`; None for an optional attribute that the set lacks.
Result = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class ImagesFile:
    """The operator's file of named images, and what it may refer to: package sets, and other names for attributes.

    `always`: attributes of every image where its set has them.
    """

    file: Path
    package_sets: tuple[str, ...]
    aliases: Mapping[str, str]
    always: tuple[str, ...]


class PackageCache:
    """Results of evaluations, by question (set, system, policy and kind of attribute, as JSON) and name as typed."""

    def __init__(self, most: int = _PACKAGES) -> None:
        self._results: LRUCache[tuple[bytes, str], Result] = LRUCache(most)

    def recall(self, question: bytes, names: Iterable[str]) -> dict[str, Result]:
        """The results of those names that the cache has."""
        return {name: self._results[question, name] for name in names if (question, name) in self._results}

    def store(
        self, question: bytes, results: Sequence[Mapping[str, Any]], optional: Iterable[str] = ()
    ) -> None:
        """Keep the packages among these results, and which of the `optional` names the set lacks."""
        by_name = {result["typed"]: result for result in results}
        for name in optional:
            self._results[question, name] = by_name.get(name)
        for name, result in by_name.items():
            if result["kind"] == "package":
                self._results[question, name] = result

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()


class Evaluator:
    """Evaluates package sets for one system, under the operator's policy."""

    def __init__(
        self, runner: NixRunner, expressions: Path, *, system: str, policy: Policy, folder: Path
    ) -> None:
        """`folder` keeps a file with the attribute names of each revision."""
        self._runner = runner
        self._expressions = expressions
        self._system = system
        self._policy = policy
        self._folder = folder
        self._packages = PackageCache()
        self._name_lists: LRUCache[str, tuple[str, ...]] = LRUCache(_NAME_LISTS)
        self._listing: SingleFlight[str, tuple[str, ...]] = SingleFlight()
        self._slots = asyncio.Semaphore(runner.limits.evaluations or os.cpu_count() or 1)

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
        question = self._question(package_set, system)
        source = [package_set.revision, package_set.nar_hash, package_set.import_from_derivation]
        # The policy bounds what a client names; `optional` is the operator's own wish (see `nix/describe.nix`).
        by_client, by_operator = (
            canonical_json([question, source, kind]) for kind in ("attributes", "optional")
        )
        answers = self._packages.recall(by_client, attributes) | self._packages.recall(by_operator, optional)
        new, others = ([name for name in names if name not in answers] for names in (attributes, optional))
        if new or others:
            request = {
                **question,
                "attributes": [_attribute(name) for name in new],
                "optional": [_attribute(name) for name in others],
            }
            output = await self._run("default.nix", package_set, request, " ".join(attributes))
            answer = await asyncio.to_thread(json.loads, output)
            self._packages.store(by_client, answer[: len(new)])
            self._packages.store(by_operator, answer[len(new) :], others)
            answers |= {result["typed"]: result for result in answer}
        results = [result for name in (*attributes, *optional) if (result := answers.get(name)) is not None]
        missing = any(result["kind"] == "missing" for result in results)
        names = await self.names_soon(package_set) if missing else ()
        return await asyncio.to_thread(read_packages, results, package_set.name, names)

    async def image(
        self, name: str, images: ImagesFile, package_set: PackageSet, chosen: str, pkgs: PackageSet
    ) -> Mapping[str, Any]:
        """What the operator's file says about an image (shape: `nix/images.nix`); its strings are about `package_set`.

        `chosen` is that set's name in the file, and `pkgs` the default set. Raises as `evaluate` does.
        """
        file = await asyncio.to_thread(images.file.resolve)
        request = {
            **self._question(package_set),
            "image": name,
            "file": str(file),
            "pkgs": {"expression": pkgs.expression, "arguments": dict(pkgs.arguments)},
            "set": chosen,
            "sets": sorted(images.package_sets),
            "aliases": dict(images.aliases),
            "optional": list(images.always),
        }
        # A file that lies in the store by itself stands for itself alone, and not for the whole store.
        folder = file if file.parent == Path("/nix/store") else file.parent
        readable = (str(folder), *_readable(pkgs))
        output = await self._run("images.nix", package_set, request, f"image {name}", readable)
        result: Mapping[str, Any] = await asyncio.to_thread(json.loads, output)
        return result

    async def names(self, package_set: PackageSet) -> tuple[str, ...]:
        """Every attribute name of this revision, sorted (shape: `nix/names.nix`). Raises `EvaluationFailed`."""
        key = sha256_hex(
            canonical_json([package_set.name, package_set.source, package_set.revision, self._system])
        )
        names = self._name_lists.get(key)
        return names or await self._listing.run(key, lambda: self._read_or_list(key, package_set))

    async def names_soon(self, package_set: PackageSet) -> Sequence[str]:
        """The names, if Nix lists them within a moment, else nothing. The listing goes on for the next question."""
        try:
            return await asyncio.wait_for(self.names(package_set), _SUGGESTION_SECONDS)
        except TimeoutError:
            return ()
        except NixfrontError as error:  # the names only improve another error's message
            _log.warning("no list of names set=%s error=%s", package_set.name, error)
            return ()

    def forget(self) -> None:
        """Forget every package: a garbage collection took one derivation, and others with it."""
        self._packages.clear()

    async def close(self) -> None:
        """Stop listing names."""
        await self._listing.close()

    async def _read_or_list(self, key: str, package_set: PackageSet) -> tuple[str, ...]:
        file = self._folder / f"names-{key[:32]}.json"
        names = await asyncio.to_thread(_read, file)
        if names is None:
            names = tuple(sorted(await self._list(package_set)))
            await asyncio.to_thread(write_whole, file, canonical_json(list(names)))
            await asyncio.to_thread(keep_newest, self._folder, "names-*.json", _NAME_FILES)
        self._name_lists[key] = names
        return names

    async def _list(self, package_set: PackageSet) -> list[str]:
        question = self._question(package_set)

        async def listed(look: str) -> list[str]:
            output = await self._evaluate("names.nix", package_set, {**question, "look": look})
            return [str(name) for name in json.loads(output)]

        with suppress(ProcessFailed):
            return await listed("all")
        try:
            names = await listed("none")
        except ProcessFailed as error:
            reason = last_lines(error.tail)
            raise EvaluationFailed(f"Nix cannot list package set {package_set.name}: {reason}") from error
        for name in [name for name in names if _SET_OF_PACKAGES.fullmatch(name)][:_LISTED_SETS]:
            with suppress(ProcessFailed):  # the set that aborts, or another like it
                names += await listed(name)
        return names

    async def _run(
        self,
        entry: str,
        package_set: PackageSet,
        request: Mapping[str, Any],
        subject: str,
        readable: Sequence[str] = (),
    ) -> bytes:
        """As `_evaluate`, with errors about `subject`. Raises `PackageRefused`, `EvaluationFailed`."""
        try:
            return await self._evaluate(entry, package_set, request, readable)
        except ProcessFailed as error:
            if error.timed_out:
                limit = f"{self._deadline(package_set):.0f} s"
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

    async def _evaluate(
        self,
        entry: str,
        package_set: PackageSet,
        request: Mapping[str, Any],
        readable: Sequence[str] = (),
    ) -> bytes:
        """What one of our expressions prints for a request. Raises `ProcessFailed`."""
        argv = commands.evaluate_argv(
            self._expressions / entry,
            request,
            tuple(dict.fromkeys((*_readable(package_set), *readable))),
            may_build=package_set.import_from_derivation,
            memory=self._runner.limits.evaluation_bytes,
        )
        async with self._slots:
            deadline = self._deadline(package_set)
            return await self._runner.run(argv, deadline, substitutes=package_set.substitutes)

    def _deadline(self, package_set: PackageSet) -> float:
        """In seconds: an evaluation that may build gets as long as a build."""
        limits = self._runner.limits
        return limits.build_seconds if package_set.import_from_derivation else limits.evaluation_seconds

    def _question(self, package_set: PackageSet, system: str = "") -> dict[str, object]:
        """The part of a request that names the set, the system and the policy."""
        policy = self._policy
        return {
            "expression": package_set.expression,
            "arguments": dict(package_set.arguments),
            "system": system or self._system,
            "policy": {
                "allowUnfree": policy.allow_unfree,
                "allowInsecure": policy.allow_insecure,
                "allowBroken": policy.allow_broken,
                "denyPackages": policy.deny_packages,
                "denyLicenses": policy.deny_licenses,
                "onlyPackages": policy.only_packages,
                "onlyLicenses": policy.only_licenses,
            },
        }


def _readable(package_set: PackageSet) -> tuple[str, ...]:
    """The absolute paths that an evaluation of this set may read."""
    paths = (package_set.expression, *package_set.arguments.values())
    return tuple(path for path in paths if path.startswith("/"))


def _attribute(name: str) -> dict[str, object]:
    return {"typed": name, "path": list(attribute_path(name))}


def _read(file: Path) -> tuple[str, ...] | None:
    try:
        return tuple(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return None
