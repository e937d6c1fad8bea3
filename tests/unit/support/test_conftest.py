"""The guard of tests/conftest.py bites: code of ours that blocks the event loop fails its test."""

from pathlib import Path

import pytest
from blockbuster import BlockingError

from proxy.image.store_tree import store_entries


async def test_blocking_call_on_the_event_loop_fails(tmp_path: Path) -> None:
    with pytest.raises(BlockingError):
        list(store_entries([str(tmp_path)]))


def test_same_call_off_the_event_loop_is_fine(tmp_path: Path) -> None:
    assert [entry.kind for entry in store_entries([str(tmp_path)])] == ["directory"] * 3
