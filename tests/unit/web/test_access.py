"""Who may build: names, and how many in a minute."""

from collections.abc import Hashable

import pytest

from proxy.core.errors import TooManyBuilds
from proxy.web import access
from proxy.web.access import AccessRules, Rate
from proxy.web.client import neighbourhood


@pytest.mark.parametrize(
    ("patterns", "repository", "made"),
    [
        ((), "anything/at/all", True),
        (("hello",), "hello", True),
        (("hello",), "hello/git", False),
        (("nix/*",), "nix/hello/git", True),
        (("nix/*",), "nix", False),
        (("nix/*", "hello"), "hello", True),
        (("*",), "a/b", True),
    ],
)
def test_names_that_are_made(patterns: tuple[str, ...], repository: str, made: bool) -> None:
    assert AccessRules(repositories=patterns).makes(repository) is made


class Clock:
    """The time, by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(rate: Rate, client: str, what: Hashable) -> int:
    """The seconds to wait, 0 if it was let through."""
    try:
        rate.count(client, what)
    except TooManyBuilds as error:
        return error.retry_after
    return 0


def test_so_many_in_a_minute_and_then_again() -> None:
    clock = Clock()
    rate = Rate(2, clock)

    assert refused(rate, "a", 1) == 0
    clock.now += 20.5
    assert refused(rate, "a", 2) == 0
    assert refused(rate, "a", 3) == 40
    assert refused(rate, "b", 3) == 0
    clock.now += 39.5
    assert refused(rate, "a", 3) == 0
    assert refused(rate, "a", 4) == 21


def test_the_same_thing_counts_once_and_from_the_first_time() -> None:
    clock = Clock()
    rate = Rate(1, clock)

    assert [refused(rate, "a", 1) for _ in range(3)] == [0, 0, 0]
    clock.now += 59
    assert refused(rate, "a", 1) == 0
    clock.now += 1
    assert refused(rate, "a", 2) == 0


def test_what_was_refused_does_not_count() -> None:
    clock = Clock()
    rate = Rate(1, clock)
    assert refused(rate, "a", 1) == 0

    waits = []
    for _ in range(3):
        clock.now += 10
        waits.append(refused(rate, "a", 2))

    assert waits == [50, 40, 30]


def test_clients_are_forgotten_by_the_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_MOST_CLIENTS", 3)
    rate = Rate(1, Clock())
    for client in "abcd":
        rate.count(client, 1)

    assert refused(rate, "d", 2) > 0
    assert refused(rate, "a", 2) == 0


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", "unknown"),
        ("a:b", "a:b"),
    ],
)
def test_an_ipv6_network_counts_as_one(address: str, counted: str) -> None:
    assert neighbourhood(address) == counted
