"""How a closure becomes layers: bounded, whole, and the same whatever the order or the company."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import layering
from proxy.model import Closure, LayerPlan, PathInfo, canonical_json, digest_of

MIB = 1 << 20


def store_path(name: str) -> str:
    return f"/nix/store/{'0' * 32}-{name}"


def info(name: str, size: int = MIB, needs: Sequence[str] = ()) -> PathInfo:
    return PathInfo(store_path(name), size, tuple(store_path(need) for need in needs))


def plan(infos: Sequence[PathInfo], budget: int) -> tuple[LayerPlan, ...]:
    return layering.plan(Closure((), tuple(infos)), budget)


def closures(most: int = 40) -> st.SearchStrategy[list[PathInfo]]:
    """Paths that refer only to earlier ones, as in a store: no circle."""
    path = st.tuples(st.integers(0, 1 << 32), st.lists(st.integers(0, most), max_size=3))
    return st.lists(path, max_size=most).map(_closure)


def _closure(drawn: list[tuple[int, list[int]]]) -> list[PathInfo]:
    names = [f"package{number}-{number % 3}.{number}" for number in range(len(drawn))]
    return [
        info(name, size, sorted({names[need % number] for need in needs if number}))
        for number, (name, (size, needs)) in enumerate(zip(names, drawn, strict=True))
    ]


def closure_of(root: PathInfo, infos: Sequence[PathInfo]) -> list[PathInfo]:
    by_path = {item.path: item for item in infos}
    reached: dict[str, PathInfo] = {}
    pending = [root]
    while pending:
        item = pending.pop()
        if item.path not in reached:
            reached[item.path] = item
            pending += [by_path[reference] for reference in item.references]
    return list(reached.values())


def test_an_empty_closure_has_no_layers() -> None:
    assert plan([], 10) == ()


def test_what_fits_the_budget_is_one_layer_for_each_path_with_needs_first() -> None:
    paths = [info("git", needs=["zlib", "glibc"]), info("zlib", needs=["glibc"]), info("glibc"), info("acl")]

    plans = plan(paths, 4)

    assert plans == tuple(LayerPlan((store_path(name),)) for name in ("acl", "glibc", "zlib", "git"))


def test_depth_counts_each_needed_path_once() -> None:
    diamond = [
        info("z-base"),
        info("left", needs=["z-base"]),
        info("right", needs=["z-base"]),
        info("a-top", needs=["left", "right"]),
        info("x1"),
        info("x2", needs=["x1"]),
        info("x3", needs=["x2"]),
        info("b-chain", needs=["x3"]),
    ]

    plans = plan(diamond, 8)

    # a-top needs four paths, itself included, and so does b-chain: the name decides.
    names = [layer.paths[0].rpartition("/")[2].partition("-")[2] for layer in plans]
    assert names == ["x1", "z-base", "left", "right", "x2", "x3", "a-top", "b-chain"]


def test_large_paths_stay_alone_and_small_ones_are_gathered() -> None:
    paths = [info(f"large{n}", 100 * MIB) for n in range(3)] + [info(f"small{n}", 10) for n in range(30)]

    plans = plan(paths, 8)

    assert [layer.paths for layer in plans[:3]] == [(store_path(f"large{n}"),) for n in range(3)]
    assert all("small" in path for layer in plans[3:] for path in layer.paths)
    assert len(plans) <= 8


def test_equal_sizes_that_do_not_all_fit_are_gathered_together() -> None:
    plans = plan([info(f"p{n}", MIB) for n in range(50)], 10)

    assert len(plans) <= 5
    assert sum(len(layer.paths) for layer in plans) == 50


def test_a_budget_of_one_gives_one_layer() -> None:
    plans = plan([info("b", 5), info("a", 7 * MIB)], 1)

    assert plans == (LayerPlan((store_path("a"), store_path("b"))),)


@pytest.mark.parametrize(
    ("budget", "layers", "digest"),
    [
        pytest.param(
            99,
            92,
            "sha256:3727f56c8e6b36a183009b2e60d7068bd1fd803b754471148c0606cf420ef424",
            id="the usual budget",
        ),
        pytest.param(
            10,
            5,
            "sha256:44b7908609d4480ce1fe4cb60443ea3ac92b3b38b1f24416516a938b4bd08c9b",
            id="a small budget",
        ),
    ],
)
def test_the_plan_is_the_one_that_was_agreed(budget: int, layers: int, digest: str) -> None:
    """Another digest here means that new images share fewer layers with those that are there."""
    paths = [
        info(f"package{n}-{n}.0", 1 << n % 23, [f"package{n - 7}-{n - 7}.0"] if n > 7 else ())
        for n in range(400)
    ]

    plans = plan(paths, budget)

    assert len(plans) == layers
    assert digest_of(canonical_json([layer.paths for layer in plans])) == digest


def test_a_new_version_goes_where_the_old_one_was() -> None:
    def layers(version: str) -> list[set[str]]:
        paths = [info(f"p{n}-1.{n}", 10) for n in range(40)]
        plans = plan([*paths, info(f"curl-{version}", 10)], 20)
        return [{layering.package_name(path) for path in layer.paths} for layer in plans]

    assert layers("7.88.1") == layers("8.0.1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("git-2.39.5", "git", id="a version"),
        pytest.param("git-2.39.5-doc", "git", id="an output after the version"),
        pytest.param("bash-interactive-5.2-p15", "bash-interactive", id="dashes on both sides"),
        pytest.param("python3.11-numpy-1.24", "python3.11-numpy", id="digits in the name"),
        pytest.param("source", "source", id="no version"),
        pytest.param("7zip-22", "7zip", id="a digit in front"),
        pytest.param("gcc-wrapper", "gcc-wrapper", id="a dash before a letter"),
    ],
)
def test_package_name_is_what_outlives_a_new_version(name: str, expected: str) -> None:
    assert layering.package_name(store_path(name)) == expected


@given(closures(), st.integers(1, 50))
def test_each_path_is_in_exactly_one_layer_and_layers_keep_to_the_budget(
    paths: list[PathInfo], budget: int
) -> None:
    plans = plan(paths, budget)

    assert len(plans) <= budget
    assert sorted(path for layer in plans for path in layer.paths) == sorted(item.path for item in paths)
    assert all(layer.paths and layer.paths == tuple(sorted(layer.paths)) for layer in plans)


@given(closures(), st.integers(1, 50), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_count(paths: list[PathInfo], budget: int, random: Random) -> None:
    shuffled = list(paths)
    random.shuffle(shuffled)
    turned = [PathInfo(item.path, item.nar_size, item.references[::-1]) for item in shuffled]

    assert plan(turned, budget) == plan(paths, budget)


@given(closures())
def test_a_smaller_image_is_layers_of_the_larger_one_in_the_same_order(paths: list[PathInfo]) -> None:
    larger = plan(paths, 40)

    for item in paths:
        smaller = plan(closure_of(item, paths), 40)
        assert [layer for layer in larger if layer in smaller] == list(smaller)


@given(closures(), st.integers(2, 49))
def test_a_further_small_path_changes_one_layer_at_most(paths: list[PathInfo], budget: int) -> None:
    paths = [*paths, *(info(f"filler{n}", 1 << 10) for n in range(50))]  # above the budget in any case
    before = plan(paths, budget)

    after = plan([*paths, info("extra-1.0", 0)], budget)

    assert len(set(before) - set(after)) <= 1
    assert len(set(after) - set(before)) == 1


@given(closures(most=30))
def test_needs_come_before_what_needs_them(paths: list[PathInfo]) -> None:
    position = {layer.paths[0]: number for number, layer in enumerate(plan(paths, 30))}

    assert all(position[reference] < position[item.path] for item in paths for reference in item.references)


def test_a_long_chain_of_references_is_no_recursion() -> None:
    chain = [info(f"n{n:05}", 10, [f"n{n - 1:05}"] if n else ()) for n in range(5000)]

    plans = plan(chain[::-1], 5000)

    assert [layer.paths[0] for layer in plans] == [item.path for item in chain]
