"""What `nix/default.nix` found for each name -> packages, or one error that tells about every name that failed.

Pure. The shape of a result is in the head comment of `nix/default.nix`.

What `nix/images.nix` found for a named image -> its definition, or one error that names the image and every wrong key.

Pure. The shape of a result is in the head comment of `nix/images.nix`; Nix checks types, this file what is in the texts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.core.errors import ImageInvalid, ImageUnknown, PackageRefused, PackageUnknown
from proxy.core.model import Package
from proxy.core.names import close, elsewhere
from proxy.image import root_tree
from proxy.image.recipe import Definition, Recipe, TextPaths

_SUGGESTIONS = 3


def read_resolution(
    results: Sequence[Mapping[str, Any]], package_set: str, known: Sequence[str] = ()
) -> dict[str, Package]:
    """The package of each name as it was typed, in the order of the request.

    `known` are attribute names of the whole set, as far as they are at hand: they make suggestions better.

    Raises `PackageUnknown`, which names every missing and every ambiguous one and what is close to it;
    `PackageRefused`, which names every refused one and the setting that would allow it.
    """
    problems = [_problem(result, known) for result in results if result["kind"] not in ("package", "refused")]
    if problems:
        raise PackageUnknown("; ".join(problems) + f" (package set {package_set})")
    refusals = [_refusal(result) for result in results if result["kind"] == "refused"]
    if refusals:
        raise PackageRefused("; ".join(refusals) + f" (package set {package_set})")
    return {result["typed"]: package(result) for result in results}


def _problem(result: Mapping[str, Any], known: Sequence[str]) -> str:
    typed = result["typed"]
    match result["kind"]:
        case "missing":
            close_by = [_join(result["at"], name) for name in close(result["part"], result["names"])]
            if not result["at"]:
                close_by = [*elsewhere(result["part"], known), *close_by]
            hint = f", did you mean {_either(close_by[:_SUGGESTIONS])}?" if close_by else ""
            where = f" ({result['at']} has no {result['part']})" if result["at"] else ""
            return f"no package {typed}{where}{hint}"
        case "ambiguous":
            fitting = " and ".join(_join(result["at"], name) for name in result["names"])
            return f"{typed} could be {fitting}, which differ only in case"
        case _:
            return f"{result['attribute']} is no package but a {result['type']}"


_OWN_REFUSALS = (
    (re.compile(r"unfree license"), "policy.allow_unfree"),
    (re.compile(r"insecure|known vulnerabilit"), "policy.allow_insecure"),
    (re.compile(r"marked as broken"), "policy.allow_broken"),
    (re.compile(r"not (?:supported|available) on"), ""),
)
_PLACE = re.compile(r" in \S*/\S*")  # a path of this host is no news to a puller


def own_refusal(error: str) -> str | None:
    """The message for an evaluation that the package set itself refused, None if it failed for another reason.

    Old releases of nixpkgs refuse by `throw`, so the first line of the error is all there is.
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
            return f"{name} has the unfree licence {what}; policy.allow_unfree would allow it"
        case "insecure":
            return f"{name} is insecure: {what}; policy.allow_insecure would allow it"
        case "broken":
            return f"{name} is marked as broken; policy.allow_broken would allow it"
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


def package(result: Mapping[str, Any]) -> Package:
    """The package of one result of kind `package`."""
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


_STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+\-._?=]+")
_USER = re.compile(r"(?:[0-9]+|[a-z_][a-z0-9_-]*)(?::(?:[0-9]+|[a-z_][a-z0-9_-]*))?")
_UID_GID = re.compile(r"[1-9][0-9]*:[0-9]+")
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_OURS = "nixfront."

#: What `nix/images.nix` prints.
Found = Mapping[str, Any]
_HIGHEST_ID = (1 << 32) - 2
_FEWEST_LAYERS, _MOST_LAYERS = 2, 125


def read_definition(found: Found, typed: str, package_set: str, known: Sequence[str] = ()) -> Definition:
    """The definition of the image that was asked for as `typed`; `known` as in `resolution.read`.

    Raises `ImageUnknown`, `ImageInvalid`, and for a package of it `PackageUnknown` or `PackageRefused`.
    """
    if found["kind"] == "missing":
        raise ImageUnknown(f"no image {typed}{_hint(found['part'], found['names'])}")
    if found["kind"] == "ambiguous":
        both = " and ".join(found["names"])
        raise ImageUnknown(f"image {typed} could be {both}, which differ only in case")
    if found["kind"] == "wrong":
        problems = [
            f"{item['key']} {item['problem']}{_hint(item['key'], item['known'])}".strip()
            for item in found["mistakes"]
        ]
        raise _invalid(found["image"], problems)
    if problems := list(_problems(found)):
        raise _invalid(found["image"], problems)
    return Definition(
        recipe=_recipe(found, _packages(found, package_set, known)),
        runs=_named(found["runs"]),
        most_layers=found["maxLayers"],
        script=found["extraCommands"],
        commands=_named(found["commands"]),
        tools=_tools(found, package_set, known),
    )


