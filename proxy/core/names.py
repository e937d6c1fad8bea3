"""Repository paths and tags: what they stand for, and how to write an attribute in one.

`parse` splits a path once; no later code splits it again. This module does no IO and does not know which packages exist.
nixfront builds nothing for a name that breaks the grammar or belongs to another tool (`sha256-<hex>.sig`), so clients get
the registry's own 404 for it.

    [package set /] [meta-package / ...] package / package / ...
    images / name                                                   if the operator defines named images

A package is an attribute path with dots. A character that the grammar of repositories forbids is `--` and its two
hexadecimal digits: `gtk--2b` is `gtk+`, and `lua5--2e4` is one attribute with the name `lua5.4`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.core.errors import NameInvalid
from proxy.core.model import SHORT_DIGITS, ImageRequest, Preset

# distribution-spec: "<name> MUST match the following regular expression".
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
# distribution-spec: "<reference> as a tag MUST be at most 128 characters in length and MUST match ...".
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# distribution-spec, "Referrers Tag Schema"; cosign appends .sig, .att and .sbom to the same stem.
_REFERRERS_TAG = re.compile(r"[a-z0-9]+-[0-9a-f]{64,}(?:\.[a-z0-9.]+)?")
# Tags that never move: a revision and a hash of outputs, short with a word in front (see `core.model`); or in full, as clients ask for a
# revision, and as earlier versions wrote both.
_HASH = re.compile(
    rf"(?:revision|contents)-[0-9a-f]{{{SHORT_DIGITS}}}|[0-9a-f]{{32}}|[0-9a-f]{{40}}|[0-9a-f]{{64}}"
)
#: Characters of a repository's name. The specification names it as the limit of many clients; the stock registry has it too.
LONGEST_REPOSITORY = 255
_ESCAPE = re.compile(r"--([0-9a-f]{2})")
_MOST_PARTS = 8


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that the operator defines: meta-packages, aliases of attributes, and names of package sets.

    `default_set`: what people call the set of names without one; no path needs it. `images`: the first component of the path of a
    named image; `has_images`: whether there are any. `most_packages`: the limit of packages in one image, including those of
    meta-packages.
    """

    presets: Mapping[str, Preset] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    package_sets: frozenset[str] = frozenset()
    default_set: str = ""
    images: str = ""
    has_images: bool = True
    most_packages: int = 64


def is_component(text: str) -> bool:
    """Whether this can be one component of a repository path."""
    return re.fullmatch(COMPONENT, text) is not None


def is_repository(text: str) -> bool:
    """Whether this can be the name of a repository."""
    return len(text) <= LONGEST_REPOSITORY and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether this can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_referrers_tag(text: str) -> bool:
    """Whether this is the tag of what is attached to a manifest: `sha256-<hex>`, and those that cosign makes of it."""
    return _REFERRERS_TAG.fullmatch(text) is not None


def is_referrers_list(tag: str) -> bool:
    """Whether this tag names the list of what refers to a manifest, and not one thing attached to it."""
    return is_referrers_tag(tag) and "." not in tag


def referrers_tag(digest: str) -> str:
    """The tag of the index of what refers to the manifest with this digest.

    distribution-spec, "Referrers Tag Schema": algorithm and digits, cut to 32 and 64 characters.
    """
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm[:32]}-{digits[:64]}"


def parse(repository: str, reference: str, words: Vocabulary) -> ImageRequest | None:
    """The image to build for this tag; None if nixfront never builds it (a digest, a referrers tag, a bad name).

    Raises `NameInvalid` for a well-formed name with no package, too many of them, or a character that no attribute has.
    """
    if not is_tag(reference) or is_referrers_tag(reference):
        return None
    if not is_repository(repository):
        return None
    components = repository.split("/")
    if words.images and words.has_images and components[0] == words.images:
        return ImageRequest(repository, reference, (), image=_image_name(repository, components[1:]))
    package_set = components.pop(0) if components[0] in words.package_sets else ""
    presets: list[str] = []
    while components and components[0] in words.presets:
        presets.append(components.pop(0))
    preset = _merge([words.presets[name] for name in presets])
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
    return ImageRequest(
        repository,
        reference,
        attributes,
        package_set,
        tuple(presets),
        preset,
        first=words.aliases.get(components[0], components[0]) if components else attributes[0],
        hints=_hints(package_set, presets, components, words),
    )


def _hints(
    package_set: str, presets: Sequence[str], components: Sequence[str], words: Vocabulary
) -> tuple[tuple[str, str], ...]:
    """What names may mean that stand where a package stands: a package set may have a package of such a name."""
    sets = words.package_sets if package_set else words.package_sets | {words.default_set}
    strays = dict.fromkeys(name for name in components if name in sets and name not in words.aliases)
    hints = [(name, _set_hint(name, package_set, presets, components, words)) for name in strays]
    late = [name for name in components if name in words.presets and name not in words.aliases]
    if late:
        front = [name for name in (package_set, *presets, *dict.fromkeys(late)) if name]
        path = "/".join([*front, *(name for name in components if name not in late)])
        hints += [(name, f"{name} is a meta-package and comes first: {path}") for name in dict.fromkeys(late)]
    if not words.has_images and not package_set and not presets and components[:1] == [words.images]:
        hints.append((words.images, "this host has no named images, as its setting images.file is empty"))
    return tuple(hints)


