"""What `nix/default.nix` found for each name -> packages, or one error that tells about every name that failed.

Pure. The shape of a result is in the head comment of `nix/default.nix`.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.errors import PackageUnknown
from proxy.model import Package

_SUGGESTIONS = 3
_CUTOFF = 0.6  # of difflib's similarity, 0 to 1


def read(results: Sequence[Mapping[str, Any]], package_set: str) -> dict[str, Package]:
    """The package of each name as it was typed, in the order of the request.

    Raises `PackageUnknown`, which names every missing and every ambiguous one and what is close to it.
    """
    problems = [_problem(result) for result in results if result["kind"] != "package"]
    if problems:
        raise PackageUnknown("; ".join(problems) + f" (package set {package_set})")
    return {result["typed"]: _package(result) for result in results}


def suggestions(part: str, names: Sequence[str]) -> list[str]:
    """The few names that are closest to `part`, best first; case does not count."""
    by_folded: dict[str, str] = {}
    for name in names:
        by_folded.setdefault(name.lower(), name)
    close = difflib.get_close_matches(part.lower(), by_folded, n=_SUGGESTIONS, cutoff=_CUTOFF)
    return [by_folded[folded] for folded in close]


def _problem(result: Mapping[str, Any]) -> str:
    typed = result["typed"]
    match result["kind"]:
        case "missing":
            close = [_join(result["at"], name) for name in suggestions(result["part"], result["names"])]
            hint = f", did you mean {_either(close)}?" if close else ""
            where = f" ({result['at']} has no {result['part']})" if result["at"] else ""
            return f"no package {typed}{where}{hint}"
        case "ambiguous":
            fitting = " and ".join(_join(result["at"], name) for name in result["names"])
            return f"{typed} could be {fitting}, which differ only in case"
        case _:
            return f"{result['attribute']} is no package but a {result['type']}"


def _package(result: Mapping[str, Any]) -> Package:
    return Package(
        attribute=result["attribute"],
        name=result["name"],
        drv_path=result["drvPath"],
        outputs=tuple((output["name"], output["path"]) for output in result["outputs"]),
        main_program=result["mainProgram"],
        description=result["description"],
        license=result["license"],
    )


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
