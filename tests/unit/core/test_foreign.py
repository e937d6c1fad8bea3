"""What a stranger may write into JSON, and what we read of it."""

import pytest

from proxy.core import foreign
from proxy.core.foreign import DocumentInvalid, parse


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        '{"a": 1} 2',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100 + "1" + "}" * 100,
        '{"a": 1, "a": 2}',
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 5000,
        r'"\ud800"',
        r'{"\uDC00": 1}',
        '"\\"' * 100_000,
    ],
)
def test_what_is_no_document(text: str) -> None:
    with pytest.raises(DocumentInvalid):
        parse(text.encode())


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(DocumentInvalid, match="no JSON"):
        parse(b'"\xff"')


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ('{"a": [{"b": 1.5}]}', {"a": [{"b": 1.5}]}),
        ("[" * foreign.MOST_LEVELS + "]" * foreign.MOST_LEVELS, None),
        (r'["\ud83d\ude00", "\u001b"]', ["\U0001f600", "\x1b"]),
        (r'["[[[", "\\", "\"]"]', ["[[[", "\\", '"]']),
    ],
)
def test_what_is_one(text: str, value: object) -> None:
    assert parse(text.encode()) == value or value is None


@pytest.mark.parametrize("size", [-1, 1 << 63, 1.0, True, "1", None])
def test_what_is_no_size(size: object) -> None:
    with pytest.raises(DocumentInvalid, match="the size"):
        foreign.to_size(size, "the size")


@pytest.mark.parametrize("document", [b"[]", b'{"tags": {}}', b'{"tags": [1]}', b'"tags"'])
def test_what_is_no_list_of_names(document: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        foreign.to_names(document, "tags")


def test_null_is_an_empty_list_of_names() -> None:
    assert foreign.to_names(b'{"tags": null}', "tags") == foreign.to_names(b"{}", "tags") == []
