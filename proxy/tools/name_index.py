"""Names in an index: which are like a text, and which hold it. Pure. The same names in the same order get the same answer.

An index of a hundred thousand names is built once, and answers in milliseconds. Its methods may run in a thread beside an event
loop: no step of them keeps the interpreter's lock for long. So names are compared in portions, and nothing sorts all of them.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import Final

from proxy.core.facts import PackageFacts

_MOST = 3  # suggestions
_MOST_PROGRAMS = 2  # suggestions by the name of a program
_PORTION = 2000  # names that are compared in one step
_SHORT, _LONG = (
    4,
    8,
)  # characters: names up to these lengths may differ by one and by two, longer ones by three
_ONE_WORD = 3  # a text of fewer characters is in nearly every name and description
_LONGEST_ENDING = 4  # characters by which a name may go on after the text
_MANY = 2  # edits
_RANKS = 5


class NameIndex:
    """Attribute names in one order, and what the package set says of each package."""

    def __init__(self, names: Sequence[str], records: Sequence[str] = ()) -> None:
        """`records` has one text of `record` for each name, or is empty."""
        self.names: Final = tuple(names)
        self._records = records
        # Most names are in lowercase already, and need no second text in memory.
        self._folded = [name if name == (low := name.lower()) else low for name in self.names]
        self._lengths: dict[int, array[int]] = {}
        for position, name in enumerate(self.names):
            self._lengths.setdefault(len(name), array("I")).append(position)
        self._portions = [
            _Portion(start, self._folded[start : start + _PORTION], records[start : start + _PORTION])
            for start in range(0, len(self.names), _PORTION)
        ]

    def __len__(self) -> int:
        """How many names there are."""
        return len(self.names)

    @property
    def has_facts(self) -> bool:
        """Whether it has more than names."""
        return bool(self._records)

    def facts(self, position: int) -> PackageFacts:
        """What the set says of the package at this position."""
        name = self.names[position]
        if not self._records:
            return PackageFacts(name)
        version, license_name, program, description = self._records[position].split("\t")
        return PackageFacts(name, version, description, license_name, program)

    def find(self, name: str) -> int | None:
        """The position of this name; None if it has none."""
        try:
            return self.names.index(name)
        except ValueError:
            return None

    def search(self, text: str) -> list[int]:
        """The positions of the packages that the text fits, best first. Case does not count.

        These are, in this order: names that are equal to it, packages whose main program it is, names that begin with it,
        names that hold it, and packages of whose names and descriptions each word of it is a part. Of attribute paths only
        the last part counts for the first three. Short names come first.
        """
        words = text.lower().split()
        folded = " ".join(words)
        if len(folded) < _ONE_WORD:
            holding = [at for at, name in enumerate(self._folded) if folded in name]
            found = {*holding, *self._programs(folded)} if folded else holding
        else:
            found = [
                at for at, line in self._lines(max(words, key=len)) if all(word in line for word in words)
            ]
        ranks: list[dict[int, list[int]]] = [{} for _ in range(_RANKS)]
        for position in found:
            rank = self._rank(folded, position)
            ranks[rank].setdefault(len(self.names[position]), []).append(position)
        return [at for by_length in ranks for length in sorted(by_length) for at in sorted(by_length[length])]

    def close(self, part: str) -> list[str]:
        """At most three names that are really like `part`, best first: a typing error apart, or with a few characters more.

        Case does not count. Two names that differ in case alone are one. An attribute that would begin with a digit has a `_` before it.
        """
        typed = part.lower()
        spellings = (typed, f"_{typed}") if typed[:1].isdigit() else (typed,)
        matches = sorted({match for each in spellings for match in (*self._near(each), *self._longer(each))})
        best: dict[str, str] = {}
        for _, position in matches:
            best.setdefault(self._folded[position], self.names[position])
        return list(best.values())[:_MOST]

    def elsewhere(self, part: str) -> list[str]:
        """At most three attribute paths that end in `part` below the top level: `python3Packages.numpy` for `numpy`."""
        end = f".{part.lower()}"
        lines = self._lines(f"{end}\t")
        paths = [self.names[at] for at, _ in lines if self._folded[at].endswith(end)]
        return sorted(paths, key=_length_and_name)[:_MOST]

    def with_program(self, program: str) -> list[str]:
        """At most two attributes of packages whose main program has this name: `ripgrep` for `rg`."""
        names = [self.names[at] for at in self._programs(program.lower())]
        return sorted(names, key=_length_and_name)[:_MOST_PROGRAMS]

    def _lines(self, text: str) -> Iterator[tuple[int, str]]:
        return chain.from_iterable(portion.lines(text) for portion in self._portions)

    def _programs(self, program: str) -> list[int]:
        """The positions of packages whose main program has this name."""
        lines = self._lines(f"\t{program}\t") if program and self._records else ()
        return [at for at, line in lines if line.split("\t")[3] == program]

    def _rank(self, text: str, position: int) -> int:
        name = self._folded[position]
        if text not in name:
            is_program = self._records and f"\t{text}\t" in self._records[position].lower()
            return 1 if is_program else _RANKS - 1
        last = name.rpartition(".")[2]
        return 0 if last == text else 2 if last.startswith(text) else 3

    def _near(self, typed: str) -> Iterator[tuple[int, int]]:
        """How many edits a name is away, and its position, for the names that a typing error explains."""
        from rapidfuzz import process  # a search has no use for it, and the command should start fast
        from rapidfuzz.distance import OSA

        most = 1 if len(typed) <= _SHORT else 2 if len(typed) <= _LONG else 3
        for length in range(max(1, len(typed) - most), len(typed) + most + 1):
            positions = self._lengths.get(length, array("I"))
            for start in range(0, len(positions), _PORTION):
                portion = positions[start : start + _PORTION]
                spellings = [self._folded[position] for position in portion]
                for spelling, edits, index in process.extract(
                    typed, spellings, scorer=OSA.distance, processor=None, score_cutoff=most, limit=None
                ):
                    # Few people mistype the first letter, and with more edits everything is like everything.
                    if (edits < _MANY and len(typed) >= _ONE_WORD) or spelling[0] == typed[:1]:
                        yield int(edits), portion[index]

    def _longer(self, typed: str) -> Iterator[tuple[int, int]]:
        """As `_near`, for the names that go on after the text."""
        if len(typed) < _ONE_WORD:
            return
        for ending in range(1, _LONGEST_ENDING + 1):
            for position in self._lengths.get(len(typed) + ending, ()):
                if self._folded[position].startswith(typed):
                    yield ending, position


class _Portion:
    """A few thousand packages as one text in lowercase, a line for each: `NAME TAB RECORD`."""

    def __init__(self, first: int, names: Sequence[str], records: Sequence[str]) -> None:
        """`first` is the position of the first one."""
        lines = (
            list(map("\t".join, zip(names, records, strict=True)))
            if records
            else [f"{name}\t" for name in names]
        )
        self._first = first
        self._text = "\n".join(lines).lower()
        self._starts = array("I", accumulate((len(line) + 1 for line in lines), initial=0))
        if self._starts[-1] != len(self._text) + 1:  # a few letters have another length in lowercase
            lines = [line.lower() for line in lines]
            self._starts = array("I", accumulate((len(line) + 1 for line in lines), initial=0))

    def lines(self, text: str) -> Iterator[tuple[int, str]]:
        """The positions and lines that hold the text."""
        at = self._text.find(text)
        while at >= 0:
            line = bisect_right(self._starts, at) - 1
            end = self._starts[line + 1]
            yield self._first + line, self._text[self._starts[line] : end - 1]
            at = self._text.find(text, end)


#: The index of no names.
NO_NAMES = NameIndex(())


def close(part: str, names: Sequence[str] | NameIndex) -> list[str]:
    """As `NameIndex.close`, among a few names or in an index."""
    return (names if isinstance(names, NameIndex) else NameIndex(names)).close(part)


def record(facts: PackageFacts) -> str:
    """The facts but for the name as one text for `NameIndex`, without line breaks."""
    fields = (facts.version, facts.license, facts.main_program, facts.description)
    return "\t".join(_SPACES.sub(" ", field) for field in fields)


_SPACES = re.compile(r"\s+")


def _length_and_name(name: str) -> tuple[int, str]:
    return len(name), name
