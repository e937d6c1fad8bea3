"""Who needs what -> groups: whole where they can be, merged where it costs little, and the same whatever the order."""

from collections.abc import Mapping, Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from proxy.image.layer_table import LayerTable
from proxy.upkeep import cohorts

KIB = 1 << 10
MIB = 1 << 20


def store_path(name: str, digit: str = "0") -> str:
    return f"/nix/store/{digit * 32}-{name}"


def table(images: Mapping[str, str], **sizes: int) -> LayerTable:
    """`images`: the names in each, separated by spaces; `sizes`: of those that are not 1 MiB."""
    needed = [[store_path(f"{name}-1.0") for name in names.split()] for names in images.values()]
    known = {
        path: sizes.get(path.rpartition("/")[2].split("-")[1], MIB) for paths in needed for path in paths
    }
    return cohorts.table(needed, known, "")


def groups(made: LayerTable) -> set[frozenset[str]]:
    """Which names are together."""
    numbers = set(made.groups.values())
    return {frozenset(name for name in made.groups if made.groups[name] == number) for number in numbers}


def test_what_the_same_packages_need_is_together() -> None:
    made = table(
        {"git": "git perl libc", "curl": "curl ssl libc", "wget": "wget ssl libc", "vim": "vim gpm libc"}
    )

    assert groups(made) == {
        frozenset(names.split()) for names in ("libc", "git perl", "ssl", "curl", "wget", "vim gpm")
    }


def test_a_large_path_is_alone_whatever_its_cohort() -> None:
    made = table({"ffmpeg": "ffmpeg mesa x265 libc", "hello": "hello libc"}, mesa=335 * MIB)

    assert groups(made) == {frozenset(names.split()) for names in ("mesa", "ffmpeg x265", "libc", "hello")}


#: Ten packages need libc, nine of them zlib too.
TEN = {name: f"{name} libc{' zlib' if name != 'j' else ''}" for name in "abcdefghij"}
NINE = {name: needs for name, needs in TEN.items() if name != "i"}


def test_a_small_group_joins_what_it_is_nearly_always_together_with() -> None:
    assert frozenset(("libc", "zlib")) in groups(table(TEN, zlib=100 * KIB, libc=20 * KIB))
    assert frozenset(("libc", "zlib")) not in groups(table(NINE, zlib=100 * KIB, libc=20 * KIB))


def test_a_group_that_is_not_small_joins_nothing() -> None:
    assert frozenset(("libc", "zlib")) not in groups(table(TEN, zlib=300 * KIB, libc=300 * KIB))


def test_groups_that_are_not_nested_stay_apart() -> None:
    """They would come in three kinds."""
    images = {name: f"{name} ssl gnu" for name in "bcdefghijklmnopqrst"} | {"a": "a ssl", "z": "z gnu"}

    assert {frozenset(("ssl",)), frozenset(("gnu",))} <= groups(table(images, ssl=KIB, gnu=KIB))


def test_mergers_end_when_their_share_of_all_bytes_is_spent() -> None:
    small = dict.fromkeys("abcdefghij", 10 * KIB)

    assert frozenset(("libc", "zlib")) not in groups(table(TEN, zlib=100 * KIB, libc=7 * MIB, **small))


def test_two_versions_of_a_name_are_told_apart_by_as_much_of_it_as_is_needed() -> None:
    images = [
        [store_path("llvm-17.0.6"), store_path("clang-17.0.6")],
        [store_path("llvm-17.0.6"), store_path("rustc-1.7")],
        [store_path("llvm-14.0.6"), store_path("ghc-9.4")],
    ]
    made = cohorts.table(images, {path: MIB for image in images for path in image}, "")

    assert made.groups.keys() == {"llvm", "llvm-14", "clang", "rustc", "ghc"}
    assert made.group(store_path("llvm-14.0.7")) == made.group(store_path("ghc-9.5"))
    assert (
        made.group(store_path("llvm-17.0.7")) == made.group(store_path("llvm-18.1.0")) == made.groups["llvm"]
    )


def test_one_name_that_stands_for_two_things_is_one_group() -> None:
    images = [[store_path("hook", "0"), store_path("a-1")], [store_path("hook", "1"), store_path("b-1")]]
    made = cohorts.table(images, {path: MIB for image in images for path in image}, "")

    assert made.groups.keys() == {"hook", "a", "b"}


def test_no_image_is_a_table_that_says_nothing() -> None:
    assert cohorts.table([], {}, "nothing") == LayerTable({}, "nothing")


# --- properties -------------------------------------------------------------------------------------------


@st.composite
def sets(draw: st.DrawFn) -> tuple[list[list[str]], dict[str, int]]:
    """The images of some packages over up to 24 paths, and sizes."""
    names = [f"p{number}-1.0" for number in range(24)]
    paths = [store_path(name) for name in names]
    images = draw(st.lists(st.lists(st.sampled_from(paths), min_size=1, unique=True), max_size=8))
    size = st.one_of(st.integers(0, 300 * KIB), st.integers(0, 20 * MIB))
    return images, {path: draw(size) for path in paths}


@given(sets(), st.data())
def test_whatever_is_asked_for_mergers_cost_no_more_than_their_share(
    facts: tuple[list[list[str]], dict[str, int]], data: st.DataObject
) -> None:
    """The images of any packages together: the layers that a registry then has, against the paths alone."""
    packages, sizes = facts
    made = cohorts.table(packages, sizes, "")
    asked = data.draw(st.lists(st.lists(st.sampled_from(packages), min_size=1)) if packages else st.just([]))
    layers: set[frozenset[str]] = set()
    held: set[str] = set()
    for request in asked:
        image = {path for package in request for path in package}
        held |= image
        layers |= {
            frozenset(path for path in image if made.group(path) == number) for number in made.groups.values()
        }

    stored = sum(sizes[path] for layer in layers for path in layer)
    everything = sum(sizes[path] for path in {path for package in packages for path in package})
    assert stored <= sum(sizes[path] for path in held) + 0.01 * everything


@given(sets(), st.randoms(use_true_random=False))
def test_the_order_of_facts_does_not_count(
    facts: tuple[list[list[str]], dict[str, int]], random: Random
) -> None:
    packages, sizes = facts
    shuffled = [random.sample(package, len(package)) for package in packages]
    random.shuffle(shuffled)

    assert cohorts.table(shuffled, dict(reversed(sizes.items())), "") == cohorts.table(packages, sizes, "")


@given(sets())
def test_every_path_has_a_group_and_every_group_has_a_path(
    facts: tuple[list[list[str]], dict[str, int]],
) -> None:
    packages, sizes = facts
    made = cohorts.table(packages, sizes, "")
    found = [made.group(path) for path in _paths(packages)]

    assert None not in found
    assert set(found) == set(made.groups.values()) == set(range(len(set(found))))


def _paths(packages: Sequence[Sequence[str]]) -> set[str]:
    return {path for package in packages for path in package}
