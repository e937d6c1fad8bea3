"""Results of `nix/images.nix` -> the definition of a named image, or one error about every wrong key.

Pure. The head comment of `nix/images.nix` describes a result. Nix checks the types, this module the texts and numbers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.core.errors import ImageInvalid, ImageUnknown, PackageRefused, PackageUnknown
from proxy.core.model import Package
from proxy.core.names import is_store_path, store_paths
from proxy.image import base
from proxy.image.recipe import Definition, Recipe, TextPaths
from proxy.nix.package_results import package, read_packages
from proxy.tools.name_index import NO_NAMES, NameIndex, close

#: What `nix/images.nix` prints.
ImageResult = Mapping[str, Any]

_USER = re.compile(r"(?:[0-9]+|[a-z_][a-z0-9_-]*)(?::(?:[0-9]+|[a-z_][a-z0-9_-]*))?")
_UID_GID = re.compile(r"[1-9][0-9]*:[0-9]+")
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_LABEL_PREFIX = "nixfront."
_HIGHEST_ID = (1 << 32) - 2
_FEWEST_LAYERS, _MOST_LAYERS = 2, 125


def read_image(result: ImageResult, typed: str, package_set: str, index: NameIndex = NO_NAMES) -> Definition:
    """The definition of the image that the client named `typed`; `package_set` and `index` as for `read_packages`.

    Raises `ImageUnknown`, `ImageInvalid`, and for a package of the image `PackageUnknown` or `PackageRefused`.
    """
    if result["kind"] == "missing":
        raise ImageUnknown(f"no image {typed}{_hint(result['part'], result['names'])}")
    if result["kind"] == "ambiguous":
        both = " and ".join(result["names"])
        raise ImageUnknown(f"image {typed} could be {both}, which differ only in case")
    if result["kind"] == "wrong":
        problems = [
            f"{item['key']} {item['problem']}{_hint(item['key'], item['choices'])}".strip()
            for item in result["mistakes"]
        ]
        raise _invalid(result["image"], problems)
    if problems := list(_problems(result)):
        raise _invalid(result["image"], problems)
    return Definition(
        recipe=_recipe(result, _packages(result, package_set, index)),
        runs=_text_paths(result["runs"]),
        most_layers=result["maxLayers"],
        script=result["extraCommands"],
        commands=_text_paths(result["commands"]),
        tools=_tools(result, package_set, index),
    )


def lacks_package(result: ImageResult) -> bool:
    """Whether the set lacks a package of the image: then better suggestions are worth their time."""
    parts = (result.get(key, ()) for key in ("packages", "contents", "tools"))
    return any(item["kind"] == "missing" for part in parts for item in part)


def _recipe(result: ImageResult, packages: tuple[Package, ...]) -> Recipe:
    home = result["user"] if _UID_GID.fullmatch(result["user"]) else ""
    return Recipe(
        packages=packages,
        image=result["image"],
        command=tuple(result["cmd"]),
        entrypoint=tuple(result["entrypoint"]),
        user=result["user"],
        home=home,
        directory=result["workdir"] or (base.HOME if home else ""),
        environment=tuple((item["name"], item["value"]) for item in result["env"]),
        labels=tuple((item["name"], item["value"]) for item in result["labels"]),
        ports=tuple(dict.fromkeys(_port(port) for port in result["exposedPorts"])),
        owner=(result["uid"], result["gid"]),
        script=bool(result["extraCommands"]),
    )


def _packages(result: ImageResult, package_set: str, index: NameIndex) -> tuple[Package, ...]:
    """The packages of the root, none twice: `packages`, then `contents`, then the packages of every image.

    Raises as `read_packages` does, with the image's name.
    """
    items = [*result["packages"], *result["contents"], *result["optional"]]
    _check(f"image {result['image']}", items, package_set, index)
    ordered: dict[tuple[tuple[str, str], ...], Package] = {}
    for item in items:
        one = _content(item) if item["kind"] == "path" else package(item)
        ordered.setdefault(one.outputs, one)
    return tuple(ordered.values())


def _tools(result: ImageResult, package_set: str, index: NameIndex) -> tuple[Package, ...]:
    """The packages that run the operator's commands. Raises as `read_packages` does, with their purpose."""
    _check(f"image {result['image']}, for its extraCommands", result["tools"], package_set, index)
    return tuple(package(item) for item in result["tools"])


def _check(image: str, items: Sequence[Mapping[str, Any]], package_set: str, index: NameIndex) -> None:
    try:
        read_packages([item for item in items if item["kind"] != "path"], package_set, index)
    except (PackageUnknown, PackageRefused) as error:
        raise type(error)(f"{image}: {error}") from error


def _content(item: Mapping[str, Any]) -> Package:
    """A store path as a package; a derivation makes it, or the store has it already."""
    path = item["path"]
    name = path.rpartition("/")[2].partition("-")[2]
    return Package(path, name, item["drvPath"], ((item["output"] or "out", path),), main_program="")


def _text_paths(texts: Mapping[str, Any]) -> TextPaths:
    """The store paths in the texts of a definition, and what Nix has to realise for them."""
    paths = [path for text in texts["texts"] for path in store_paths(text)]
    plain = [path for text in texts["plain"] for path in store_paths(text)]
    derivations = [f"{item['drvPath']}!{','.join(item['outputs'])}" for item in texts["derivations"]]
    return TextPaths(
        paths=tuple(sorted({*paths, *plain})), realise=tuple(sorted({*derivations, *plain} - {*paths}))
    )


def _problems(result: ImageResult) -> Iterator[str]:
    """What is wrong with the texts and numbers of a definition."""
    for item in result["contents"]:
        if item["kind"] == "path" and not is_store_path(item["path"]):
            yield f"contents holds {item['path']!r}, which is no store path (/nix/store/HASH-NAME)"
    for key in ("uid", "gid"):
        if result[key] > _HIGHEST_ID:
            yield f"{key} is {result[key]}, but the highest possible is {_HIGHEST_ID}"
    if result["maxLayers"] and not _FEWEST_LAYERS <= result["maxLayers"] <= _MOST_LAYERS:
        yield f"maxLayers has to be from {_FEWEST_LAYERS} to {_MOST_LAYERS}"
    if result["user"] and not _USER.fullmatch(result["user"]):
        yield f"user {result['user']!r} is no UID:GID and no name"
    if result["workdir"] and not result["workdir"].startswith("/"):
        yield f"workdir {result['workdir']!r} is no absolute path"
    for port in result["exposedPorts"]:
        if not (parts := _PORT.fullmatch(str(port))) or not 0 < int(parts[1]) < 65536:
            yield f"exposedPorts holds {port!r}, which is no port like 8080 or 53/udp"
    for item in result["env"]:
        if not item["name"] or "=" in item["name"]:
            yield f"env holds {item['name']!r}, which is no name of a variable"
    for item in result["labels"]:
        if not item["name"] or item["name"].startswith(_LABEL_PREFIX):
            yield f"labels holds {item['name']!r}; names that start with {_LABEL_PREFIX} are nixfront's own"


def _port(port: int | str) -> str:
    return f"{port}" if "/" in str(port) else f"{port}/tcp"


def _invalid(image: str, problems: Sequence[str]) -> ImageInvalid:
    return ImageInvalid(f"image {image}: {'; '.join(problems)}" if image else "; ".join(problems))


def _hint(part: str, names: Sequence[str]) -> str:
    similar = close(part, names)
    return f", did you mean {' or '.join(similar)}?" if similar else ""
