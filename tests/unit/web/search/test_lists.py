"""The order of a search for packages, and what a host does not offer."""

from proxy.tools.name_index import NameIndex
from proxy.web.search.lists import find

NAMES = ("ack", "git", "gitAndTools", "jq", "legit")
SAID = {"jq": "A lightweight JSON processor", "ack": "Searches sources, also of Git", "git": "git itself"}
INDEX = NameIndex(NAMES, [f"1\t\t\t{SAID.get(name, '')}" for name in NAMES])


def found(text: str, offer: bytes = b"\1" * len(NAMES)) -> list[str]:
    return [NAMES[position] for position in find(text, INDEX, offer)]


def test_names_come_before_descriptions() -> None:
    assert found("git") == ["git", "gitAndTools", "legit", "ack"]


def test_a_description_holds_every_word() -> None:
    assert found("json Processor") == ["jq"]
    assert found("json git") == []


def test_without_a_text_all_of_them_come_in_their_order() -> None:
    assert found("") == list(NAMES)


def test_what_the_host_does_not_offer_is_hidden() -> None:
    assert found("git", bytes([1, 0, 1, 1, 1])) == ["gitAndTools", "legit", "ack"]
