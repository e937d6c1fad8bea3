"""What a search finds, in which order, and how it is written for docker and podman."""

import pytest

from proxy.core.model import Policy
from proxy.tools.name_index import NameIndex
from proxy.web.search import matches
from proxy.web.search.matches import Match, Question

NAMES = ("git", "gitFull", "hello", "libgit2", "python3Packages.gitPython", "-git", "_7zz")
RECORDS = ("2.51\tGPL-2.0-only\tgit\tDistributed version control system", *["\t\t\t"] * 6)
INDEX = NameIndex(NAMES, RECORDS)
GIT = Match("git", "2.51: Distributed version control system")
ANY = Policy()


@pytest.mark.parametrize(
    ("query", "question"),
    [
        pytest.param({"q": "git", "n": "25"}, Question("git", "", "git", 25), id="docker and podman"),
        pytest.param({"q": " GIT "}, Question("git", "", "git", 25), id="capitals"),
        pytest.param({"q": "team/git"}, Question("git", "team", "team/git", 25), id="of a set"),
        pytest.param({"q": "team"}, Question("team", "", "team", 25), id="a name like a set"),
        pytest.param({"q": "shell/git"}, Question("git", "", "shell/git", 25), id="an image"),
        pytest.param({}, Question("", "", "", 25), id="nothing"),
        pytest.param({"q": "x", "n": "0"}, Question("x", "", "x", 1), id="too few"),
        pytest.param({"q": "x", "n": "999"}, Question("x", "", "x", 100), id="too many"),
        pytest.param({"q": "x", "n": "-1"}, Question("x", "", "x", 25), id="no number"),
        pytest.param({"q": "x", "n": "9" * 5000}, Question("x", "", "x", 25), id="a huge number"),
        pytest.param({"q": "x", "page": "3"}, Question("x", "", "x", 25, 3), id="a page"),
        pytest.param({"q": "x", "page": "-3"}, Question("x", "", "x", 25, 1), id="no page"),
        pytest.param({"q": "x" * 5000}, Question("x" * 100, "", "x" * 100, 25), id="a huge text"),
    ],
)
def test_a_question(query: dict[str, str], question: Question) -> None:
    assert matches.parse(query, {"team"}) == question


def names_of(question: Question, policy: Policy = ANY, **aliases: str) -> list[str]:
    return [each.name for each in matches.packages(INDEX, aliases, question, policy)]


def test_packages_come_best_first_as_a_client_pulls_them() -> None:
    question = Question("git", "", "git", 25)

    found = matches.packages(INDEX, {}, question, ANY)

    assert found[0] == GIT
    assert [each.name for each in found] == ["git", "gitfull", "python3packages.gitpython", "libgit2"]


def test_packages_of_a_set_have_its_name_in_front() -> None:
    assert names_of(Question("hel", "team", "team/hel", 25)) == ["team/hello"]


def test_aliases_are_names_too() -> None:
    found = matches.packages(INDEX, {"vcs": "git"}, Question("vcs", "", "vcs", 25), ANY)

    assert found == [Match("vcs", GIT.description)]


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        pytest.param(
            Policy(deny_packages=("git",)), ["gitfull", "python3packages.gitpython", "libgit2"], id="denied"
        ),
        pytest.param(
            Policy(deny_packages=("gitPython",)), ["git", "gitfull", "libgit2"], id="denied inside of a set"
        ),
        pytest.param(
            Policy(only_packages=("git", "gitPython")), ["git", "python3packages.gitpython"], id="only"
        ),
    ],
)
def test_what_the_policy_names_is_hidden(policy: Policy, names: list[str]) -> None:
    assert names_of(Question("git", "", "git", 25), policy) == names


def test_an_answer_has_what_both_clients_read() -> None:
    question = Question("git", "", "git", 3)
    images = matches.images(["team/git", "other", "git", "shell/git", "zz/git"], question)

    answer = matches.answer(question, images, [Match("git", "a text"), Match("gitfull", "")], "h:80")

    assert [(each["name"], each["description"]) for each in answer["results"]] == [  # type: ignore[attr-defined]
        ("h:80/shell/git", "an image of this registry"),
        ("h:80/git", "a text"),
        ("h:80/gitfull", ""),
    ]
    assert answer["num_results"] == 3
    assert answer["results"][0] == {  # type: ignore[index]
        "name": "h:80/shell/git",
        "description": "an image of this registry",
        "star_count": 0,
        "is_official": False,
        "is_automated": False,
        "is_trusted": False,
    }


def test_images_have_the_room_that_packages_leave() -> None:
    question = Question("x", "", "x", 4)
    images = [Match(f"x{number}", "") for number in range(9)]

    assert matches.answer(question, images, [], "")["num_results"] == 4


def test_the_pages_have_everything_once() -> None:
    images = [Match(f"x{number}", "") for number in range(9)]
    packages = [Match(f"y{number}", "") for number in range(6)]
    seen: list[str] = []
    for page in (1, 2, 3, 4, 5):
        answer = matches.answer(Question("x", "", "x", 4, page), images, packages, "")
        assert (answer["page"], answer["num_pages"]) == (page, 4)
        seen += [each["name"] for each in answer["results"]]  # type: ignore[attr-defined]

    assert seen[:4] == ["x0", "x1", "y0", "y1"]
    assert sorted(seen) == sorted(each.name for each in (*images, *packages))