def missing(found: Found) -> bool:
    """Whether a package of the image is not there, so that better suggestions are worth their time."""
    parts = (found.get(key, ()) for key in ("packages", "contents", "tools"))
    return any(result["kind"] == "missing" for part in parts for result in part)


def _recipe(found: Found, packages: tuple[Package, ...]) -> Recipe:
    home = found["user"] if _UID_GID.fullmatch(found["user"]) else ""
    return Recipe(
        packages=packages,
        image=found["image"],
        command=tuple(found["cmd"]),
        entrypoint=tuple(found["entrypoint"]),
        user=found["user"],
        home=home,
        directory=found["workdir"] or (root_tree.HOME if home else ""),
        environment=tuple((item["name"], item["value"]) for item in found["env"]),
        labels=tuple((item["name"], item["value"]) for item in found["labels"]),
        ports=tuple(dict.fromkeys(_port(port) for port in found["exposedPorts"])),
        owner=(found["uid"], found["gid"]),
        script=bool(found["extraCommands"]),
    )


def _packages(found: Found, package_set: str, known: Sequence[str]) -> tuple[Package, ...]:
    """What is linked into the root: packages, then contents, then what is in every image; nothing twice.

    Raises as `resolution.read` does, with the image's name.
    """
    results = [*found["packages"], *found["contents"], *found["optional"]]
    _check(f"image {found['image']}", results, package_set, known)
    ordered: dict[tuple[tuple[str, str], ...], Package] = {}
    for result in results:
        one = _content(result) if result["kind"] == "path" else package(result)
        ordered.setdefault(one.outputs, one)
    return tuple(ordered.values())


def _tools(found: Found, package_set: str, known: Sequence[str]) -> tuple[Package, ...]:
    """What runs the operator's commands. Raises as `resolution.read` does, and says what it is for."""
    _check(f"image {found['image']}, for its extraCommands", found["tools"], package_set, known)
    return tuple(package(result) for result in found["tools"])


def _check(image: str, results: Sequence[Mapping[str, Any]], package_set: str, known: Sequence[str]) -> None:
    try:
        read_resolution([result for result in results if result["kind"] != "path"], package_set, known)
    except (PackageUnknown, PackageRefused) as error:
        raise type(error)(f"{image}: {error}") from error


def _content(result: Mapping[str, Any]) -> Package:
    """A store path as a package: made by a derivation, or to be had as it is."""
    path = result["path"]
    name = path.rpartition("/")[2].partition("-")[2]
    return Package(path, name, result["drvPath"], ((result["output"] or "out", path),), main_program="")


def _named(texts: Mapping[str, Any]) -> TextPaths:
    made = [path for text in texts["texts"] for path in _STORE_PATH.findall(text)]
    plain = [path for text in texts["plain"] for path in _STORE_PATH.findall(text)]
    derivations = [f"{item['drvPath']}!{','.join(item['outputs'])}" for item in texts["derivations"]]
    return TextPaths(
        paths=tuple(sorted({*made, *plain})), realise=tuple(sorted({*derivations, *plain} - {*made}))
    )


def _problems(found: Found) -> Iterator[str]:
    """What is wrong with the texts and numbers of a definition."""
    for result in found["contents"]:
        if result["kind"] == "path" and not _STORE_PATH.fullmatch(result["path"]):
            yield f"contents holds {result['path']!r}, which is no store path (/nix/store/HASH-NAME)"
    for key in ("uid", "gid"):
        if found[key] > _HIGHEST_ID:
            yield f"{key} is {found[key]}, which no system knows"
    if found["maxLayers"] and not _FEWEST_LAYERS <= found["maxLayers"] <= _MOST_LAYERS:
        yield f"maxLayers has to be from {_FEWEST_LAYERS} to {_MOST_LAYERS}"
    if found["user"] and not _USER.fullmatch(found["user"]):
        yield f"user {found['user']!r} is no UID:GID and no name"
    if found["workdir"] and not found["workdir"].startswith("/"):
        yield f"workdir {found['workdir']!r} is no absolute path"
    for port in found["exposedPorts"]:
        if not (parts := _PORT.fullmatch(str(port))) or not 0 < int(parts[1]) < 65536:
            yield f"exposedPorts holds {port!r}, which is no port like 8080 or 53/udp"
    for item in found["env"]:
        if not item["name"] or "=" in item["name"]:
            yield f"env holds {item['name']!r}, which is no name of a variable"
    for item in found["labels"]:
        if not item["name"] or item["name"].startswith(_OURS):
            yield f"labels holds {item['name']!r}; names that start with {_OURS} are nixfront's own"


def _port(port: int | str) -> str:
    return f"{port}" if "/" in str(port) else f"{port}/tcp"


def _invalid(image: str, problems: Sequence[str]) -> ImageInvalid:
    return ImageInvalid(f"image {image}: {'; '.join(problems)}" if image else "; ".join(problems))


def _hint(part: str, names: Sequence[str]) -> str:
    found = close(part, names)
    return f", did you mean {' or '.join(found)}?" if found else ""
