"""Names that are like another name. Pure; orders are total, so that the same question gets the same answer."""

import difflib
from collections.abc import Iterable, Sequence

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
