"""The matches of a search among names. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.core import names
from proxy.core.model import Policy
from proxy.tools import suggest

_DEFAULT, _MOST = 25, 100  # results; docker sends no other numbers than 1 to 100
_LONGEST_TEXT = 100  # characters
_IMAGE = "an image of this registry"


@dataclass(frozen=True, slots=True)
class Question:
    """The text to look for, in the names of this package set and in those of repositories; `most` results."""

    text: str
    package_set: str
    repository: str
    most: int


@dataclass(frozen=True, slots=True)
class Match:
    """A repository that can be pulled."""

    name: str
    description: str


def parse(query: Mapping[str, str], package_sets: Collection[str]) -> Question:
    """The question of a query: `q` is `TEXT`, or `SET/TEXT`, or the packages of an image of which the last one counts."""
    typed = query.get("q", "").strip().lower()[:_LONGEST_TEXT]
    first, slash, rest = typed.partition("/")
    package_set = first if slash and first in package_sets else ""
    text = (rest if package_set else typed).rpartition("/")[2]
    number = query.get("n", "")
    most = int(number) if number.isascii() and number.isdigit() and len(number) < 5 else _DEFAULT
    return Question(text, package_set, typed, min(max(most, 1), _MOST))


def packages(
    attributes: Sequence[str],
    descriptions: Mapping[str, str],
    aliases: Mapping[str, str],
    question: Question,
    policy: Policy,
) -> list[Match]:
    """The packages whose names hold the text, best first, as a client pulls them."""
    prefix = f"{question.package_set}/" if question.package_set else ""
    matches: dict[str, str] = {}
    for name in suggest.search(question.text, [*aliases, *attributes]):
        attribute = aliases.get(name, name)
        spelled = name if name in aliases else names.spelled(name)
        if spelled is not None and may_be_pulled(attribute, policy):
            matches.setdefault(prefix + spelled, descriptions.get(attribute, ""))
        if len(matches) >= _MOST:
            break
    return [Match(name, description) for name, description in matches.items()]


def images(repositories: Iterable[str], question: Question) -> list[Match]:
    """The repositories whose names hold the text."""
    return [Match(name, _IMAGE) for name in sorted(repositories) if question.repository in name]


def answer(
    question: Question, images: Sequence[Match], packages: Sequence[Match], host: str
) -> dict[str, object]:
    """The answer as docker and podman read it. `host` stands in front of each name, if any.

    Half of the results is for either kind, and more where the other one has fewer.
    """
    ours = {each.name for each in packages}
    others = [each for each in images if each.name not in ours]
    others = others[: max(question.most // 2, question.most - len(packages))]
    results = [*others, *packages][: question.most]
    return {
        "query": question.repository,
        "num_results": len(results),
        "num_pages": 1,
        "page": 1,
        "page_size": question.most,
        "results": [
            {
                "name": f"{host}/{each.name}" if host else each.name,
                "description": each.description,
                "star_count": 0,
                "is_official": False,
                "is_automated": False,
                "is_trusted": False,
            }
            for each in results
        ],
    }


def may_be_pulled(attribute: str, policy: Policy) -> bool:
    """Whether the lists of names of the policy allow this; licences are in no name."""
    parts = attribute.split(".")
    endings = [".".join(parts[start:]) for start in range(len(parts))]
    if any(ending in policy.deny_packages for ending in endings):
        return False
    only = policy.only_packages
    return not only or attribute in only or parts[-1] in only
