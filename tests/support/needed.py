"""Programs of Debian's that a test needs: it is left out where one is missing, and with CI set it fails there."""

import os
import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """The mark for tests that start this program."""
    return pytest.mark.skipif(
        is_left_out(found=shutil.which(program) is not None), reason=f"this host has no {program}"
    )


def is_left_out(*, found: bool) -> bool:
    """Whether a test goes without what it needs. CI installs all of that, so there the test says what is missing."""
    return not found and not os.environ.get("CI")
