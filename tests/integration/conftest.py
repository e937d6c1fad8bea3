"""Real Nix on a store of the test's own, a real stock registry, the application in this process."""

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.nix.runner import NixRunner
from proxy.pipeline.attachments import Attachments
from proxy.pipeline.attachments.maker import Maker
from proxy.state import pulls
from proxy.tools import process
from proxy.trust import record
from proxy.trust.documents import documents
from tests.support.attached import check_ended
from tests.support.front import Front, front
from tests.support.markers import without_documents
from tests.support.servers import Server, answers, stock_registry
from tests.support.wait import Gate

#: It never ends, as the kernel ends what a thread started when that thread ends.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starting")


@pytest.fixture(autouse=True)
def _nix_is_not_behind_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server lets its builds stand behind its answers. Here nobody else is served, and all wait for the builds."""
    monkeypatch.setattr(process, "_STARTER", _STARTER)
    monkeypatch.setattr(process, "_NICE", 0)


@functools.lru_cache(100)
def _made_of(facts: bytes) -> dict[str, str]:
    """The documents of the image with these facts, by kind: many tests make the same image."""
    return {kind: document.decode() for kind, document in documents(record.read(facts)).items()}


@pytest.fixture(autouse=True)
def _documents_are_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has a child process for them, which loads the libraries anew. That would double the work of a test."""

    async def made(_maker: Maker, files: Sequence[Path]) -> dict[str, dict[str, str]]:
        return await asyncio.to_thread(lambda: {str(file): _made_of(file.read_bytes()) for file in files})

    monkeypatch.setattr(Maker, "documents", made)


@pytest.fixture
def documents_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """For files whose tests do not pull all of their images as a whole: at its end `registry` has the documents checked.

    A service that ends leaves documents to its next start. Here they are made first.
    """
    close = Attachments.close

    async def closed(attachments: Attachments) -> None:
        await attachments.settle()
        await close(attachments)

    monkeypatch.setattr(Attachments, "close", closed)


#: What Nix said of its settings, by what we gave it to read.
_nix_settings: dict[tuple[object, ...], bytes] = {}


@pytest.fixture(autouse=True)
def _nix_says_its_settings_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service asks once in ten minutes, and each test starts one. The answer is the same for the same configuration."""
    run = NixRunner.run

    async def remembered(self: NixRunner, argv: tuple[str, ...], deadline: float, **options: Any) -> bytes:
        if argv[:2] != ("nix", "show-config"):
            return await run(self, argv, deadline, **options)
        configuration = os.environ["NIX_CONFIG"].replace(str(tmp_path), "")
        key = (
            configuration,
            os.environ["PATH"].replace(str(tmp_path), ""),
            self._caches,
            options["substitutes"],
        )
        if key not in _nix_settings:
            _nix_settings[key] = await run(self, argv, deadline, **options)
        return _nix_settings[key]

    monkeypatch.setattr(NixRunner, "run", remembered)


@pytest.fixture(autouse=True)
def _tags_name_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that an operator runs read the settings of the service, which are `tests.support.front`'s."""
    monkeypatch.setenv("NIXFRONT_IMAGE_INDEX", "false")


@pytest.fixture(autouse=True)
def _pulls_are_written_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that makes an image old in the state stays right if the machine takes half a minute for the rest of it."""
    monkeypatch.setattr(pulls, "_EVERY", 3600.0)


@pytest.fixture(autouse=True)
def nix_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Nix that needs no network and lets builders see the host's shell; the file has a line for each start of it."""
    visible = f"/bin /usr /lib /lib64 /gate={tmp_path}/gate"
    (tmp_path / "gate").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    # Nix starts its own hook for each run that builds, to hear that there is no remote builder.
    hook = programs / "no-remote-builder"
    hook.write_text("#!/bin/sh\necho '# decline-permanently' >&2\n", encoding="ascii")
    hook.chmod(0o755)
    monkeypatch.setenv(
        "NIX_CONFIG",
        f"substituters =\nsandbox = true\nextra-sandbox-paths = {visible}\nbuild-hook = {hook}\n",
    )
    count = tmp_path / "nix-starts"
    for name in ("nix", "nix-build", "nix-instantiate", "nix-store"):
        folders = os.environ["PATH"].split(":")
        real = next(Path(folder, name) for folder in folders if Path(folder, name).exists())
        wrapper = programs / name
        wrapper.write_text(f'#!/bin/sh\necho "{name} $1" >> {count}\nexec {real} "$@"\n', encoding="ascii")
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return count


@pytest.fixture
def gate(nix_count: Path, tmp_path: Path) -> Gate:
    """What builds of `gated` wait for; it is shut."""
    return Gate(tmp_path / "gate")


@pytest_asyncio.fixture
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A stock registry with nothing in it. See `documents_are_valid`."""
    folder = tmp_path / "registry"
    folder.mkdir()
    async with stock_registry(folder) as server:
        yield server
        checked = "documents_are_valid" in request.fixturenames and not without_documents(request.node)
        if checked and await answers(server.host)():
            await check_ended(server.url, await asyncio.to_thread(_promises, tmp_path))


def _promises(folder: Path) -> set[str]:
    """The files of the images that documents are due to, in the data folders of all nixfronts of a test."""
    return {file.name for data in ("data", "*/data") for file in folder.glob(f"{data}/attachments/*.json")}


@pytest.fixture
def start(
    request: pytest.FixtureRequest, tmp_path: Path, nix_count: Path
) -> Callable[..., AbstractAsyncContextManager[Front]]:
    """`async with start(registry.url, layers={"most": 10}) as front` runs nixfront on the test package set."""
    return functools.partial(front, tmp_path, nix_count, without_documents=without_documents(request.node))
