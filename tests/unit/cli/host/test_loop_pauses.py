"""Short pauses of an event loop: how long threads keep the interpreter's lock, and what garbage collections look at."""

import gc
import sys
from collections.abc import Iterator

import pytest

from proxy.cli.host import loop_pauses


@pytest.fixture
def process() -> Iterator[None]:
    """The state of the interpreter, restored afterwards."""
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)
    gc.unfreeze()


@pytest.mark.usefixtures("process")
def test_what_is_there_is_in_no_collection_and_threads_give_the_lock_away_soon() -> None:
    before: list[object] = [[]]

    loop_pauses.shorten()
    after: list[object] = [[]]

    looked_at = {id(each) for each in gc.get_objects()}
    assert id(before) not in looked_at
    assert id(after) in looked_at
    assert sys.getswitchinterval() == pytest.approx(0.001)
