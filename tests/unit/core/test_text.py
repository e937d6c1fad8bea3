"""No control character reaches a terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import BuildFailed, RegistryRefused
from proxy.core.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("ring\x07", "ring\ufffd"),
        ("over\rwritten", "over\ufffdwritten"),
        ("back\x08", "back\ufffd"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("half \ud800", "half \ufffd"),
        ("\x1b", "\ufffd"),
        ("Grüße, 世界", "Grüße, 世界"),
    ],
)
def test_what_a_terminal_gets(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(max_codepoint=0x2100)))
def test_no_control_character_is_left(text: str) -> None:
    shown = printable(text)

    assert all(
        unicodedata.category(char) not in ("Cc", "Cs") for char in shown.replace("\n", "").replace("\t", "")
    )
    assert printable(shown) == shown


def test_messages_of_errors_have_none() -> None:
    assert str(BuildFailed("a \x1b[31mred\x1b[0m line\x07")) == "a red line\ufffd"
    assert "\x1b" not in str(RegistryRefused("GET", "/v2/", 400, "\x1b]0;x\x07"))
