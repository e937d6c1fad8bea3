"""With `nix.fetch: store` a layer is in the registry while Nix still fetches other store paths, and the images are the same."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import pytest

from proxy.nix.hold import hold
from proxy.nix.runner import Limits, NixRunner
from proxy.tools.process import run
from tests.support.front import machine
from tests.support.served_cache import served
from tests.support.wait import until

PACKAGES = "shell/odd/propagating/large/noise/several/beta"
AGAIN = "beta/several/noise/large"
_PATIENCE = 50  # seconds
_NIX = ("nix", "--extra-experimental-features", "nix-command")


def info_of(cache: Path, package: str) -> Path:
    """The narinfo of a package."""
    (info,) = (
        file for file in cache.glob("*.narinfo") if file.read_text().split()[1].endswith(f"-{package}")
    )
    return info


def nar_of(cache: Path, package: str) -> str:
    """The request for the NAR of a package."""
    lines = info_of(cache, package).read_text().splitlines()
    return "/" + next(line.removeprefix("URL: ") for line in lines if line.startswith("URL: "))


def held_back(request: str, machine: Path) -> Callable[[str, bytes], bytes | None]:
    """A cache sends this file when the registry of the machine has a blob and its store was collected, and else wrong bytes."""

    def change(path: str, data: bytes) -> bytes | None:
        if path != request:
            return data
        end = monotonic() + _PATIENCE
        while not list((machine / "registry/data").glob("docker/registry/v2/blobs/sha256/*/*/data")):
            if monotonic() > end:
                return bytes(len(data))
            sleep(0.05)
        subprocess.run(("nix-store", "--store", machine / "store", "--gc"), check=True, capture_output=True)
        return data

    return change


def processes_of(store: Path) -> list[str]:
    """The command lines of what runs on this store."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"NIX_REMOTE={store}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
    return found


async def test_layers_are_packed_while_nix_fetches(
    tmp_path: Path, nix_count: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Older Nix fetches no more paths at a time than it builds, and a host with one processor builds one.
    monkeypatch.setenv("NIX_CONFIG", f"{os.environ['NIX_CONFIG']}max-jobs = 4\n")
    caplog.set_level("INFO")
    cache = tmp_path / "cache"
    async with machine(
        tmp_path / "builder", nix_count, copy_to=f"file://{cache}?compression=zstd"
    ) as builder:
        digests = {each: (await builder.pull(each)).digest for each in (PACKAGES, AGAIN, "alpha/beta")}
        await until(
            lambda: any("-alpha-1.0" in file.read_text().split()[1] for file in cache.glob("*.narinfo"))
        )
    large = nar_of(cache, "large-1.0")

    with served(cache) as slow:
        folder = tmp_path / "slow"
        slow.change.append(held_back(large, folder))
        caches = (f"{slow.url}?trusted=1",)
        async with machine(folder, nix_count, fetch="store", substituters=caches) as fetching:
            assert (await fetching.pull(PACKAGES)).digest == digests[PACKAGES]
        assert "through the Nix store" not in caplog.text

    with served(cache) as broken:
        folder = tmp_path / "broken"
        broken.change.append(lambda path, data: data[:-1] + b"?" if path == large else data)
        caches = (f"{broken.url}?trusted=1",)
        async with machine(folder, nix_count, fetch="store", substituters=caches) as failing:
            status, _, body = await failing.get(f"/v2/{PACKAGES}/manifests/latest")
            assert status == 404
            assert b"failed: failed to read compressed data" in body, "Nix says why"
            _, _, body = await failing.get(f"/v2/{PACKAGES}/tags/list")
            assert b'"tags":[]' in body
            assert processes_of(folder / "store") == []
            broken.change[:] = [lambda path, data: None if path == large else data]
            assert (await failing.pull(AGAIN)).digest == digests[AGAIN], "Nix builds what the cache lost"

    # The store has `beta` as it is, and the cache says that it needs nothing.
    folder = tmp_path / "doubtful"
    path = info_of(cache, "beta-1.0").read_text().split()[1]
    copy = (*_NIX, "copy", "--no-check-sigs", "--from", f"file://{cache}", "--to", str(folder / "store"))
    await run((*copy, path), deadline=60)
    info = info_of(cache, "beta-1.0")
    info.write_text(
        "".join(f"{line}\n" for line in info.read_text().splitlines() if "References" not in line)
    )
    with served(cache) as doubtful:
        caches = (f"{doubtful.url}?trusted=1",)
        async with machine(folder, nix_count, fetch="store", substituters=caches) as doubting:
            assert (await doubting.pull("alpha/beta")).digest == digests["alpha/beta"]
        assert "with other references than the binary caches say" in caplog.text

    # A nixfront that stops in the middle leaves no process.
    with served(cache) as silent:
        folder, asked, end = tmp_path / "stopped", threading.Event(), threading.Event()

        def wait(path: str, data: bytes) -> bytes:
            if path == large:
                asked.set()
                end.wait(_PATIENCE)
            return data

        silent.change.append(wait)
        caches = (f"{silent.url}?trusted=1",)
        async with machine(folder, nix_count, fetch="store", substituters=caches) as stopped:
            pull = asyncio.create_task(stopped.get(f"/v2/{AGAIN}/manifests/latest"))
            assert await asyncio.to_thread(asked.wait, _PATIENCE)
        end.set()
        await asyncio.gather(pull, return_exceptions=True)
        assert processes_of(folder / "store") == []


async def test_a_process_of_nix_holds_paths_from_garbage_collections(tmp_path: Path, nix_count: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "file"
    file.write_text("text")
    runner = NixRunner(Limits(60, 60), store=str(store))
    path = (await runner.run(("nix-store", "--add", str(file)), 60)).decode().strip()
    later = path.replace("-file", "-later")

    async with hold(runner) as holder:
        assert await holder.valid([later, path]) == {path}
        await runner.run(("nix-store", "--gc"), 60)
        assert await holder.valid([path]) == {path}
        assert await holder.valid([]) == set()
    await runner.run(("nix-store", "--gc"), 60)

    async with hold(runner) as holder:
        assert await holder.valid([path]) == set()
