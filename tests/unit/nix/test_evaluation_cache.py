"""What is remembered of evaluations."""

import pytest

from proxy.nix.evaluation_cache import ImageNames, Level, Levels, PackageCache

HELLO = {"kind": "package", "typed": "hello", "drvPath": "/nix/store/a.drv"}
GONE = {"kind": "missing", "typed": "gone"}
REFUSED = {"kind": "refused", "typed": "unfree"}


def test_packages_are_known_and_optional_ones_that_are_not_there() -> None:
    cache = PackageCache()

    cache.store(b"set", [HELLO], ["cacert"])

    assert cache.recall(b"set", ["hello", "cacert", "git"]) == {"hello": HELLO, "cacert": None}


def test_what_is_no_package_is_not_remembered() -> None:
    cache = PackageCache()

    cache.store(b"set", [GONE, REFUSED])

    assert cache.recall(b"set", ["gone", "unfree"]) == {}


def test_another_set_or_policy_is_another_question() -> None:
    cache = PackageCache()

    cache.store(b"set", [HELLO])

    assert cache.recall(b"other", ["hello"]) == {}


def test_everything_is_forgotten_at_once() -> None:
    cache = PackageCache()
    cache.store(b"set", [HELLO], ["cacert"])

    cache.clear()

    assert cache.recall(b"set", ["hello", "cacert"]) == {}


def test_the_one_asked_for_least_lately_gives_way() -> None:
    cache = PackageCache(most=1)
    cache.store(b"set", [HELLO])

    cache.store(b"set", [HELLO | {"typed": "git"}])

    assert set(cache.recall(b"set", ["hello", "git"])) == {"git"}


@pytest.fixture
def levels() -> Levels:
    levels = Levels()
    names = {"": ["git", "Twice", "twice", "sameName", "samenamE", "_7zz", "Deep"], "Deep.er": ["Inner"]}
    gone = {"kind": "missing", "typed": "deep.er.gone", "at": "Deep.er", "part": "gone", "depth": 2}
    levels.store(b"set", {at: Level.of(listed) for at, listed in names.items()}, [gone])
    return levels


@pytest.mark.parametrize(
    "typed", ["git", "GIT", "twice", "7zz", "samename", "deep.er.inner", "deep.other.inner", "git.src"]
)
def test_a_name_that_may_be_there_is_for_nix(levels: Levels, typed: str) -> None:
    assert levels.missing(b"set", typed) is None


@pytest.mark.parametrize(
    ("typed", "at", "part"),
    [("gitt", "", "gitt"), ("zz.git", "", "zz"), ("deep.er.other", "Deep.er", "other")],
)
def test_a_name_that_no_level_has_is_missing(levels: Levels, typed: str, at: str, part: str) -> None:
    assert levels.missing(b"set", typed) == {"kind": "missing", "typed": typed, "at": at, "part": part}
    assert levels.missing(b"another set", typed) is None


def test_levels_have_a_bound() -> None:
    levels = Levels(most_names=10_000)
    many = [f"name{number}" for number in range(10_001)]
    levels.store(b"set", {"too many": Level.of(many), "a": Level.of(["x"])})
    levels.store(b"set", {at: Level.of(["x"]) for at in "bcdefg"})

    assert set(levels.listed(b"set")) == {"e", "f", "g"}


def test_missing_images_are_known_for_a_short_time() -> None:
    now = 0.0
    images = ImageNames(lambda: now)
    assert images.missing(b"file", "nosuch") is None

    images.store(b"file", ["Greeter", "_7zz"])

    assert images.missing(b"file", "nosuch") == {
        "kind": "missing",
        "part": "nosuch",
        "names": ["Greeter", "_7zz"],
    }
    for there in ("greeter", "Greeter", "7zz"):
        assert images.missing(b"file", there) is None, "only Nix can say"
    assert images.missing(b"another", "nosuch") is None
    for number in range(1000):
        images.store(b"%d" % number, [])
    assert images.missing(b"file", "nosuch") is None, "there are so many lists and no more"
    images.store(b"file", [])
    now = 31.0
    assert images.missing(b"file", "nosuch") is None
