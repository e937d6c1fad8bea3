"""The order of a search for packages, and what the policy hides."""

from proxy.core.model import Policy
from proxy.tools.name_index import NameIndex
from proxy.web.page.composer.packages import find

NAMES = ("ack", "git", "gitAndTools", "jq", "legit")
SAID = {"jq": "A lightweight JSON processor", "ack": "Searches sources, also of Git", "git": "git itself"}
INDEX = NameIndex(NAMES, [f"1\t\t\t{SAID.get(name, '')}" for name in NAMES])


def found(text: str, policy: Policy = Policy()) -> list[str]:  # noqa: B008 - a policy is frozen
    return [NAMES[position] for position in find(text, INDEX, policy)]


def test_names_come_before_descriptions() -> None:
    assert found("git") == ["git", "gitAndTools", "legit", "ack"]


def test_a_description_holds_every_word() -> None:
    assert found("json Processor") == ["jq"]
    assert found("json git") == []


def test_without_a_text_all_of_them_come_in_their_order() -> None:
    assert found("") == list(NAMES)


def test_what_the_policy_names_is_hidden() -> None:
    assert found("git", Policy(deny_packages=("git",))) == ["gitAndTools", "legit", "ack"]
