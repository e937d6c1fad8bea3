"""Names that are like another name, and names that hold a text: of the set, in one order, in little time."""

import gc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.facts import PackageFacts
from proxy.tools import name_index
from proxy.tools.name_index import NameIndex

NAMES = [
    "git",
    "gitAndTools.gitFull",
    "gitui",
    "legit",
    "python3Packages.numpy",
    "numptyphysics",
    "x.y.numpy",
]


def search(index: NameIndex, text: str) -> list[str]:
    return [index.name(position) for position in index.search(text)]


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=30))
def test_what_is_close_is_little_and_of_the_set(part: str, names: list[str]) -> None:
    close = name_index.close(part, names)

    assert len(close) <= 3
    assert len(set(close)) == len(close)
    assert set(close) <= set(names)


def test_the_closest_comes_first() -> None:
    assert name_index.close("GIT", ["gist", "git", "gitui"])[0] == "git"


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
    assert NameIndex(NAMES).elsewhere(part) == found


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
    assert search(NameIndex(NAMES), text) == found


@given(st.text("git.", max_size=3), st.lists(st.text("git.", max_size=6), unique=True), st.randoms())
def test_a_search_has_one_order(text: str, names: list[str], random: Random) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)

    assert search(NameIndex(sorted(shuffled)), text) == search(NameIndex(sorted(names)), text)


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
        pytest.param("7z", "_7zz", id="an attribute that would begin with a digit"),
    ],
)
def test_a_typing_error_finds_the_name(typed: str, name: str) -> None:
    names = [
        "_7zz",
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

    assert name_index.close(typed, names)[0] == name


def test_names_that_differ_only_in_case_are_suggested_once() -> None:
    assert name_index.close("gtk", ["GTK", "gtk", "Gtk", "gtk2", "gtk3"]) == ["GTK", "gtk2", "gtk3"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        pytest.param("nosuch", "mongosh", id="four letters of both"),
        pytest.param("gut", "jq", id="short"),
        pytest.param("x", "jq", id="one letter"),
        pytest.param("boss", "rust", id="two edits in a short name"),
        pytest.param("ansible", "openable", id="another beginning"),
        pytest.param("", "jq", id="nothing"),
    ],
)
def test_what_is_not_like_it_is_no_suggestion(typed: str, name: str) -> None:
    assert name_index.close(typed, [name]) == []


def test_a_name_that_goes_on_is_a_suggestion() -> None:
    names = ["nodejs", "nodejs_22", "node-gyp-build", "postgresql", "node_exporter"]

    assert name_index.close("node", names) == ["nodejs"]
    assert name_index.close("postgres", names) == ["postgresql"]


FACTS = (
    PackageFacts("fdupes", "2.4", "Finds duplicate files", "MIT", "fdupes"),
    PackageFacts("hello", "2.12", "Program that greets\nyou\tall", "GPL-3.0-or-later", "hello"),
    PackageFacts("python3Packages.rg", "1", "Something else", "", ""),
    PackageFacts("ripgrep", "14.1", "A fast GREP", "MIT", "rg"),
    PackageFacts("ripgrep-all", "0.10", "Ripgrep in files of all kinds", "AGPL-3.0-or-later", "rga"),
    PackageFacts("silent"),
    PackageFacts("İstanbul", "1", "Stadt am Bosporus", "MIT", "istanbul"),
)
INDEX = NameIndex([facts.name for facts in FACTS], [name_index.record(facts) for facts in FACTS])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("rg", ["python3Packages.rg", "ripgrep"], id="equal, then the program"),
        pytest.param("grep", ["ripgrep", "ripgrep-all"], id="part of names"),
        pytest.param("fast grep", ["ripgrep"], id="words of a description"),
        pytest.param("files", ["fdupes", "ripgrep-all"], id="a word of descriptions"),
        pytest.param("Ripgrep files", ["ripgrep-all"], id="words of both"),
        pytest.param("bosporus", ["İstanbul"], id="letters that lowercase makes longer"),
        pytest.param("grep nothing", [], id="not all words"),
        pytest.param("you all", ["hello"], id="a description of several lines"),
        pytest.param("", [facts.name for facts in sorted(FACTS, key=lambda f: len(f.name))], id="all"),
    ],
)
def test_a_search_reads_programs_and_descriptions(text: str, found: list[str]) -> None:
    assert search(INDEX, text) == found


def test_the_facts_come_back() -> None:
    assert [INDEX.facts(position) for position in (0, 3, 5)] == [FACTS[0], FACTS[3], FACTS[5]]
    assert INDEX.facts(1).description == "Program that greets you all"
    assert NameIndex(["a"]).facts(0) == PackageFacts("a")
    assert INDEX.find("silent") == 5
    assert INDEX.find("gone") is None


def test_a_program_finds_its_package() -> None:
    assert INDEX.with_program("RG") == ["ripgrep"]
    assert INDEX.with_program("mit") == INDEX.with_program("") == []


def test_a_garbage_collection_looks_at_few_objects_of_an_index() -> None:
    """It keeps the interpreter's lock to its end, so an object for each name would stop the event loop."""
    names = [f"package-{number}" for number in range(10_000)]
    index = NameIndex(names, [f"{number}\tMIT\t\tText {number}" for number in range(10_000)])

    seen: dict[int, object] = {}
    waiting: list[object] = [index]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and not isinstance(each, type):
            seen[id(each)] = each
            waiting += gc.get_referents(each)

    assert len(seen) < 200
    assert index.facts(9_999) == PackageFacts("package-9999", "9999", "Text 9999", "MIT")


def test_a_name_that_no_line_can_hold_is_left_out() -> None:
    index = NameIndex(["a", "b\tc", "d\ne", "f"], ["1\t\t\t", "2\t\t\t", "3\t\t\t", "4\t\t\t"])

    assert [(name, index.facts(at).version) for at, name in enumerate(index)] == [("a", "1"), ("f", "4")]
    assert index.find("f") == 1
    assert index.find("F") is None
