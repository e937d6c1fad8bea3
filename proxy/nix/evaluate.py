"""What Nix said of the packages of a set, remembered: a set that lies in the store says the same for ever.

So an image of packages that were asked for before, together or apart, needs no evaluation, which of nixpkgs takes a second or so.
What it names are derivations that a garbage collection may take meanwhile: that is met when they are realised
(`DerivationLost`), and then everything is forgotten and asked anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cachetools import LRUCache

_MOST = 10_000  # packages, of about a kilobyte each

#: One entry of what `nix/default.nix` answers, of the kind `package`; None for an optional one that the set lacks.
Found = Mapping[str, Any] | None


class Evaluations:
    """Packages by the question (set, system, policy and who wants them, as text) and the name as typed."""

    def __init__(self, most: int = _MOST) -> None:
        """Nothing is known."""
        self._found: LRUCache[tuple[bytes, str], Found] = LRUCache(most)

    def known(self, question: bytes, names: Iterable[str]) -> dict[str, Found]:
        """As far as they are known."""
        return {name: self._found[question, name] for name in names if (question, name) in self._found}

    def keep(
        self, question: bytes, results: Sequence[Mapping[str, Any]], optional: Iterable[str] = ()
    ) -> None:
        """Remember the packages among these results, and which of the `optional` names are not."""
        found = {result["typed"]: result for result in results}
        for name in optional:
            self._found[question, name] = found.get(name)
        for name, result in found.items():
            if result["kind"] == "package":
                self._found[question, name] = result

    def forget(self) -> None:
        """A derivation was lost, and others with it."""
        self._found.clear()
