"""What is remembered of evaluations."""

from proxy.nix.evaluate import Evaluations

HELLO = {"kind": "package", "typed": "hello", "drvPath": "/nix/store/a.drv"}
GONE = {"kind": "missing", "typed": "gone"}
REFUSED = {"kind": "refused", "typed": "unfree"}


def test_packages_are_known_and_optional_ones_that_are_not_there() -> None:
    evaluations = Evaluations()

    evaluations.keep(b"set", [HELLO], ["cacert"])

    assert evaluations.known(b"set", ["hello", "cacert", "git"]) == {"hello": HELLO, "cacert": None}


def test_what_is_no_package_is_not_remembered() -> None:
    evaluations = Evaluations()

    evaluations.keep(b"set", [GONE, REFUSED])

    assert evaluations.known(b"set", ["gone", "unfree"]) == {}


def test_another_set_or_policy_is_another_question() -> None:
    evaluations = Evaluations()

    evaluations.keep(b"set", [HELLO])

    assert evaluations.known(b"other", ["hello"]) == {}


def test_everything_is_forgotten_at_once() -> None:
    evaluations = Evaluations()
    evaluations.keep(b"set", [HELLO], ["cacert"])

    evaluations.forget()

    assert evaluations.known(b"set", ["hello", "cacert"]) == {}


def test_the_one_asked_for_least_lately_gives_way() -> None:
    evaluations = Evaluations(most=1)
    evaluations.keep(b"set", [HELLO])

    evaluations.keep(b"set", [HELLO | {"typed": "git"}])

    assert set(evaluations.known(b"set", ["hello", "git"])) == {"git"}
