"""Ids of requests."""

import pytest

from proxy.core import request


@pytest.mark.parametrize(
    "given", ["a1b2c3d4", "0af7651916cd43dd8448eb211c80319c", "req_2026-01-31_0001", "A" * 64]
)
def test_an_id_that_came_along_stays(given: str) -> None:
    assert request.choose(given) == given


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("short", id="too short to be one of a kind"),
        pytest.param("A" * 65, id="too long"),
        pytest.param("../../etc/passwd", id="a path"),
        pytest.param("<script>alert(1)</script>", id="markup"),
        pytest.param("a1b2c3d4\n", id="a line's end"),
        pytest.param("-rf-a1b2c3d4", id="an option"),
    ],
)
def test_anything_else_gets_a_new_one(given: str | None) -> None:
    one, other = request.choose(given), request.choose(given)

    assert one != other
    assert request.choose(one) == one, "ours is of the form that we take"
