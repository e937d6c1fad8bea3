"""Repository paths and tags -> what they ask for. Parsed once, here; no later code splits a string.

Rules of this file: no IO, no knowledge of which packages exist. A name that no client may send, or that belongs
to another tool (`sha256-<hex>.sig`), is nobody's: the registry's own 404 is the answer to it.

    [package set /] [meta-package / ...] package / package / ...
    images / name                                                   where the operator has a file of them

A package is an attribute path with dots. What the grammar of repositories cannot spell is written `--` and the two
hexadecimal digits of the character: `gtk--2b` is `gtk+`, `lua5--2e4` is one attribute named `lua5.4`.

Names that are like another name. Pure; orders are total, so that the same question gets the same answer.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.core.errors import NameInvalid
from proxy.core.model import ImageRequest, Preset

# distribution-spec: "<name> MUST match the following regular expression".
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# distribution-spec: "<reference> as a tag MUST be at most 128 characters in length and MUST match ...".
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# distribution-spec, "Referrers Tag Schema"; cosign appends .sig, .att and .sbom to the same stem.
_REFERRERS_TAG = re.compile(r"[a-z0-9]+-[0-9a-f]{64,}(?:\.[a-z0-9.]+)?")
_ESCAPE = re.compile(r"--([0-9a-f]{2})")
_MOST_PARTS = 8


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of the operator: meta-packages, other names for attributes, and the names of package sets.

    `images`: what comes before the name of a named image, empty where there are none. `most_packages`: how many packages
    one image may name, those of meta-packages included.
    """

    presets: Mapping[str, Preset] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    package_sets: frozenset[str] = frozenset()
    images: str = ""
    most_packages: int = 64


