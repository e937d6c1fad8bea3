"""Names that are like another name: few, of the set, in one order."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import names as core_names

NAMES = [
    "git",
    "gitAndTools.gitFull",
    "gitui",
    "legit",
    "python3Packages.numpy",
    "numptyphysics",
    "x.y.numpy",
]


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=30))
def test_what_is_close_is_little_and_of_the_set(part: str, names: list[str]) -> None:
    close = core_names.close(part, names)

    assert len(close) <= 3
    assert len(set(close)) == len(close)
    assert set(close) <= set(names)


def test_the_closest_comes_first() -> None:
    assert core_names.close("GIT", ["gist", "git", "gitui"])[0] == "git"


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("numpy", ["x.y.numpy", "python3Packages.numpy"]),
        ("NUMPY", ["x.y.numpy", "python3Packages.numpy"]),
        ("git", []),
        ("python3Packages", []),
    ],
)
def test_elsewhere_is_below_the_top_level(part: str, found: list[str]) -> None:
    assert core_names.elsewhere(part, NAMES) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("git", ["git", "gitui", "gitAndTools.gitFull", "legit"], id="equal, beginning, holding"),
        pytest.param("NUM", ["x.y.numpy", "numptyphysics", "python3Packages.numpy"], id="case aside"),
        pytest.param("python3Packages", ["python3Packages.numpy"], id="a set"),
        pytest.param("nothing", [], id="nothing"),
    ],
)
def test_a_search_finds_every_name_that_holds_the_text(text: str, found: list[str]) -> None:
    assert core_names.search(text, NAMES) == found


@given(st.text("git.", max_size=3), st.lists(st.text("git.", max_size=6), unique=True), st.randoms())
def test_a_search_has_one_order(text: str, names: list[str], random: Random) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)

    assert core_names.search(text, shuffled) == core_names.search(text, names)
