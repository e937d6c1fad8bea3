"""The order of a search for packages."""

from proxy.web.page.composer.packages import find

NAMES = ("ack", "git", "gitAndTools", "jq", "legit")
SAID = {"jq": "A lightweight JSON processor", "ack": "Searches sources, also of Git", "git": "git itself"}


def test_names_come_before_descriptions() -> None:
    assert find("git", NAMES, SAID) == ["git", "gitAndTools", "legit", "ack"]


def test_a_description_holds_every_word() -> None:
    assert find("json Processor", NAMES, SAID) == ["jq"]
    assert find("json git", NAMES, SAID) == []


def test_without_a_text_all_of_them_come_by_name() -> None:
    assert find("", ("b", "C", "a"), {}) == ["a", "b", "C"]
