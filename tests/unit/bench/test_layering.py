"""The laboratory of layers: strategies do what their authors say, and the judge counts what a dockerd would pull."""

from collections.abc import Sequence
from random import Random

import pytest

from proxy.core.model import PathInfo
from tests.bench.layering import strategies
from tests.bench.layering.facts import ALWAYS, SHELL, Facts, Image, requests
from tests.bench.layering.judge import outcome

MB = 1_000_000


def path(name: str) -> str:
    return f"/nix/store/{'0' * 32}-{name}"


def graph(**needs: str) -> dict[str, PathInfo]:
    """Each name and what it needs."""
    return {
        path(name): PathInfo(path(name), MB, tuple(sorted(path(need) for need in wanted.split())))
        for name, wanted in needs.items()
    }


def image(paths: dict[str, PathInfo], *roots: str) -> Image:
    return Image(tuple(paths[each] for each in sorted(paths)), tuple(map(path, roots)))


def names(layers: Sequence[Sequence[str]]) -> list[str]:
    """A layer is a word: its paths' names, sorted."""
    return ["".join(sorted(each.partition("-")[2] for each in layer)) for layer in layers]


def test_the_popularity_contest_counts_every_way_to_a_path_at_its_depth() -> None:
    """The example of nixpkgs's closure-graph.py: one 1, two 2, three 4, four 6."""
    paths = graph(one="two three", two="three", three="four", four="")

    assert names(strategies.popularity_contest(image(paths, "one"))) == ["four", "three", "two", "one"]


def test_the_contest_puts_what_is_above_the_budget_in_the_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "BUDGET", 2)

    layers = names(strategies.popularity_contest(image(graph(a="b", b="c", c=""), "a")))

    assert layers == ["c", "ab"]


#: The example of Nixery's description: E is popular, and G is large.
NIXERY = graph(A="E", B="E", C="E D", D="F G", E="", F="", G="")


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        pytest.param(9, {"A", "B", "C", "DF", "E", "G"}, id="all that the image dominates directly"),
        pytest.param(5, {"AB", "C", "DF", "E", "G"}, id="the two of the lowest rating merged"),
    ],
)
def test_dominators_make_the_layers_of_their_example(
    monkeypatch: pytest.MonkeyPatch, budget: int, expected: set[str]
) -> None:
    monkeypatch.setattr(strategies, "BUDGET", budget)
    paths = {**NIXERY, path("G"): PathInfo(path("G"), 200 * MB, ())}
    facts = Facts(paths, {})

    layers = names(strategies.dominators(facts, 3)(image(paths, "A", "B", "C", "D")))

    assert set(layers) == expected
    assert layers[0] == "G"  # the highest rating first


def test_size_cohorts_group_by_the_largest_paths_that_need_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "BUDGET", 4)
    paths = graph(big="lib deep", large="lib", lib="", deep="", leaf="lib")
    paths[path("big")] = PathInfo(path("big"), 9 * MB, paths[path("big")].references)
    paths[path("large")] = PathInfo(path("large"), 8 * MB, paths[path("large")].references)

    layers = names(strategies.size_cohorts(image(paths, "big", "large", "leaf")))

    assert sorted(layers) == sorted(["lib", "bigdeep", "large", "leaf"])


def test_a_dockerd_pulls_again_what_comes_after_the_first_difference() -> None:
    paths = graph(a="", b="", c="")
    order = iter([["a", "b", "c"], ["a", "c", "b"]])

    both = outcome([image(paths), image(paths)], lambda _: [[path(name)] for name in next(order)])

    assert (both.distinct, both.stored, both.pulled, both.repulled) == (3 * MB, 3 * MB, 5 * MB, 2 * MB)
    assert (both.layers, both.small) == ([3, 3], [0, 0])


def test_a_layer_that_comes_in_two_kinds_is_stored_twice() -> None:
    paths = graph(a="", b="")
    alone = {path("a"): paths[path("a")]}

    both = outcome([image(paths), image(alone)], lambda some: [[info.path for info in some.paths]])

    assert (both.distinct, both.stored, both.repulled) == (2 * MB, 3 * MB, MB)


def test_a_strategy_that_loses_a_path_is_caught() -> None:
    with pytest.raises(AssertionError):
        outcome([image(graph(a="", b=""))], lambda _: [[path("a")]])


FACTS = Facts(
    graph(**dict.fromkeys((*SHELL, *ALWAYS, *"abcdefgh"), "libc"), libc="", lib="libc", user="lib libc"),
    {name: path(name) for name in (*SHELL, *ALWAYS, *"abcdefgh", "user")},
)


def test_requests_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert requests(FACTS, 1) == requests(FACTS, 1) != requests(FACTS, 2)
    assert len(requests(FACTS, 1)) >= 200
    assert {len([name for name in asked if name not in SHELL]) for asked in requests(FACTS, 1)} == set(
        range(1, 7)
    )
    assert 0 < sum("nano" in asked for asked in requests(FACTS, 1)) < 200


def test_a_new_version_renews_what_needs_it_and_nothing_else() -> None:
    later = FACTS.updated([path("lib")], Random(1))

    kept = FACTS.paths.keys() & later.paths.keys()
    renewed = {each.partition("-")[2] for each in later.paths.keys() - kept}
    assert renewed == {"lib.1", "user"}
    assert later.paths[later.attributes["user"]].references != FACTS.paths[path("user")].references
