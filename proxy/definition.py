"""What `nix/images.nix` found for a named image -> its definition, or one error that names the image and every wrong key.

Pure. The shape of a result is in the head comment of `nix/images.nix`; Nix checks types, this file what is in the texts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from proxy import resolution, rootfs
from proxy.errors import ImageInvalid, ImageUnknown, PackageRefused, PackageUnknown
from proxy.model import Package, canonical_json, sha256_hex
from proxy.recipes import Recipe
from proxy.suggest import close

_STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+\-._?=]+")
_USER = re.compile(r"(?:[0-9]+|[a-z_][a-z0-9_-]*)(?::(?:[0-9]+|[a-z_][a-z0-9_-]*))?")
_UID_GID = re.compile(r"[1-9][0-9]*:[0-9]+")
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_OURS = "nixfront."

#: What `nix/images.nix` prints.
Found = Mapping[str, Any]
_HIGHEST_ID = (1 << 32) - 2
_FEWEST_LAYERS, _MOST_LAYERS = 2, 125


@dataclass(frozen=True, slots=True)
class Named:
    """Store paths that a text names, and what Nix has to realise (`drv!output`, or a path) so that they are there."""

    paths: tuple[str, ...] = ()
    realise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """A named image. `recipe` is all but its files: the store paths that its command and environment name (`runs`),
    and the operator's `script` with what that names (`commands`) and the `tools` that run it.

    `most_layers`: 0 where the image does not say.
    """

    recipe: Recipe
    runs: Named
    most_layers: int = 0
    script: str = ""
    commands: Named = Named()
    tools: tuple[Package, ...] = ()


def read(found: Found, typed: str, package_set: str, known: Sequence[str] = ()) -> Definition:
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


def tag(definition: Definition) -> str:
    """The tag of a named image's outputs, as `recipes.output_tag`: with all else that its file says, which counts too.

    Outputs come in the order in which their files win; what the commands made is told by them and their tools.
    """
    recipe = definition.recipe
    outputs = [path for package in (*recipe.packages, *definition.tools) for _, path in package.outputs]
    rest = [asdict(replace(recipe, packages=())), definition.most_layers, definition.script]
    return sha256_hex(canonical_json([outputs, *rest]))[:32]


def _recipe(found: Found, packages: tuple[Package, ...]) -> Recipe:
    home = found["user"] if _UID_GID.fullmatch(found["user"]) else ""
    return Recipe(
        packages=packages,
        image=found["image"],
        command=tuple(found["cmd"]),
        entrypoint=tuple(found["entrypoint"]),
        user=found["user"],
        home=home,
        directory=found["workdir"] or (rootfs.HOME if home else ""),
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
        package = _content(result) if result["kind"] == "path" else resolution.package(result)
        ordered.setdefault(package.outputs, package)
    return tuple(ordered.values())


def _tools(found: Found, package_set: str, known: Sequence[str]) -> tuple[Package, ...]:
    """What runs the operator's commands. Raises as `resolution.read` does, and says what it is for."""
    _check(f"image {found['image']}, for its extraCommands", found["tools"], package_set, known)
    return tuple(resolution.package(result) for result in found["tools"])


def _check(image: str, results: Sequence[Mapping[str, Any]], package_set: str, known: Sequence[str]) -> None:
    try:
        resolution.read([result for result in results if result["kind"] != "path"], package_set, known)
    except (PackageUnknown, PackageRefused) as error:
        raise type(error)(f"{image}: {error}") from error


def _content(result: Mapping[str, Any]) -> Package:
    """A store path as a package: made by a derivation, or to be had as it is."""
    path = result["path"]
    name = path.rpartition("/")[2].partition("-")[2]
    return Package(path, name, result["drvPath"], ((result["output"] or "out", path),), main_program="")


def _named(texts: Mapping[str, Any]) -> Named:
    made = [path for text in texts["texts"] for path in _STORE_PATH.findall(text)]
    plain = [path for text in texts["plain"] for path in _STORE_PATH.findall(text)]
    derivations = [f"{item['drvPath']}!{','.join(item['outputs'])}" for item in texts["derivations"]]
    return Named(
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
