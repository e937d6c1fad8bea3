"""Results of `nix/default.nix` -> packages, or one error about every name that failed.

Pure. The head comment of `nix/default.nix` describes a result.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.core.errors import PackageRefused, PackageUnknown, PackageUnusable
from proxy.core.model import Package
from proxy.core.names import is_store_path
from proxy.tools.name_index import NO_NAMES, NameIndex, close

_SUGGESTIONS = 3
_HINT = ", did you mean"
_MOST_COMPARED = (
    3  # so many missing names of one request get suggestions; each is compared with the whole set
)
_OWN_REFUSALS = (
    (re.compile(r"unfree license"), "policy.allow_unfree"),
    (re.compile(r"insecure|known vulnerabilit"), "policy.allow_insecure"),
    (re.compile(r"marked as broken"), "policy.allow_broken"),
    (re.compile(r"not (?:supported|available) on"), ""),
)
# What Nix allows in the name of a store path, and in that of an output.
_NAME = re.compile(r"[0-9a-zA-Z+\-._?=]{1,211}")
_LONGEST_VALUE = 100
_PLACE = re.compile(r" in \S*/\S*")  # a client has no use for a path of this host


def read_packages(
    results: Sequence[Mapping[str, Any]], package_set: str, index: NameIndex = NO_NAMES
) -> dict[str, Package]:
    """The package of each name as the client typed it, in the order of the request.

    `package_set` is the name of the set, for messages. `index` has its attribute names, for better suggestions.

    Raises `PackageUnknown`, which names every missing and every ambiguous package, with suggestions for the first few, and
    `PackageRefused`, which names every refused package with the setting that would allow it.
    """
    failed = [result for result in results if result["kind"] not in ("package", "refused")]
    compared = [result["typed"] for result in failed if result["kind"] == "missing"][:_MOST_COMPARED]
    problems = [_problem(result, index, suggest=result["typed"] in compared) for result in failed]
    if problems:
        count = f" of {len(index)} packages" if index else ""
        if index and package_set == "demo" and not any(_HINT in problem for problem in problems):
            count += ", and not nixpkgs"
        raise PackageUnknown("; ".join(problems) + f" (package set {package_set}{count})")
    refusals = [_refusal(result) for result in results if result["kind"] == "refused"]
    if refusals:
        raise PackageRefused("; ".join(refusals) + f" (package set {package_set})")
    return {result["typed"]: package(result) for result in results}


def _problem(result: Mapping[str, Any], index: NameIndex, *, suggest: bool) -> str:
    typed = result["typed"]
    match result["kind"]:
        case "missing":
            similar = close(result["part"], result["names"]) if suggest else ()
            close_by = [_join(result["at"], name) for name in similar]
            if suggest and not result["at"]:
                part = result["part"]
                close_by = [*index.with_program(part), *index.elsewhere(part), *close_by]
            likely = list(dict.fromkeys(close_by))[:_SUGGESTIONS]
            hint = f"{_HINT} {_either(likely)}?" if likely else ""
            where = f" ({result['at']} has no {result['part']})" if result["at"] else ""
            return f"no package {typed}{where}{hint}"
        case "ambiguous":
            fitting = " and ".join(_join(result["at"], name) for name in result["names"])
            return f"{typed} could be {fitting}, which differ only in case"
        case _:
            return f"{result['attribute']} is no package but a {result['type']}"


def own_refusal(error: str) -> str | None:
    """The message for an evaluation that the package set itself refused; None where it failed for another reason.

    Old releases of nixpkgs refuse by `throw`: the first line of the error says why, and nothing else does.
    """
    line = _PLACE.sub("", error.partition("\n")[0]).rstrip(".")
    for pattern, setting in _OWN_REFUSALS:
        if pattern.search(line):
            return line + (f"; {setting} in the settings of this host would allow it" if setting else "")
    return None


def _refusal(result: Mapping[str, Any]) -> str:
    name, what = result["name"], ", ".join(result["what"])
    match result["reason"]:
        case "unfree":
            return f"{name} has the unfree licence {what}; {_cure('allow_unfree', result['what'])}"
        case "insecure":
            return f"{name} is insecure: {what}; {_cure('allow_insecure', [name])}"
        case "broken":
            return f"{name} is marked as broken; {_cure('allow_broken', result['what'])}"
        case "unsupported":
            return f"{name} is not made for this system, but for {what}"
        case "denied-license":
            return f"{name} has the licence {what}, which policy.deny_licenses of this host names"
        case "not-listed":
            return f"{name} is not among policy.only_packages of this host"
        case "not-listed-license":
            return f"{name} has the licence {what or 'none'}, and policy.only_licenses of this host does not name it"
        case _:
            return f"{name} is named by policy.deny_packages of this host"


def _cure(setting: str, values: Sequence[str]) -> str:
    """The setting, and the line of the file of settings (YAML) in which the operator allows this and nothing else."""
    # Every JSON is YAML, whatever a package set writes into its names.
    return f"policy.{setting} would allow it, as in the line: policy: {{{setting}: {json.dumps(values)}}}"


def package(result: Mapping[str, Any]) -> Package:
    """The package of one result of kind `package`.

    A package set may write anything into a derivation. Store paths become arguments of Nix, and names become labels.
    Raises `PackageUnusable` for a value that Nix itself would not make.
    """
    derivation, paths = result["drvPath"], [output["path"] for output in result["outputs"]]
    names = [result["name"], *(output["name"] for output in result["outputs"])]
    wrong = [value for value in (derivation, *paths) if not is_store_path(value)]
    wrong += [value for value in names if not _NAME.fullmatch(value)]
    if wrong or not derivation.endswith(".drv"):
        shown = ascii((wrong or [derivation])[0])[:_LONGEST_VALUE]
        raise PackageUnusable(
            f"{result['attribute']} has {shown} where a derivation has a store path or the name of one"
        )
    return Package(
        attribute=result["attribute"],
        name=result["name"],
        drv_path=result["drvPath"],
        outputs=tuple((output["name"], output["path"]) for output in result["outputs"]),
        main_program=result["mainProgram"],
        description=result["description"],
        license=result["license"],
        version=result["version"],
        licenses=tuple(result["licenses"]),
        homepage=result["homepage"],
        vulnerabilities=tuple(result["vulnerabilities"]),
    )


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
