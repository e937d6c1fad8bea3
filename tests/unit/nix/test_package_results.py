"""What Nix found for the names: packages in the order of the request, or one message about all that failed."""

from pathlib import Path
from typing import Any

import pytest

from proxy import settings
from proxy.core.errors import PackageRefused, PackageUnknown, PackageUnusable
from proxy.core.model import Package
from proxy.nix import package_results
from proxy.tools.name_index import NameIndex

STORE = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz"


def found(typed: str, **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": "package",
        "typed": typed,
        "attribute": typed,
        "name": f"{typed}-1.0",
        "pname": typed,
        "drvPath": f"{STORE}-{typed}-1.0.drv",
        "outputs": [{"name": "out", "path": f"{STORE}-{typed}-1.0"}],
        "mainProgram": "",
        "description": "",
        "license": "",
        "version": "",
        "licenses": [],
        "homepage": "",
        "vulnerabilities": [],
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
        outputs=[{"name": "bin", "path": f"{STORE}-b"}, {"name": "man", "path": f"{STORE}-m"}],
        mainProgram="openssl",
        description="A library",
        license="Apache-2.0",
    )

    assert package_results.read_packages([result], "nixpkgs") == {
        "openssl": Package(
            attribute="openssl",
            name="openssl-1.0",
            drv_path=f"{STORE}-openssl-1.0.drv",
            outputs=(("bin", f"{STORE}-b"), ("man", f"{STORE}-m")),
            main_program="openssl",
            description="A library",
            license="Apache-2.0",
        )
    }


def test_packages_are_found_under_the_names_as_typed_in_their_order() -> None:
    results = [found("zlib"), found("bashinteractive", attribute="bashInteractive"), found("acl")]

    packages = package_results.read_packages(results, "nixpkgs")

    assert list(packages) == ["zlib", "bashinteractive", "acl"]
    assert packages["bashinteractive"].attribute == "bashInteractive"


def test_nothing_asked_is_nothing_found() -> None:
    assert package_results.read_packages([], "nixpkgs") == {}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        pytest.param(
            missing("gti", "git", "gtk"), "no package gti, did you mean git or gtk?", id="two close"
        ),
        pytest.param(missing("gti", "git"), "no package gti, did you mean git?", id="one close"),
        pytest.param(
            missing("numpi", "numpyA", "numpyB", "numpyC"),
            "no package numpi, did you mean numpyA, numpyB or numpyC?",
            id="three close",
        ),
        pytest.param(
            missing("numpi", "numpyA", "numpyB", "numpyC", "numpyD"),
            "no package numpi, did you mean numpyA, numpyB or numpyC?",
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
        package_results.read_packages([result], "nixpkgs")

    assert str(caught.value) == f"{message} (package set nixpkgs)"


def test_an_unknown_package_says_how_many_there_are() -> None:
    with pytest.raises(PackageUnknown, match=r"\(package set demo of 3 packages\)"):
        package_results.read_packages([missing("gti", "git")], "demo", NameIndex(["git", "hello", "a.b"]))


def test_a_name_like_no_other_is_looked_for_in_the_demo_set_alone() -> None:
    with pytest.raises(
        PackageUnknown, match=r"^no package htop \(package set demo of 1 packages, and not nixpkgs\)$"
    ):
        package_results.read_packages([missing("htop")], "demo", NameIndex(["git"]))


def test_every_failed_name_is_told_at_once() -> None:
    results = [missing("gti", "git"), found("htop"), ambiguous("ab", "Ab", "aB")]

    with pytest.raises(PackageUnknown) as caught:
        package_results.read_packages(results, "demo")

    assert str(caught.value) == (
        "no package gti, did you mean git?; "
        "ab could be Ab and aB, which differ only in case (package set demo)"
    )


REFUSED = {"kind": "refused", "typed": "x", "attribute": "x", "name": "x-1"}


@pytest.mark.parametrize(
    ("reason", "what", "message"),
    [
        (
            "unfree",
            ["A", "B"],
            "x-1 has the unfree licence A, B; policy.allow_unfree would allow it, as in the line: "
            'policy: {allow_unfree: ["A", "B"]}',
        ),
        (
            "insecure",
            ["CVE-1"],
            "x-1 is insecure: CVE-1; policy.allow_insecure would allow it, as in the line: "
            'policy: {allow_insecure: ["x-1"]}',
        ),
        (
            "broken",
            ["x"],
            "x-1 is marked as broken; policy.allow_broken would allow it, as in the line: "
            'policy: {allow_broken: ["x"]}',
        ),
        ("unsupported", ["riscv64-linux"], "x-1 is not made for this system, but for riscv64-linux"),
        ("denied-license", ["GPL"], "x-1 has the licence GPL, which policy.deny_licenses of this host names"),
        ("not-listed", [], "x-1 is not among policy.only_packages of this host"),
        (
            "not-listed-license",
            ["MIT"],
            "x-1 has the licence MIT, and policy.only_licenses of this host does not name it",
        ),
        (
            "not-listed-license",
            [],
            "x-1 has the licence none, and policy.only_licenses of this host does not name it",
        ),
        ("denied", ["x"], "x-1 is named by policy.deny_packages of this host"),
    ],
)
def test_a_refusal_says_why_and_what_would_allow_it(reason: str, what: list[str], message: str) -> None:
    with pytest.raises(PackageRefused) as caught:
        package_results.read_packages([{**REFUSED, "reason": reason, "what": what}], "demo")

    assert str(caught.value) == f"{message} (package set demo)"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(
            "Package ‘a-1’ in ‘/set/a.nix:2’ has an unfree license (‘x’), refusing to evaluate.\nmore",
            "Package ‘a-1’ has an unfree license (‘x’), refusing to evaluate; "
            "policy.allow_unfree in the settings of this host would allow it",
            id="unfree",
        ),
        pytest.param(
            "Package 'a-1' in /set/a.nix:2 is marked as insecure, refusing to evaluate.",
            "Package 'a-1' is marked as insecure, refusing to evaluate; "
            "policy.allow_insecure in the settings of this host would allow it",
            id="insecure",
        ),
        pytest.param(
            "Package a is not available on the requested hostPlatform",
            "Package a is not available on the requested hostPlatform",
            id="another system",
        ),
        pytest.param("attribute 'x' missing", None, id="something else"),
    ],
)
def test_what_a_set_refuses_itself_is_told_in_our_words(error: str, message: str | None) -> None:
    assert package_results.own_refusal(error) == message


