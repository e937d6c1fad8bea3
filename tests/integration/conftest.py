"""Real Nix on a store of the test's own, a real stock registry, the application in this process."""

import functools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.front import Front, front
from tests.support.servers import Server, stock_registry


@pytest.fixture(autouse=True)
def nix_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Nix that needs no network and lets builders see the host's shell; the file has a line for each start of it."""
    monkeypatch.setenv(
        "NIX_CONFIG", "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    count = tmp_path / "nix-starts"
    for name in ("nix", "nix-build", "nix-instantiate", "nix-store"):
        folders = os.environ["PATH"].split(":")
        real = next(Path(folder, name) for folder in folders if Path(folder, name).exists())
        wrapper = programs / name
        wrapper.write_text(f'#!/bin/sh\necho "{name} $1" >> {count}\nexec {real} "$@"\n', encoding="ascii")
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return count


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Server]:
    """A stock registry with nothing in it."""
    folder = tmp_path / "registry"
    folder.mkdir()
    async with stock_registry(folder) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, nix_count: Path) -> Callable[..., AbstractAsyncContextManager[Front]]:
    """`async with start(registry.url, layers={"most": 10}) as front` runs nixfront on the test package set."""
    return functools.partial(front, tmp_path, nix_count)
