"""Names that are like another name: few, of the set, in one order."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tools import suggest

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
    close = suggest.close(part, names)

    assert len(close) <= 3
    assert len(set(close)) == len(close)
    assert set(close) <= set(names)


def test_the_closest_comes_first() -> None:
    assert suggest.close("GIT", ["gist", "git", "gitui"])[0] == "git"


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
    assert suggest.elsewhere(part, NAMES) == found


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
    assert suggest.search(text, NAMES) == found


@given(st.text("git.", max_size=3), st.lists(st.text("git.", max_size=6), unique=True), st.randoms())
def test_a_search_has_one_order(text: str, names: list[str], random: Random) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)

    assert suggest.search(text, shuffled) == suggest.search(text, names)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        pytest.param("helo", "hello", id="a letter missing"),
        pytest.param("helllo", "hello", id="a letter too many"),
        pytest.param("ehllo", "hello", id="two letters swapped"),
        pytest.param("coreutil", "coreutils", id="no plural"),
        pytest.param("core-utils", "coreutils", id="a hyphen too many"),
        pytest.param("numppy", "numpy", id="a letter twice"),
        pytest.param("pyhton3", "python3", id="swapped in a longer name"),
    ],
)
def test_a_typing_error_finds_the_name(typed: str, name: str) -> None:
    names = [
        "bash",
        "coreutils",
        "curl",
        "git",
        "hello",
        "jq",
        "nano",
        "numpy",
        "python3",
        "shellcheck",
        "zlib",
    ]

    assert suggest.close(typed, names)[0] == name


def test_names_that_differ_only_in_case_are_suggested_once() -> None:
    assert suggest.close("gtk", ["GTK", "gtk", "Gtk", "gtk2", "gtk3"]) == ["GTK", "gtk2", "gtk3"]
