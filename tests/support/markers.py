"""The markers of tests that say something of the test alone."""

import pytest

_WITHOUT_DOCUMENTS = "without_documents"


def without_documents(test: pytest.Item) -> str:
    """Why nixfront attaches no documents to the images of this test; nothing if it does. Raises `pytest.UsageError`."""
    reasons = [reason(marker) for marker in test.iter_markers(_WITHOUT_DOCUMENTS)]
    return next(iter(reasons), "")


def reason(marker: pytest.Mark) -> str:
    """The text of a marker that must have one, and nothing else. Raises `pytest.UsageError`."""
    match marker.args:
        case (str() as text,) if text.strip() and not marker.kwargs:
            return text
    raise pytest.UsageError(
        f'the marker {marker.name} needs a reason: @pytest.mark.{marker.name}("it counts tags")'
    )
