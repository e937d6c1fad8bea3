"""Which tests are left out where a program is missing."""

import pytest

from tests.support.needed import is_left_out, needs


@pytest.mark.parametrize(
    ("ci", "found", "expected"),
    [("", False, True), ("", True, False), ("true", False, False), ("true", True, False)],
)
def test_ci_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch, ci: str, found: bool, expected: bool) -> None:
    monkeypatch.setenv("CI", ci)

    assert is_left_out(found=found) == expected


def test_a_program_that_nobody_has_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    mark = needs("no-such-program").mark

    assert mark.args == (True,)
    assert mark.kwargs == {"reason": "this host has no no-such-program"}
    assert needs("sh").mark.args == (False,)