def _set_hint(
    name: str, package_set: str, presets: Sequence[str], components: Sequence[str], words: Vocabulary
) -> str:
    """What a package set means that stands where a package stands."""
    path = "/".join((*presets, *(each for each in components if each not in words.package_sets | {name})))
    if package_set:
        return f"{name} is a package set, and an image has packages of one set alone, here of {package_set}"
    if name in words.package_sets:
        return f"{name} is a package set and comes first: {name}/{path}".rstrip("/")
    return f"{name} is the package set of names without one{path and f': {path}'}"


def attribute_path(typed: str) -> tuple[str, ...]:
    """The parts of an attribute path as a client wrote it, without escapes: `python3packages.gtk--2b` has two.

    Raises `NameInvalid` for an escape that is no visible character of ASCII, and for too many parts.
    """
    parts = tuple(_unescape(part, typed) for part in typed.split("."))
    if len(parts) > _MOST_PARTS:  # sets like `pkgs` contain themselves
        raise NameInvalid(f"{typed!r} has more than {_MOST_PARTS} parts")
    return parts


def _unescape(part: str, typed: str) -> str:
    def char(match: re.Match[str]) -> str:
        decoded = chr(int(match[1], 16))
        if not "!" <= decoded <= "~":
            raise NameInvalid(f"{match[0]} in {typed!r} stands for no visible character of ASCII")
        return decoded

    return _ESCAPE.sub(char, part)


def _image_name(repository: str, components: Sequence[str]) -> str:
    """The name of a named image, without escapes; it may hold slashes. Raises `NameInvalid`."""
    if not components:
        raise NameInvalid(f"{repository!r} names no image; put one after it, as in {repository}/NAME")
    return _unescape("/".join(components), repository)


def spelled(attribute: str) -> str | None:
    """How a repository path spells an attribute path: `gtk+` is `gtk--2b`.

    The spelling is in lowercase, as the grammar demands, and drops an underscore before a leading digit. None for an
    attribute without a spelling, since no component begins with a sign; such an attribute needs an alias.
    """
    written = ".".join(_spelled_part(part) for part in attribute.lower().split("."))
    return written if is_component(written) else None


def _spelled_part(part: str) -> str:
    if re.match(r"_\d", part):
        part = part[1:]
    if is_component(part) and not _ESCAPE.search(part):
        return part
    return "".join(char if char.isascii() and char.isalnum() else f"--{ord(char):02x}" for char in part)


def spelled_tag(text: str) -> str | None:
    """How a tag spells a branch or a version: `release/24.05` is `release--2f24.05`; None where no tag can."""
    plain = "._" if _ESCAPE.search(text) else "._-"
    written = "".join(
        char if char.isascii() and (char.isalnum() or char in plain) else f"--{ord(char):02x}"
        for char in text
    )
    return written if is_tag(written) and unspelled_tag(written) == text else None


def unspelled_tag(tag: str) -> str:
    """The branch or version that a tag spells; without an escape, the tag itself."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), tag)


def version_tag(version: str) -> str | None:
    """The tag of an image with this version; None for no version, and for one that a tag of ours or of a tool could be."""
    tag = spelled_tag(version)
    if tag is None or not any(char.isdigit() for char in tag):
        return None
    return None if _HASH.fullmatch(tag) or _REFERRERS_TAG.fullmatch(tag) else tag


def _merge(presets: Sequence[Preset]) -> Preset:
    """One preset for all of these. Where only one value can count, it is that of the last preset that has one."""
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


# A commit, or the hash of something that has no commits.
_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_REVISION = re.compile(rf"revision-([0-9a-f]{{{SHORT_DIGITS}}})")
# A hash in base 32 as Nix writes it, which leaves out e, o, t and u; then a name.
_STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-([0-9a-zA-Z+\-._?=]+)")


def is_revision(text: str) -> bool:
    """Whether this is a revision in full, which never means anything else: 40 or 64 hexadecimal digits."""
    return _REVISION.fullmatch(text) is not None


def short_revision(text: str) -> str:
    """The first digits of a revision in a short tag, as `revision_tag` writes it; else empty."""
    match = _SHORT_REVISION.fullmatch(text)
    return match[1] if match is not None else ""


def is_own_hash(tag: str) -> bool:
    """Whether this has the form of the tags that never move: a revision, or a hash of outputs, short or in full."""
    return _HASH.fullmatch(tag) is not None


def is_store_path(text: str) -> bool:
    """Whether this is a store path, and no path inside one."""
    return _STORE_PATH.fullmatch(text) is not None


def store_paths(text: str) -> list[str]:
    """Every store path in the text, in its order."""
    return [match[0] for match in _STORE_PATH.finditer(text)]


def store_names(text: str) -> list[str]:
    """The same, each without its folder and its hash: `hello-1.0`."""
    return [match[1] for match in _STORE_PATH.finditer(text)]
