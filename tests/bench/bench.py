"""What every measurement gets: how much to measure, a place to work, and the package set."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import big_set
from tests.bench.big_set import BigSet
from tests.support.servers import Server, nixfront, stock_registry


@dataclass(slots=True)
class Bench:
    """One run. `at` is the folder that keeps the package set; `quick` asks for fewer and smaller measurements."""

    at: Path
    quick: bool
    _set: BigSet | None = field(default=None, init=False)

    @property
    def rounds(self) -> int:
        """How often a thing is measured."""
        return 3 if self.quick else 5

    async def opened(self) -> BigSet:
        """The big package set, whatever of it is realised."""
        if self._set is None:
            self._set = await big_set.big_set(self.at)
        return self._set

    async def set(self, *images: str) -> BigSet:
        """The big package set, with the packages of these images realised; without any image, with all packages."""
        chosen = await self.opened()
        await chosen.realise([name for image in images for name in image.split("/")])
        return chosen

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """An empty folder, on the disk of the package set, that is gone afterwards."""
        await asyncio.to_thread(self.at.mkdir, parents=True, exist_ok=True)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="scratch-", dir=self.at.absolute()))
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)

    @asynccontextmanager
    async def registry(self, folder: Path) -> AsyncIterator[Server]:
        """A stock registry that keeps its blobs in `folder` and writes no line for each request."""
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        async with stock_registry(folder, quiet=True) as server:
            yield server

    @asynccontextmanager
    async def front(
        self,
        folder: Path,
        registry: Server,
        **sections: dict[str, object],
    ) -> AsyncIterator[Server]:
        """nixfront as installed, before this registry, on the package set; `sections` are further settings."""
        chosen = await self.opened()
        data = folder / "data"
        if not (data / "sets").exists():
            await asyncio.to_thread(chosen.adopt, data)
        settings: dict[str, object] = {"registry": {"url": registry.url}, **chosen.settings}
        for name, values in sections.items():
            present = settings.get(name, {})
            settings[name] = {**(present if isinstance(present, dict) else {}), **values}
        async with nixfront(folder, settings=settings) as server:
            yield server


def most_memory(pid: int) -> int:
    """The most bytes that a process ever had in memory."""
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024
