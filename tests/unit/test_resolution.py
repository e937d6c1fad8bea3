"""What Nix found for the names: packages in the order of the request, or one message about all that failed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import resolution
from proxy.errors import PackageUnknown
from proxy.model import Package


def found(typed: str, **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": "package",
        "typed": typed,
        "attribute": typed,
        "name": f"{typed}-1.0",
        "pname": typed,
        "drvPath": f"/nix/store/{typed}-1.0.drv",
        "outputs": [{"name": "out", "path": f"/nix/store/{typed}-1.0"}],
        "mainProgram": "",
        "description": "",
        "license": "",
    }
    return {**facts, **changes}


def missing(typed: str, *names: str, at: str = "") -> dict[str, Any]:
    part = typed.rpartition(".")[2]
    return {"kind": "missing", "typed": typed, "at": at, "part": part, "names": list(names)}


def ambiguous(typed: str, *names: str, at: str = "") -> dict[str, Any]:
    return {"kind": "ambiguous", "typed": typed, "at": at, "part": typed, "names": list(names)}


def test_a_package_has_all_that_nix_says() -> None:
    result = found(
        "openssl",
        outputs=[{"name": "bin", "path": "/nix/store/b"}, {"name": "man", "path": "/nix/store/m"}],
        mainProgram="openssl",
        description="A library",
        license="Apache-2.0",
    )

    assert resolution.read([result], "nixpkgs") == {
        "openssl": Package(
            attribute="openssl",
            name="openssl-1.0",
            drv_path="/nix/store/openssl-1.0.drv",
            outputs=(("bin", "/nix/store/b"), ("man", "/nix/store/m")),
            main_program="openssl",
            description="A library",
            license="Apache-2.0",
        )
    }


def test_packages_are_found_under_the_names_as_typed_in_their_order() -> None:
    results = [found("zlib"), found("bashinteractive", attribute="bashInteractive"), found("acl")]

    packages = resolution.read(results, "nixpkgs")

    assert list(packages) == ["zlib", "bashinteractive", "acl"]
    assert packages["bashinteractive"].attribute == "bashInteractive"


def test_nothing_asked_is_nothing_found() -> None:
    assert resolution.read([], "nixpkgs") == {}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        pytest.param(
            missing("gti", "tig", "git"), "no package gti, did you mean tig or git?", id="two close"
        ),
        pytest.param(missing("gti", "git"), "no package gti, did you mean git?", id="one close"),
        pytest.param(
            missing("numpi", "numpyA", "numpyB", "numpyC"),
            "no package numpi, did you mean numpyC, numpyB or numpyA?",
            id="three close",
        ),
        pytest.param(
            missing("numpi", "numpyA", "numpyB", "numpyC", "numpyD"),
            "no package numpi, did you mean numpyD, numpyC or numpyB?",
            id="four close",
        ),
        pytest.param(missing("gti", "firefox"), "no package gti", id="none close"),
        pytest.param(missing("gti"), "no package gti", id="none there"),
        pytest.param(missing("firefx", "FireFox"), "no package firefx, did you mean FireFox?", id="case"),
        pytest.param(
            missing("python3packages.nunpy", "numpy", at="python3Packages"),
            "no package python3packages.nunpy (python3Packages has no nunpy), "
            "did you mean python3Packages.numpy?",
            id="in a set",
        ),
        pytest.param(
            ambiguous("ab", "Ab", "aB"), "ab could be Ab and aB, which differ only in case", id="ambiguous"
        ),
        pytest.param(
            ambiguous("ab", "Ab", "aB", at="set"),
            "ab could be set.Ab and set.aB, which differ only in case",
            id="ambiguous in a set",
        ),
        pytest.param(
            {"kind": "no-package", "typed": "lib", "attribute": "lib", "type": "set"},
            "lib is no package but a set",
            id="no package",
        ),
    ],
)
def test_each_problem_is_told_with_what_to_type_instead(result: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageUnknown) as caught:
        resolution.read([result], "nixpkgs")

    assert str(caught.value) == f"{message} (package set nixpkgs)"


def test_every_failed_name_is_told_at_once() -> None:
    results = [missing("gti", "git"), found("htop"), ambiguous("ab", "Ab", "aB")]

    with pytest.raises(PackageUnknown) as caught:
        resolution.read(results, "demo")

    assert str(caught.value) == (
        "no package gti, did you mean git?; "
        "ab could be Ab and aB, which differ only in case (package set demo)"
    )


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=30))
def test_suggestions_are_few_and_of_the_set(part: str, names: list[str]) -> None:
    close = resolution.suggestions(part, names)

    assert len(close) <= 3
    assert len(set(close)) == len(close)
    assert set(close) <= set(names)


def test_the_closest_is_suggested_first() -> None:
    assert resolution.suggestions("GIT", ["gist", "git", "gitui"])[0] == "git"