def is_repository(text: str) -> bool:
    """Whether this can be the name of a repository."""
    return _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether this can be a tag."""
    return _TAG.fullmatch(text) is not None


def parse(repository: str, reference: str, words: Vocabulary) -> ImageRequest | None:
    """What to build for this tag, or None if it can never be ours (a digest, a referrers tag, a bad name).

    Raises `NameInvalid` for a name that is well-formed but names nothing, too much, or an impossible character.
    """
    if not is_tag(reference) or _REFERRERS_TAG.fullmatch(reference):
        return None
    if not is_repository(repository):
        return None
    components = repository.split("/")
    if words.images and components[0] == words.images:
        return ImageRequest(repository, reference, (), image=_image_name(repository, components[1:]))
    package_set = components.pop(0) if components[0] in words.package_sets else ""
    presets: list[str] = []
    while components and components[0] in words.presets:
        presets.append(components.pop(0))
    preset = _together([words.presets[name] for name in presets])
    attributes = tuple(dict.fromkeys((*preset.packages, *(words.aliases.get(c, c) for c in components))))
    for attribute in attributes:
        attribute_path(attribute)
    if not attributes:
        raise NameInvalid(f"{repository!r} names no package; put one after it, as in {repository}/hello")
    if len(attributes) > words.most_packages:
        raise NameInvalid(
            f"{repository!r} names {len(attributes)} packages; policy.most_packages of this host allows "
            f"{words.most_packages} in one image"
        )
    return ImageRequest(repository, reference, attributes, package_set, tuple(presets), preset)


def attribute_path(typed: str) -> tuple[str, ...]:
    """The parts of an attribute path as it was typed, escapes undone: `python3packages.gtk--2b` has two.

    Raises `NameInvalid` for an escape that is no visible character of ASCII, and for a path without end.
    """
    parts = tuple(_unescaped(part, typed) for part in typed.split("."))
    if len(parts) > _MOST_PARTS:  # sets like `pkgs` contain themselves
        raise NameInvalid(f"{typed!r} has more than {_MOST_PARTS} parts")
    return parts


def _unescaped(part: str, typed: str) -> str:
    def char(match: re.Match[str]) -> str:
        found = chr(int(match[1], 16))
        if not "!" <= found <= "~":
            raise NameInvalid(f"{match[0]} in {typed!r} stands for no visible character of ASCII")
        return found

    return _ESCAPE.sub(char, part)


def _image_name(repository: str, components: Sequence[str]) -> str:
    """The name of a named image as it was typed, escapes undone; it may hold slashes. Raises `NameInvalid`."""
    if not components:
        raise NameInvalid(f"{repository!r} names no image; put one after it, as in {repository}/NAME")
    return _unescaped("/".join(components), repository)


def spelled(attribute: str) -> str | None:
    """How an attribute path of the set is written in a repository path: `gtk+` is `gtk--2b`.

    Lowercase, where the grammar wants it; a leading underscore before a digit may be left out. None for one that
    cannot be written, as a component cannot begin with a sign: it needs an alias.
    """
    written = ".".join(_spelled_part(part) for part in attribute.lower().split("."))
    return written if re.fullmatch(_COMPONENT, written) else None


def _spelled_part(part: str) -> str:
    if re.match(r"_\d", part):
        part = part[1:]
    if re.fullmatch(_COMPONENT, part) and not _ESCAPE.search(part):
        return part
    return "".join(char if char.isascii() and char.isalnum() else f"--{ord(char):02x}" for char in part)


def _together(presets: Sequence[Preset]) -> Preset:
    """All of them as one; where only one can count, the last one that says something does."""
    environment: dict[str, str] = {}
    for preset in presets:
        environment.update(preset.environment)
    return Preset(
        packages=tuple(dict.fromkeys(name for preset in presets for name in preset.packages)),
        command=next((preset.command for preset in reversed(presets) if preset.command), ()),
        user=next((preset.user for preset in reversed(presets) if preset.user), ""),
        environment=tuple(sorted(environment.items())),
        system=next((preset.system for preset in reversed(presets) if preset.system), ""),
    )


_MOST = 3
_CUTOFF = 0.6  # of difflib's similarity, 0 to 1


def close(part: str, names: Iterable[str]) -> list[str]:
    """The few names that are closest to `part`, best first; case does not count."""
    by_folded: dict[str, str] = {}
    for name in names:
        by_folded.setdefault(name.lower(), name)
    found = difflib.get_close_matches(part.lower(), by_folded, n=_MOST, cutoff=_CUTOFF)
    return [by_folded[folded] for folded in found]


def elsewhere(part: str, names: Iterable[str]) -> list[str]:
    """The attribute paths that end in this part, below the top level: `numpy` is in `python3Packages.numpy`."""
    folded = part.lower()
    found = [name for name in names if "." in name and name.rpartition(".")[2].lower() == folded]
    return sorted(found, key=lambda name: (len(name), name))[:_MOST]


def search(text: str, names: Sequence[str]) -> list[str]:
    """Every name that holds the text, case aside: equal ones first, then those that start with it, then by length."""
    folded = text.lower()

    def rank(name: str) -> tuple[bool, bool, int, str]:
        last = name.rpartition(".")[2].lower()
        return (last != folded, not last.startswith(folded), len(name), name)

    return sorted((name for name in names if folded in name.lower()), key=rank)


# A commit, or the hash of something that has no commits.
_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# A hash in base 32 as Nix writes it, which leaves out e, o, t and u; then a name.
_STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-([0-9a-zA-Z+\-._?=]+)")


def is_revision(text: str) -> bool:
    """Whether this is a revision in full, which never means anything else: 40 or 64 hexadecimal digits."""
    return _REVISION.fullmatch(text) is not None


def is_store_path(text: str) -> bool:
    """Whether this is a store path, and no path inside one."""
    return _STORE_PATH.fullmatch(text) is not None


def store_paths(text: str) -> list[str]:
    """Every store path in the text, in its order."""
    return [match[0] for match in _STORE_PATH.finditer(text)]


def store_names(text: str) -> list[str]:
    """The same, each without its folder and its hash: `hello-1.0`."""
    return [match[1] for match in _STORE_PATH.finditer(text)]
