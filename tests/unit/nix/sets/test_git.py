"""What is a commit and what is a day, without asking anyone."""

import pytest

from proxy.core.names import is_revision
from proxy.nix.sets import git


@pytest.mark.parametrize(
    ("reference", "commit", "day"),
    [
        ("0123456789abcdef0123456789abcdef01234567", True, False),
        ("0123456789abcdef" * 4, True, False),
        ("0123456789abcdef0123456789abcdef0123456", False, False),
        ("0123456789ABCDEF0123456789abcdef01234567", False, False),
        ("2026-01-31", False, True),
        ("2026-1-31", False, False),
        ("2026-13-01", False, False),
        ("2026-01-32", False, False),
        ("2026-02-31", False, False),
        ("\N{ARABIC-INDIC DIGIT TWO}026-02-01", False, False),
        ("2026-01-31-x", False, False),
        ("main", False, False),
    ],
)
def test_a_reference_is_told_by_its_looks(reference: str, commit: bool, day: bool) -> None:
    assert (is_revision(reference), git.is_day(reference)) == (commit, day)
