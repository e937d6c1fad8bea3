"""Lists of tags: which 404 says that there is no such repository, and what a page holds."""

import json

import pytest

from proxy.web.replies import tag_list


def said(*codes: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "x"} for code in codes]}).encode()


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        pytest.param(said("NAME_UNKNOWN"), True, id="it"),
        pytest.param(said("MANIFEST_UNKNOWN"), False, id="another"),
        pytest.param(said("NAME_UNKNOWN", "UNKNOWN"), False, id="it and another"),
        pytest.param(said(), False, id="none"),
        pytest.param(b"404 page not found\n", False, id="text"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"[]", False, id="a list"),
        pytest.param(b'{"errors": null}', False, id="null"),
        pytest.param(b'{"errors": [1]}', False, id="no objects"),
        pytest.param(b'{"errors": [{}]}', False, id="no code"),
        pytest.param(b"\xff", False, id="no text"),
    ],
)
def test_unknown_name(body: bytes, unknown: bool) -> None:
    assert tag_list._is_name_unknown(body) is unknown


def test_an_empty_list_is_written_as_the_stock_registry_does() -> None:
    assert tag_list._no_tags("a/b").body == b'{"name":"a/b","tags":[]}\n'


TAGS = ["b", "a", "10", "B", "9"]


@pytest.mark.parametrize(
    ("most", "last", "tags", "following"),
    [
        ("", "", ["10", "9", "B", "a", "b"], []),
        ("2", "", ["10", "9"], [("n", "2"), ("last", "9")]),
        ("2", "9", ["B", "a"], [("n", "2"), ("last", "a")]),
        ("2", "a", ["b"], []),
        ("5", "", ["10", "9", "B", "a", "b"], []),
        ("1", "aa", ["b"], []),
        ("", "zz", [], []),
        ("0", "", [], []),
        ("-1", "", ["10", "9", "B", "a", "b"], []),
        ("x", "b", [], []),
        ("\u0663", "a", ["b"], []),
        ("9" * 5000, "a", ["b"], []),
    ],
)
def test_a_page(most: str, last: str, tags: list[str], following: list[tuple[str, str]]) -> None:
    assert tag_list.page(TAGS, most, last) == (tags, following)


@pytest.mark.parametrize(
    ("body", "tags"),
    [
        (b'{"name":"a","tags":null}', []),
        (b'{"name":"a","tags":["x"]}', ["x"]),
        (b'{"name":"a","tags":[1]}', None),
        (b'{"name":"a","tags":{}}', None),
        (b'{"name":"a"}', None),
        (b'["tags"]', None),
        (b'{"name":"a","tags":["x"', None),
    ],
)
def test_a_registrys_list(body: bytes, tags: list[str] | None) -> None:
    document = tag_list._document(body)

    assert (document and document["tags"]) == tags
