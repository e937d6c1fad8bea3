"""Names that are like another name. Pure. The same names in the same order get the same answer."""

from collections.abc import Sequence

_MOST = 3
_CUTOFF = 0.6  # similarity: 1 for equal texts, 0 for texts without a common character
_SPELLINGS = 4  # so many names may differ in case alone, and the answer is still full


def close(part: str, names: Sequence[str]) -> list[str]:
    """At most three names that are closest to `part`, best first. Case does not count."""
    from rapidfuzz import process  # `nixfront search` has no use for it, and should start fast
    from rapidfuzz.distance import Indel

    folded = [name.lower() for name in names]
    matches = process.extract(
        part.lower(),
        folded,
        scorer=Indel.normalized_similarity,
        processor=None,
        limit=_MOST * _SPELLINGS,
        score_cutoff=_CUTOFF,
    )
    best: dict[str, str] = {}
    for spelling, _, index in matches:
        best.setdefault(spelling, names[index])
    return list(best.values())[:_MOST]


def elsewhere(part: str, names: Sequence[str]) -> list[str]:
    """At most three attribute paths that end in `part` below the top level: `python3Packages.numpy` for `numpy`."""
    end = f".{part.lower()}"
    paths = [name for name in names if name.lower().endswith(end)]
    return sorted(paths, key=lambda name: (len(name), name))[:_MOST]


def search(text: str, names: Sequence[str]) -> list[str]:
    """Every name that holds the text: equal names first, then names that start with it, then short names.

    Case does not count. Only the last part of an attribute path is compared.
    """
    folded = text.lower()

    def rank(name: str) -> tuple[bool, bool, int, str]:
        last = name.rpartition(".")[2].lower()
        return (last != folded, not last.startswith(folded), len(name), name)

    return sorted((name for name in names if folded in name.lower()), key=rank)
