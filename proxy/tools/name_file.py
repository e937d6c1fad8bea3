"""A list of names on disk: a line for each package, so that it is read in small steps. Everything here blocks."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from proxy.core.facts import PackageFacts
from proxy.core.text import printable
from proxy.tools.files import NewFile
from proxy.tools.name_index import NameIndex, record

_MOST = 1_000_000  # packages of one list
_LONGEST, _LONGEST_DESCRIPTION = 60, 200  # characters of a text about a package
_NAME = re.compile(r"""[^\s"'\\\x00-\x1f\x7f]{1,200}""")
_PORTION = 1000  # lines that are written in one step
_FIELDS = 4  # of a record
_END = "\tend\t"  # no name is empty, so no other line begins so


def write(file: Path, packages: Iterable[PackageFacts]) -> NameIndex:
    """The index of these packages, which `read` finds in the file from now on.

    A name that no path of attributes has is left out. Raises `OSError`.
    """
    lines: dict[str, str] = {}
    for facts in packages:
        if _NAME.fullmatch(facts.name) and len(lines) < _MOST:
            lines[facts.name] = record(_cut(facts))
    names = sorted(lines)
    has_facts = any(text.strip() for text in lines.values())
    with NewFile(file.parent) as new:
        for start in range(0, len(names), _PORTION):
            portion = names[start : start + _PORTION]
            new.write("".join(f"{name}\t{lines[name]}\n" for name in portion).encode(errors="replace"))
        new.write(f"{_END}{len(names)}\n".encode())
        new.move_to(file)
    return NameIndex(names, [lines[name] for name in names] if has_facts else ())


def read(file: Path) -> NameIndex | None:
    """The index of a file; None where it is no whole list."""
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            return NameIndex.of_lines(_packages(lines))
    except (OSError, ValueError):
        return None


def _packages(lines: Iterable[str]) -> Iterator[str]:
    """The lines of the packages. Raises `ValueError` where the list is not whole."""
    for count, line in enumerate(lines):
        if line == f"{_END}{count}\n":
            return
        if line.startswith("\t") or line.count("\t") != _FIELDS:
            break
        yield line.removesuffix("\n")
    raise ValueError("the list is not whole")


def _cut(facts: PackageFacts) -> PackageFacts:
    """The facts as texts that fit into a line."""
    return PackageFacts(
        facts.name,
        version=printable(facts.version)[:_LONGEST],
        description=printable(facts.description).strip()[:_LONGEST_DESCRIPTION],
        license=printable(facts.license)[:_LONGEST],
        main_program=printable(facts.main_program)[:_LONGEST],
    )
