"""How a closure becomes layers: bounded, whole, and the same whatever the order or the company."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import Closure, LayerPlan, PathInfo, canonical_json, digest_of
from proxy.image import layer_table, layering
from proxy.image.layer_table import NO_TABLE, LayerTable

MIB = 1 << 20


def store_path(name: str) -> str:
    return f"/nix/store/{'0' * 32}-{name}"


def info(name: str, size: int = MIB, needs: Sequence[str] = ()) -> PathInfo:
    return PathInfo(store_path(name), size, tuple(store_path(need) for need in needs))


def plan(infos: Sequence[PathInfo], budget: int, table: LayerTable = NO_TABLE) -> tuple[LayerPlan, ...]:
    return layering.plan(Closure((), tuple(infos)), budget, table)


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


def names(plans: Sequence[LayerPlan]) -> list[list[str]]:
    """What is in each layer, by name and version."""
    return [[path.rpartition("/")[2].partition("-")[2] for path in layer.paths] for layer in plans]


def test_what_fits_the_budget_is_one_layer_for_each_path_with_needs_first() -> None:
    paths = [info("git", needs=["zlib", "glibc"]), info("zlib", needs=["glibc"]), info("glibc"), info("acl")]

    assert names(plan(paths, 4)) == [["glibc"], ["zlib"], ["git"], ["acl"]]


def test_the_largest_closure_comes_first_and_so_it_does_among_what_it_needs() -> None:
    paths = [
        info("base", 10),
        info("small-lib", 1, ["base"]),
        info("large-lib", 20, ["base"]),
        info("clang", 100, ["small-lib", "large-lib"]),
        info("git", 50, ["extra-lib", "small-lib"]),
        info("extra-lib", 5),
    ]

    assert names(plan(paths, 9)) == [
        ["base"],
        ["large-lib"],
        ["small-lib"],
        ["clang"],
        ["extra-lib"],
        ["git"],
    ]


def test_what_two_need_counts_once_in_the_size_of_a_closure() -> None:
    paths = [
        info("shared", 10),
        info("left", 1, ["shared"]),
        info("right", 1, ["shared"]),
        info("diamond", 1, ["left", "right"]),  # 13, not 23
        info("leaf", 13),
        info("chain", 1, ["leaf"]),
    ]

    assert [name for (name,) in names(plan(paths, 9))[:2]] == ["leaf", "chain"]


def test_what_is_left_of_a_closure_counts_not_the_whole() -> None:
    paths = [
        info("base", 50),
        info("big", 50, ["base"]),  # 100
        info("covered", 30, ["base"]),  # 80, and 30 once base is there
        info("other", 40),
    ]

    assert names(plan(paths, 9)) == [["base"], ["big"], ["other"], ["covered"]]


def test_an_image_begins_with_the_chain_of_its_largest_part() -> None:
    clang = [info("glibc", 20), info("llvm", 100, ["glibc"]), info("clang", 50, ["llvm", "glibc"])]
    git = [info("perl", 30, ["glibc"]), info("git", 10, ["perl", "glibc"])]

    alone, together = plan(clang, 9), plan([*git, *clang], 9)

    assert together[: len(alone)] == alone


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
            93,
            "sha256:e091f4577c37453ce93bc78afe9a4bd5d256b62de48bf1a5c6a2c7068585b2bb",
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
        return [{layer_table.names_of(path)[-1] for path in layer.paths} for layer in plans]

    assert layers("7.88.1") == layers("8.0.1")


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
def test_a_closure_begins_with_that_of_its_largest_path(paths: list[PathInfo]) -> None:
    for item in paths:
        alone = plan(closure_of(item, paths), 40)
        assert alone[-1].paths == (item.path,)
    largest = [alone for item in paths if (alone := plan(closure_of(item, paths), 40))]
    assert not paths or any(plan(paths, 40)[: len(alone)] == alone for alone in largest)


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


def test_the_plan_does_not_depend_on_how_this_process_hashes() -> None:
    """Sets and dictionaries of texts are ordered otherwise in each process; tables and plans are not."""
    program = """
