"""Tables: the names of a store path, from narrow to wide, and what is refused as a table."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import digest_of
from proxy.image import layer_table
from proxy.image.layer_table import NO_TABLE, LayerTable


def path(name: str) -> str:
    return f"/nix/store/{'0' * 32}-{name}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("git-2.39.5", ["git-2.39.5", "git-2.39", "git-2", "git"], id="a version"),
        pytest.param(
            "git-2.39.5-doc", ["git-2.39.5-doc", "git-2.39-doc", "git-2-doc", "git-doc"], id="an output"
        ),
        pytest.param("source", ["source"], id="no version"),
        pytest.param("7zip-22", ["7zip-22", "7zip"], id="a digit in front"),
        pytest.param("gcc-wrapper", ["gcc-wrapper"], id="a dash before a letter"),
        pytest.param("x-p15", ["x-p15"], id="a word that is neither name nor version"),
    ],
)
def test_names_go_from_the_narrowest_to_the_widest(name: str, expected: list[str]) -> None:
    assert list(layer_table.names_of(path(name))) == expected


@pytest.mark.parametrize(
    ("name", "widest"),
    [
        pytest.param("bash-interactive-5.2-p15", "bash-interactive", id="a patch level"),
        pytest.param(
            "openjdk-17-jre-headless-17.0.21.1+2-1-deb12u1",
            "openjdk-17-jre-headless",
            id="a number in the name",
        ),
        pytest.param(
            "imagemagick-6-common-6.9.11.60+dfsg-1.6", "imagemagick-6-common", id="and a word after it"
        ),
        pytest.param("clang-14-14.0.6-12", "clang", id="a number that might be version or name"),
        pytest.param("foo-unstable-2024-01-01", "foo-unstable", id="no release yet"),
        pytest.param("foo-1.2-unstable-2024-01-01", "foo", id="after a release"),
        pytest.param("python3.11-numpy-1.24", "python3-numpy", id="the version of an interpreter"),
        pytest.param("perl5.38.2-JSON-4.10", "perl5-JSON", id="and one of three parts"),
        pytest.param("glibc-2.36-9+deb12u14", "glibc", id="a revision of Debian's"),
        pytest.param("openssl-3.0.13-bin", "openssl-bin", id="an output"),
    ],
)
def test_the_widest_name_is_what_outlives_a_new_version(name: str, widest: str) -> None:
    assert layer_table.names_of(path(name))[-1] == widest


@given(st.text("abz019.-+_", min_size=1, max_size=30))
def test_every_path_has_names_that_differ_and_the_whole_one_first(name: str) -> None:
    found = layer_table.names_of(path(name))

    assert found[0] == name
    assert len(set(found)) == len(found)
    assert all(found)


def test_the_narrowest_name_counts() -> None:
    table = LayerTable({"llvm": 0, "llvm-14": 1, "llvm-lib": 2})

    assert table.group(path("llvm-17.0.6")) == 0
    assert table.group(path("llvm-14.0.6")) == 1
    assert table.group(path("llvm-14.0.6-lib")) == 2
    assert table.group(path("clang-14.0.6")) is None


def test_a_table_survives_its_json() -> None:
    table = LayerTable({"glibc": 0, "git": 2}, "two packages")

    assert layer_table.read(layer_table.write(table)) == table
    assert table.digest == digest_of(layer_table.write(table))


def test_the_digest_does_not_depend_on_the_order_of_names_and_no_table_has_none() -> None:
    assert (
        LayerTable({"a": 0, "b": 1}).digest
        == LayerTable({"b": 1, "a": 0}).digest
        != LayerTable({"a": 0, "b": 0}).digest
    )
    assert NO_TABLE.digest == ""


GOOD = {"format": 1, "groups": {"a": 0, "b": 1}, "source": ""}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[]", id="a list"),
        pytest.param(json.dumps({**GOOD, "format": 2}), id="another format"),
        pytest.param(json.dumps({**GOOD, "groups": None}), id="no groups"),
        pytest.param(json.dumps({**GOOD, "groups": {"a": "0"}}), id="a group that is a text"),
        pytest.param(json.dumps({**GOOD, "groups": {"a": True}}), id="a group that is no number"),
        pytest.param(json.dumps({**GOOD, "source": 1}), id="a source that is no text"),
    ],
)
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        layer_table.read(text.encode())


def test_what_the_cases_above_differ_from_is_a_table() -> None:
    assert layer_table.read(json.dumps(GOOD).encode()).group(path("b-1")) == 1
