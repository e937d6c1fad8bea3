"""What the budget reads of Nix's answers, and how much it collects."""

import json

import pytest

from proxy.nix.budget import StoreBudget, Usage, _oldest, _read
from proxy.nix.runner import Limits, NixRunner

LISTED = (("a", 2), ("b", 1), ("c", 3), ("held", 0))


@pytest.mark.parametrize("shape", [list, dict])
def test_both_shapes_of_nix_are_read(shape: type) -> None:
    info = {"narSize": 7, "registrationTime": 3}
    document = [{"path": "/nix/store/a", **info}] if shape is list else {"/nix/store/a": info}

    assert _read(json.dumps(document).encode()) == {"/nix/store/a": (7, 3)}


@pytest.mark.parametrize(
    ("most", "keep", "usage", "excess"),
    [
        (0, 0, Usage(10**12, 0), 0),
        (1000, 0, Usage(1000, 0), 0),
        (1000, 0, Usage(1100, 0), 200),
        (0, 900, Usage(1, 900), 0),
        (0, 900, Usage(1, 800), 200),
        (1000, 900, Usage(1100, 100), 900),
    ],
)
def test_a_collection_leaves_some_room(most: int, keep: int, usage: Usage, excess: float) -> None:
    budget = StoreBudget(NixRunner(Limits(1, 1)), most_bytes=most, keep_free=keep)

    assert budget._excess(usage) == pytest.approx(excess)


def test_the_oldest_go_first_and_no_more_than_needed() -> None:
    listing = json.dumps([{"path": name, "narSize": 10, "registrationTime": time} for name, time in LISTED])

    assert _oldest(listing.encode(), b"c\nb\na\ngone\n", 15) == ["b", "a"]
    assert _oldest(listing.encode(), b"", 15) == []
