"""The power fails: the data folder is as the disk had it, and what was not flushed is empty, cut, full of zeros, or gone.

The folder is copied while nixfront builds and people push. A file of the copy keeps the bytes that somebody had flushed; the
rest is damaged at random. SQLite's own calls are not seen here, but a write that lasts has flushed the log of the database.
"""

import asyncio
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.core.model import DOCKER_MANIFEST, digest_of
from proxy.state import TagRecord, sqlite
from proxy.state.sqlite import SqliteState
from tests.integration.test_package_sets import files_over_http
from tests.support import handmade
from tests.support.front import PACKAGES, Front, front
from tests.support.servers import Server
from tests.support.stored import digest_of_tag

Start = Callable[..., AbstractAsyncContextManager[Front]]
_SEED = 20261129
#: Every moving tag is looked at with each pull, and each pull reaches the registry.
EAGER: dict[str, Any] = {"builds": {"failure_seconds": 0}, "answers": {"seconds": 0}}
NAMES = ("hello", "alpha", "shell/hello", "nix/beta")
#: What people push: one tag that nixfront would build too, and one of their own.
PUSHED = (("beta", "latest"), ("person/tool", "v1"))
OLD, NEW = "1" * 40, "2" * 40


@dataclass
class Disk:
    """What is safe on the disk: for each file (by its inode) how many of its first bytes."""

    flushed: dict[int, int] = field(default_factory=dict)

    def note_log(self, log: Path) -> None:
        """The database has flushed its log."""
        if log.exists():
            self.flushed[log.stat().st_ino] = log.stat().st_size

    def watch(self, monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
        """From now on take note of each flush."""
        flush, write = os.fsync, SqliteState._write

        def fsync(descriptor: int) -> None:
            flush(descriptor)
            stat = os.fstat(descriptor)
            self.flushed[stat.st_ino] = stat.st_size

        async def lasting(state: SqliteState, statement: str, *rows: Any, lasts: bool = False) -> None:
            await write(state, statement, *rows, lasts=lasts)
            if lasts:
                await asyncio.to_thread(self.note_log, data / "state.sqlite-wal")

        monkeypatch.setattr("proxy.tools.files.os.fsync", fsync)
        monkeypatch.setattr(SqliteState, "_write", lasting)

    def fail(self, data: Path, copy: Path, chosen: random.Random) -> None:
        """Copy the data folder as the disk has it now."""
        for folder, _, names in os.walk(data):
            place = copy / Path(folder).relative_to(data)
            place.mkdir(parents=True, exist_ok=True)
            for name in names:
                source = Path(folder, name)
                if source.is_symlink():
                    (place / name).symlink_to(source.readlink())
                    continue
                if name.endswith("-shm"):  # memory, not a file
                    continue
                try:
                    safe = self.flushed.get(source.stat().st_ino, 0)
                    if name == "state.sqlite":
                        safe = source.stat().st_size  # a checkpoint flushes it
                    content = damaged(source.read_bytes(), safe, chosen)
                except FileNotFoundError:  # it has just got its place, or is gone
                    continue
                if content is not None:
                    (place / name).write_bytes(content)


def damaged(data: bytes, safe: int, chosen: random.Random) -> bytes | None:
    """The bytes after a power failure, of which the first `safe` ones were flushed; None for no file."""
    kept, rest = data[:safe], data[safe:]
    at = chosen.randrange(len(rest) + 1)
    match chosen.randrange(5):
        case 0:
            return kept
        case 1:
            return kept + rest[:at]
        case 2:
            return kept + bytes(len(rest))
        case 3:
            return kept or None
        case _:
            return data


def channel(folder: Path, commit: str) -> None:
    """A channel of nixpkgs at this commit."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{commit}.tar.gz", "w:gz") as tar:
        tar.add(PACKAGES, "set")
    (folder / "unstable").mkdir(parents=True, exist_ok=True)
    (folder / "unstable" / "git-revision").write_text(commit, encoding="ascii")


async def test_after_a_power_failure_nothing_is_overwritten_or_served_wrongly(
    start: Start, registry: Server, tmp_path: Path, nix_count: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, disk, served = random.Random(_SEED), Disk(), tmp_path / "served"
    data, copies = tmp_path / "data", [tmp_path / f"copy-{number}" for number in range(len(NAMES) + 1)]
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    persons = digest_of(made.manifest)
    channel(served, OLD)
    async with files_over_http(served) as url:
        nixpkgs = {
            "kind": "nixpkgs",
            "url": f"{url}/{{revision}}.tar.gz",
            "pointer": f"{url}/{{ref}}/git-revision",
            "ref": "unstable",
        }
        own: dict[str, Any] = {**EAGER, "sets": {"nix": nixpkgs}}
        own["packages"] = {"time_to_live": 0, "refresh": "wait"}
        with monkeypatch.context() as patches:
            disk.watch(patches, data)
            async with start(registry.url, **own) as before:
                images = {}
                for number, name in enumerate(NAMES):
                    pulling = asyncio.create_task(before.pull(name))
                    await handmade.push(registry.url, *PUSHED[number % len(PUSHED)], made)
                    await asyncio.sleep(chosen.random() / 4)  # any moment will do
                    await asyncio.to_thread(disk.fail, data, copies[number], chosen)
                    images[name] = await pulling
                    await before.get(f"/v2/nosuch{number}/manifests/latest")
                await asyncio.to_thread(disk.fail, data, copies[-1], chosen)
        channel(served, NEW)

        async with sqlite.open_state(copies[-1] / "state.sqlite") as state:
            for name, image in images.items():
                record = await state.recall_tag(name, "latest")
                assert isinstance(record, TagRecord), f"{name} is ours, and that was flushed"
                assert record.digest == image.digest
        for copy in copies:
            await asyncio.to_thread(shutil.rmtree, data)
            await asyncio.to_thread(copy.rename, data)
            async with front(tmp_path, nix_count, registry.url, **own) as after:
                for name, image in images.items():
                    if name != "nix/beta":  # its channel has moved on
                        assert await after.pull(name) == image
                for repository, tag in PUSHED:
                    await after.get(f"/v2/{repository}/manifests/{tag}", headers={"Accept": DOCKER_MANIFEST})
                    assert await digest_of_tag(registry.url, repository, tag) == persons
                pages = [(await after.get(path))[0] for path in ("/", "/images", "/status.json", "/compose")]
                assert pages == [200] * len(pages)
                missing = await after.get("/v2/helo/manifests/latest")
                assert missing[0] == 404
                assert b"did you mean hello?" in missing[2], "the list of names is made anew"
                assert len((data / "machine").read_bytes()) == 16
                if copy == copies[-1]:
                    old = await after.get(f"/v2/nix/alpha/manifests/{OLD}")
                    assert old[0] == 200, "no server tells that this commit was at the head of the channel"
