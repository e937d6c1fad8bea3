"""A marker that takes something away from a test says why, or nothing runs."""

import pytest

from tests.support.markers import reason


def test_a_marker_has_its_reason() -> None:
    assert reason(pytest.mark.without_documents("it counts tags").mark) == "it counts tags"


@pytest.mark.parametrize(
    "marker",
    [
        pytest.param(pytest.mark.without_documents, id="bare"),
        pytest.param(pytest.mark.without_documents(), id="empty"),
        pytest.param(pytest.mark.without_documents(" "), id="a blank"),
        pytest.param(pytest.mark.without_documents(True), id="no text"),
        pytest.param(pytest.mark.without_documents(reason="it counts tags"), id="by another way"),
    ],
)
def test_a_marker_without_a_reason_ends_the_run(marker: pytest.MarkDecorator) -> None:
    with pytest.raises(pytest.UsageError, match="the marker without_documents needs a reason"):
        reason(marker.mark)