def test_the_package_of_a_program_is_suggested() -> None:
    missing = {"kind": "missing", "typed": "rg", "at": "", "part": "rg", "names": ["ripgrep"]}
    index = NameIndex(["ripgrep"], ["14.1\tMIT\trg\tA fast grep"])

    with pytest.raises(PackageUnknown) as caught:
        package_results.read_packages([missing], "demo", index)

    assert "no package rg, did you mean ripgrep?" in str(caught.value)


def test_a_name_that_is_elsewhere_in_the_set_is_suggested_first() -> None:
    missing = {"kind": "missing", "typed": "numpy", "at": "", "part": "numpy", "names": ["numpyz"]}
    index = NameIndex(["git", "python3Packages.numpy", "x.numpyx"])

    with pytest.raises(PackageUnknown) as caught:
        package_results.read_packages([missing], "demo", index)

    assert "did you mean python3Packages.numpy or numpyz?" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"drvPath": ""},
        {"drvPath": "--option"},
        {"drvPath": f"{STORE}-hello"},
        {"outputs": [{"name": "out", "path": "/etc/passwd"}]},
        {"outputs": [{"name": "out", "path": f"{STORE}-hello/../../../etc"}]},
        {"outputs": [{"name": "out,doc", "path": f"{STORE}-hello"}]},
        {"name": "hello\x1b[2J"},
    ],
)
def test_what_nix_would_not_make_is_no_package(changes: dict[str, Any]) -> None:
    with pytest.raises(
        PackageUnusable, match=r"hello has '.*' where a derivation has a store path"
    ) as raised:
        package_results.read_packages([found("hello", **changes)], "nixpkgs")

    assert str(raised.value).isprintable()


def test_the_first_few_missing_names_get_suggestions() -> None:
    results = [missing(f"gitt{number}", "git") for number in range(5)]

    with pytest.raises(PackageUnknown) as raised:
        package_results.read_packages(results, "nixpkgs")

    assert str(raised.value).count("did you mean git?") == 3
    assert str(raised.value).count("no package gitt") == 5


@pytest.mark.parametrize("reason", ["unfree", "insecure", "broken"])
def test_the_line_of_a_refusal_is_the_one_setting_that_allows_it(reason: str, tmp_path: Path) -> None:
    """Whatever characters the package set chose."""
    name = "x: [1] # 'a' \"b\" {c}"
    with pytest.raises(PackageRefused) as caught:
        package_results.read_packages([{**REFUSED, "name": name, "reason": reason, "what": [name]}], "demo")

    line = str(caught.value).partition("as in the line: ")[2].removesuffix(" (package set demo)")
    file = tmp_path / "nixfront.yml"
    file.write_text(line, encoding="utf-8")
    chosen = settings.load(file, {}).policy
    assert getattr(chosen, f"allow_{reason}") == (name,)
