"""Names in an index: which are like a text, and which hold it. Pure. The same names in the same order get the same answer.

An index of a hundred thousand names is built once, and answers in milliseconds. Its methods may run in a thread beside an event
loop: no step of them keeps the interpreter's lock for long. So names are compared in portions, and nothing sorts all of them. Nor is
there an object for each name: a garbage collection, which keeps the lock to its end, would look at all of them.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from itertools import accumulate, chain, islice, zip_longest
from typing import Final, Self

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

    def __init__(self, names: Iterable[str], records: Iterable[str] = ()) -> None:
        """`records` has one text of `record` for each name, or is empty. A name with a tab or a line break is left out."""
        pairs = zip_longest(names, records, fillvalue="")
        self._fill(f"{name}\t{record}" for name, record in pairs if "\t" not in name and "\n" not in name)

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> Self:
        """The index of these lines, each `NAME TAB RECORD`."""
        index = cls(())
        index._fill(lines)
        return index

    def _fill(self, lines: Iterable[str]) -> None:
        lines = iter(lines)
        self._portions: list[_Portion] = []
        self._count = 0
        self._alike: dict[int, _Alike] = {}
        while portion := list(islice(lines, _PORTION)):
            self._portions.append(_Portion(self._count, portion))
            for position, line in enumerate(portion, self._count):
                folded = _name(line).lower()
                self._alike.setdefault(len(folded), _Alike(len(folded))).add(position, folded)
            self._count += len(portion)

    @property
    def has_facts(self) -> bool:
        """Whether it has more than names."""
        return any(portion.has_facts for portion in self._portions)

    def __len__(self) -> int:
        """How many names there are."""
        return self._count

    def __iter__(self) -> Iterator[str]:
        """The names, in their order."""
        return chain.from_iterable(map(_name, portion.originals()) for portion in self._portions)

    def name(self, position: int) -> str:
        """The name at this position."""
        return _name(self._line(position))

    def facts(self, position: int) -> PackageFacts:
        """What the set says of the package at this position."""
        name, *fields = self._line(position).split("\t")
        if len(fields) == 1:
            return PackageFacts(name)
        version, license_name, program, description = fields
        return PackageFacts(name, version, description, license_name, program)

    def find(self, name: str) -> int | None:
        """The position of this name; None if it has none."""
        return next(
            (at for at, _ in self._lines(f"{name.lower()}\t", first=True) if self.name(at) == name), None
        )

    def search(self, text: str) -> list[int]:
        """The positions of the packages that the text fits, best first. Case does not count.

        These are, in this order: names that are equal to it, packages whose main program it is, names that begin with it,
        names that hold it, and packages of whose names and descriptions each word of it is a part. Of attribute paths only
        the last part counts for the first three. Short names come first.
        """
        words = text.lower().split()
        folded = " ".join(words)
        longest = max(words, key=len, default="")
        others = [word for word in words if word != longest]
        program = f"\t{folded}\t"
        ranks: list[dict[int, list[int]]] = [{} for _ in range(_RANKS)]
        for position, line in self._lines(longest):
            length = line.index("\t")
            if line.find(folded, 0, length) >= 0:
                rank = _rank(folded, line[:length])
            elif folded and program in line and _program(line) == folded:
                rank = 1
            elif len(folded) >= _ONE_WORD and all(word in line for word in others):
                rank = _RANKS - 1
            else:
                continue
            ranks[rank].setdefault(length, []).append(position)
        return [at for by_length in ranks for length in sorted(by_length) for at in by_length[length]]

    def close(self, part: str) -> list[str]:
        """At most three names that are really like `part`, best first: a typing error apart, or with a few characters more.

        Case does not count. Two names that differ in case alone are one. An attribute that would begin with a digit has a `_` before it.
        """
        typed = part.lower()
        spellings = (typed, f"_{typed}") if typed[:1].isdigit() else (typed,)
        matches = sorted({match for each in spellings for match in (*self._near(each), *self._longer(each))})
        best: dict[str, str] = {}
        for _, position in matches:
            name = self.name(position)
            best.setdefault(name.lower(), name)
        return list(best.values())[:_MOST]

    def elsewhere(self, part: str) -> list[str]:
        """At most three attribute paths that end in `part` below the top level: `python3Packages.numpy` for `numpy`."""
        end = f".{part.lower()}"
        lines = self._lines(f"{end}\t")
        paths = [self.name(at) for at, line in lines if _name(line).endswith(end)]
        return sorted(paths, key=_length_and_name)[:_MOST]

    def with_program(self, program: str) -> list[str]:
        """At most two attributes of packages whose main program has this name: `ripgrep` for `rg`."""
        folded = program.lower()
        lines = self._lines(f"\t{folded}\t") if folded else ()
        names = [self.name(at) for at, line in lines if _program(line) == folded]
        return sorted(names, key=_length_and_name)[:_MOST_PROGRAMS]

    def _line(self, position: int) -> str:
        portion, place = divmod(position, _PORTION)
        return self._portions[portion].original(place)

    def _lines(self, text: str, *, first: bool = False) -> Iterator[tuple[int, str]]:
        """As `_Portion.lines`."""
        return chain.from_iterable(portion.lines(text, first=first) for portion in self._portions)

    def _near(self, typed: str) -> Iterator[tuple[int, int]]:
        """How many edits a name is away, and its position, for the names that a typing error explains."""
        from rapidfuzz import process  # a search has no use for it, and the command should start fast
        from rapidfuzz.distance import OSA

        most = 1 if len(typed) <= _SHORT else 2 if len(typed) <= _LONG else 3
        for length in range(max(1, len(typed) - most), len(typed) + most + 1):
            for positions, spellings in self._alike.get(length, _Alike(length)).portions():
                for spelling, edits, index in process.extract(
                    typed, spellings, scorer=OSA.distance, processor=None, score_cutoff=most, limit=None
                ):
                    # Few people mistype the first letter, and with more edits everything is like everything.
                    if (edits < _MANY and len(typed) >= _ONE_WORD) or spelling[0] == typed[:1]:
                        yield int(edits), positions[index]

    def _longer(self, typed: str) -> Iterator[tuple[int, int]]:
        """As `_near`, for the names that go on after the text."""
        if len(typed) < _ONE_WORD:
            return
        for position, line in self._lines(typed, first=True):
            ending = len(_name(line)) - len(typed)
            if 0 < ending <= _LONGEST_ENDING:
                yield ending, position


class _Alike:
    """The names of one length, in lowercase, one after another in one text."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._positions = array("I")
        self._text = StringIO()

    def add(self, position: int, name: str) -> None:
        """Add the name at this position."""
        self._positions.append(position)
        self._text.write(name)

    def portions(self) -> Iterator[tuple[Sequence[int], list[str]]]:
        """The positions and the names of a portion at a time."""
        text, length = self._text.getvalue(), self._length
        for start in range(0, len(self._positions), _PORTION):
            positions = self._positions[start : start + _PORTION]
            first, end = start * length, (start + len(positions)) * length
            yield positions, [text[at : at + length] for at in range(first, end, length)]