from proxy.core.model import Closure, PathInfo, canonical_json, digest_of
from proxy.image import layering
from proxy.upkeep import cohorts
names = [f"/nix/store/{n:032}-p{n}-1.{n}" for n in range(150)]
needs = [tuple({names[n // 2], names[n // 3]} - {names[n]}) for n in range(150)]
paths = tuple({PathInfo(names[n], 1 << n % 24, needs[n]) for n in range(150)})
images = [{names[n], names[n // 2], names[n // 4], names[n // 8], names[0]} for n in range(150)]
table = cohorts.table(images, {info.path: info.nar_size for info in paths}, "")
plans = [layering.plan(Closure((), paths), budget, table) for budget in (20, 200)]
print(table.digest, digest_of(canonical_json([[layer.paths for layer in plan] for plan in plans])))
"""
    printed = {
        subprocess.run(
            (sys.executable, "-c", program),
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(printed) == 1


def test_a_long_chain_of_references_is_no_recursion() -> None:
    chain = [info(f"n{n:05}", 10, [f"n{n - 1:05}"] if n else ()) for n in range(5000)]

    plans = plan(chain[::-1], 5000)

    assert [layer.paths[0] for layer in plans] == [item.path for item in chain]


# --- with a table -----------------------------------------------------------------------------------------


def test_a_group_is_a_layer_at_the_place_of_its_first_path() -> None:
    paths = [
        info("glibc-2.36", 20),
        info("zlib-1.2", 1, ["glibc-2.36"]),
        info("gcc-12.2-lib", 9),
        info("hello-1", 1),
    ]
    table = LayerTable({"glibc": 0, "gcc-lib": 0, "zlib": 1})

    assert names(plan(paths, 9, table)) == [["gcc-12.2-lib", "glibc-2.36"], ["zlib-1.2"], ["hello-1"]]


def test_above_the_budget_small_groups_are_gathered_whole() -> None:
    paths = [info("large-1", 100 * MIB), *(info(f"p{n}-1", n + 1) for n in range(20))]
    table = LayerTable({f"p{n}": n // 2 for n in range(20)})

    plans = plan(paths, 5, table)

    assert len(plans) <= 5
    for n in range(0, 20, 2):
        together = [layer for layer in plans if store_path(f"p{n}-1") in layer.paths]
        assert store_path(f"p{n + 1}-1") in together[0].paths


def tables() -> st.SearchStrategy[LayerTable]:
    """Of about half the names of `closures`."""
    names = st.integers(0, 40).map(lambda number: f"package{number}")
    return st.dictionaries(names, st.integers(0, 12), max_size=30).map(LayerTable)


@given(closures(), st.integers(1, 50), tables(), st.randoms(use_true_random=False))
def test_with_any_table_each_path_is_in_one_layer_whatever_the_order_of_the_input(
    paths: list[PathInfo], budget: int, table: LayerTable, random: Random
) -> None:
    plans = plan(paths, budget, table)

    assert len(plans) <= budget
    assert sorted(path for layer in plans for path in layer.paths) == sorted(item.path for item in paths)
    random.shuffle(paths)
    shuffled = LayerTable(dict(random.sample(sorted(table.groups.items()), len(table.groups))))
    assert plan(paths, budget, shuffled) == plans


@given(closures(), tables(), st.data())
def test_another_package_moves_the_layers_of_groups_that_it_has_something_of_and_no_other(
    paths: list[PathInfo], table: LayerTable, data: st.DataObject
) -> None:
    """While both images keep to the budget: a layer is a function of one group and the closure's part in it."""
    smaller = {
        item.path: item
        for root in data.draw(st.lists(st.sampled_from(paths), max_size=3) if paths else st.just([]))
        for item in closure_of(root, paths)
    }
    before, after = plan(list(smaller.values()), 50, table), plan(paths, 50, table)

    added = {item.path for item in paths} - smaller.keys()
    grown = {table.group(path) for path in added} - {None}
    for layer in set(before) - set(after):
        assert {table.group(path) for path in layer.paths} <= grown


@given(closures(), tables(), st.data())
def test_a_leaf_of_a_new_version_moves_its_own_group_alone(
    paths: list[PathInfo], table: LayerTable, data: st.DataObject
) -> None:
    needed = {reference for item in paths for reference in item.references}
    leaves = [item for item in paths if item.path not in needed]
    if not leaves:
        return
    old = data.draw(st.sampled_from(leaves))
    stem, _, version = old.path.rpartition("-")
    new = PathInfo(f"{stem}-{version}.1", data.draw(st.integers(0, 1 << 32)), old.references)

    before = plan(paths, 50, table)
    after = plan([new if item == old else item for item in paths], 50, table)

    (moved,) = [layer.paths for layer in before if old.path in layer.paths]
    (placed,) = [layer.paths for layer in after if new.path in layer.paths]
    assert set(placed) == {new.path if path == old.path else path for path in moved}
    assert {layer for layer in before if old.path not in layer.paths} == {
        layer for layer in after if new.path not in layer.paths
    }
