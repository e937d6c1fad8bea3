"""What is remembered of evaluations."""

from proxy.nix.evaluate import PackageCache

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
