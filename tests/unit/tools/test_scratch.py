"""A scratch folder lives as long as its context, whatever ends it."""

import asyncio
import gc
from pathlib import Path

import pytest

from proxy.tools.scratch import scratch_folder


def content(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_folder_is_there_until_its_context_ends(tmp_path: Path) -> None:
    async with scratch_folder(tmp_path, "roots-") as folder:
        await asyncio.to_thread((folder / "file").touch)
        assert folder.parent == tmp_path
        assert folder.name.startswith("roots-")

    assert content(tmp_path) == []


async def test_a_folder_goes_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with scratch_folder(tmp_path):
            raise KeyError

    assert content(tmp_path) == []


@pytest.mark.parametrize("steps", range(5))
async def test_a_task_that_is_cancelled_leaves_nothing(tmp_path: Path, steps: int) -> None:
    """At any step of its way: pytest turns a folder that the garbage collector has to delete into an error."""

    async def work() -> None:
        async with scratch_folder(tmp_path):
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)  # those that create and delete
    gc.collect()

    assert content(tmp_path) == []
