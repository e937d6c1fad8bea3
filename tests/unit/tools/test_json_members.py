"""A large JSON object, member by member, however its text is cut into pieces."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tools.json_members import MembersInvalid, members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


@given(
    st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.integers(1, 30), st.sampled_from([None, 2])
)
def test_the_members_are_those_of_the_object(value: dict[str, Any], size: int, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)

    assert dict(members(pieces(text, size))) == value


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.integers(1, 30))
def test_the_members_inside_are_those_of_one_member(value: dict[str, Any], size: int) -> None:
    text = json.dumps({"version": 2, "packages": value, "last": [1]})

    assert dict(members(pieces(text, size), "packages")) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '"a"',
        '{"a": 1',
        '{"a": 1,',
        '{"a" 1}',
        '{"a": 1 "b": 2}',
        '{"a": nothing}',
        "{1: 2}",
        '{"a": 1,}',
        pytest.param('{"a": ' + "[" * 99_999, id="deep"),
        pytest.param('{"a": "' + "x" * (5 << 20) + '"}', id="long"),
    ],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(MembersInvalid):
        list(members(pieces(text, 1 << 18)))


def test_what_is_no_object_inside_is_refused() -> None:
    with pytest.raises(MembersInvalid):
        list(members(iter(['{"packages": [1]}']), "packages"))
