"""The table that layers follow: groups of packages, by names that outlive the revisions of a package set.

A package gets another store path with every change, so a table that serves later revisions names `glibc` and
`openssl-dev` and no paths. The price is that a name may fit several paths. `names_of` therefore lists the names of a
path from the narrowest (with the whole version) to the widest (with none). A table has a narrow name only where paths
of one wide name belong in different groups; the narrowest name in the table decides.

A table is one canonical JSON text, and its digest is part of the key of every image:
  format  1
  source  for people: where the table comes from
  groups  { name: group }; the paths of one group share a layer
No IO here, no clock; `upkeep.cohorts` makes tables.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from proxy.core.model import canonical_json, digest_of

FORMAT = 1
# Words inside a version; any other word after it is an output's or a part's name, as in openssl-3.0.13-dev.
_VERSION_WORDS = frozenset(("alpha", "beta", "dfsg", "git", "pre", "rc", "really", "stable", "unstable"))
_NUMBER = re.compile(r"[0-9][0-9A-Za-z]*")
_INNER_VERSION = re.compile(r"(?<=[a-z][0-9])(?:\.[0-9]+)+(?=-)")


@dataclass(frozen=True)
class LayerTable:
    """Groups of a package set, by name; `source` is for people."""

    groups: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def group(self, path: str) -> int | None:
        """The group of a store path, None if the table has none of its names."""
        return next((self.groups[key] for key in names_of(path) if key in self.groups), None)

    @cached_property
    def digest(self) -> str:
        """`sha256:` and 64 digits, equal for equal tables; empty for a table without groups."""
        return digest_of(write(self)) if self.groups else ""


NO_TABLE = LayerTable()


def names_of(path: str) -> tuple[str, ...]:
    """The names of a store path, the narrowest first.

    `/nix/store/<hash>-openssl-3.0.13-dev`: `openssl-3.0.13-dev`, `openssl-3.0-dev`, `openssl-3-dev`, `openssl-dev`.
    """
    whole = path.rpartition("/")[2].partition("-")[2]
    name, version, output = _parts(whole)
    numbers = _NUMBER.findall(version)
    narrow = [f"{name}-{'.'.join(numbers[:count])}{output}" for count in (2, 1) if len(numbers) >= count]
    wide = name + output
    return tuple(dict.fromkeys((whole, *narrow, wide, _INNER_VERSION.sub("", wide))))


def _parts(whole: str) -> tuple[str, str, str]:
    """Name, version, and what follows it with its dash: `openjdk-17-jre-17.0.2-dev` -> `openjdk-17-jre`, `17.0.2`, `-dev`.

    The version starts at the first word that begins with a digit and has no word of the name after it.
    """
    words = whole.split("-")
    last = len(words) - 1
    output = f"-{words[-1]}" if last > 1 and _is_word(words[-1]) else ""
    if output:
        last -= 1
    start = last + 1
    while start > 1 and not _is_word(words[start - 1]):
        start -= 1
    while start <= last and not words[start][:1].isdigit():  # bash-5.2-p15, but also acl-p5-1.0
        start += 1
    if start > last or not words[0]:
        return whole, "", ""
    return "-".join(words[:start]), "-".join(words[start : last + 1]), output


def _is_word(text: str) -> bool:
    return text.replace("_", "").isalpha() and text not in _VERSION_WORDS


def write(table: LayerTable) -> bytes:
    """The JSON text of a table."""
    return canonical_json({"format": FORMAT, "groups": dict(table.groups), "source": table.source})


def read(text: bytes) -> LayerTable:
    """The table of a JSON text. Raises `ValueError` if the text is no table."""
    value: Any = json.loads(text)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"it is no table of format {FORMAT}, as `nixfront popularity` makes them")
    groups, source = value.get("groups"), value.get("source")
    if not (isinstance(groups, dict) and isinstance(source, str)):
        raise ValueError("a table has groups (an object) and source (a text)")  # noqa: TRY004
    if not all(type(group) is int for group in groups.values()):
        raise ValueError("a group is a number")
    return LayerTable(groups, source)