class _Portion:
    """A few thousand packages as one text, and as one in lowercase: a line for each, `NAME TAB RECORD`."""

    def __init__(self, first: int, lines: Sequence[str]) -> None:
        """`first` is the position of the first one."""
        self._first = first
        self.has_facts: Final = any(
            not line.endswith("\t" if line.count("\t") == 1 else "\t\t\t\t") for line in lines
        )
        self._original = _Lines(lines)
        folded = [line.lower() for line in lines]
        self._folded = self._original if folded == lines else _Lines(folded)

    def original(self, place: int) -> str:
        """The line at this place."""
        return self._original[place]

    def originals(self) -> list[str]:
        """All lines."""
        return self._original.all()

    def lines(self, text: str, *, first: bool) -> Iterator[tuple[int, str]]:
        """The positions and lines, in lowercase, that hold the text, or with `first` begin with it."""
        if len(text) < _ONE_WORD and not first:  # it is in nearly every line
            lines = enumerate(self._folded.all(), self._first)
            yield from ((position, line) for position, line in lines if text in line)
            return
        whole, starts = self._folded.text, self._folded.starts
        back = 1 if first else 0  # the line break before the line
        sought = "\n" + text if first else text
        at = whole.find(sought)
        while at >= 0:
            place = bisect_right(starts, at + back) - 1
            yield self._first + place, self._folded[place]
            at = whole.find(sought, starts[place + 1] - back)


class _Lines:
    """Lines in one text, with a line break before the first one and after each."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.text: Final = "\n" + "".join([f"{line}\n" for line in lines])
        self.starts: Final = array("I", accumulate((len(line) + 1 for line in lines), initial=1))

    def all(self) -> list[str]:
        """The lines."""
        return self.text.split("\n")[1:-1]

    def __getitem__(self, place: int) -> str:
        """One line."""
        return self.text[self.starts[place] : self.starts[place + 1] - 1]


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


def _name(line: str) -> str:
    return line[: line.index("\t")]


def _program(line: str) -> str:
    """The main program of the package of a line, empty where the set does not say."""
    return line.split("\t")[3] if line.count("\t") > 1 else ""


def _rank(text: str, name: str) -> int:
    """How well a name fits a text that it holds: less is better."""
    last = name.rpartition(".")[2]
    return 0 if last == text else 2 if last.startswith(text) else 3


def _length_and_name(name: str) -> tuple[int, str]:
    return len(name), name
