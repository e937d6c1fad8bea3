"""The matches of a search among names. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from proxy.core import names
from proxy.core.facts import PackageFacts
from proxy.core.model import Policy
from proxy.tools.name_index import NameIndex

_DEFAULT, _MOST = 25, 100  # results; docker sends no other numbers than 1 to 100
_MOST_LISTED = 1000  # packages on all pages together
_LONGEST_TEXT = 100  # characters
_IMAGE = "an image of this registry"


@dataclass(frozen=True, slots=True)
class Question:
    """The text to look for, in the names of this package set and in those of repositories; `most` results on each page."""

    text: str
    package_set: str
    repository: str
    most: int
    page: int = 1


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
    most, page = _number(query.get("n", ""), _DEFAULT), _number(query.get("page", ""), 1)
    return Question(text, package_set, typed, min(max(most, 1), _MOST), max(page, 1))


def packages(index: NameIndex, aliases: Mapping[str, str], question: Question, policy: Policy) -> list[Match]:
    """The packages that the text fits, best first, as a client pulls them: those of all pages."""
    prefix = f"{question.package_set}/" if question.package_set else ""
    matches: dict[str, Match] = {}
    for spelled, facts in _fitting(index, aliases, question.text):
        if spelled is not None and may_be_pulled(facts.name, policy):
            name = prefix + spelled
            matches.setdefault(name, Match(name, _line(facts)))
        if len(matches) >= _MOST_LISTED:
            break
    return list(matches.values())


def _fitting(
    index: NameIndex, aliases: Mapping[str, str], text: str
) -> Iterator[tuple[str | None, PackageFacts]]:
    """The name to pull and the facts of each package: by the operator's aliases first, then by attributes."""
    own = NameIndex(sorted(aliases))
    for position in own.search(text):
        alias = own.name(position)
        at = index.find(aliases[alias])
        yield alias, PackageFacts(aliases[alias]) if at is None else index.facts(at)
    for position in index.search(text):
        yield names.spelled(index.name(position)), index.facts(position)


def _line(facts: PackageFacts) -> str:
    """The version and the description, which both clients show in one column."""
    return ": ".join(text for text in (facts.version, facts.description) if text)


def images(repositories: Iterable[str], question: Question) -> list[Match]:
    """The repositories whose names hold the text."""
    return [Match(name, _IMAGE) for name in sorted(repositories) if question.repository in name]


def answer(
    question: Question, images: Sequence[Match], packages: Sequence[Match], host: str
) -> dict[str, object]:
    """The answer as docker and podman read it. `host` stands in front of each name, if any.

    Half of the first page is for either kind, and more where the other one has fewer.
    """
    ours = {each.name for each in packages}
    others = [each for each in images if each.name not in ours]
    first = max(question.most // 2, question.most - len(packages))
    every = [*others[:first], *packages, *others[first:]]
    results = every[(question.page - 1) * question.most :][: question.most]
    return {
        "query": question.repository,
        "num_results": len(results),
        "num_pages": max(1, -(-len(every) // question.most)),
        "page": question.page,
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


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else default


def may_be_pulled(attribute: str, policy: Policy) -> bool:
    """Whether the lists of names of the policy allow this; licences are in no name."""
    parts = attribute.split(".")
    endings = [".".join(parts[start:]) for start in range(len(parts))]
    if any(ending in policy.deny_packages for ending in endings):
        return False
    only = policy.only_packages
    return not only or attribute in only or parts[-1] in only
