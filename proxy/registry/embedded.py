"""The stock registry program as a child process, for an operator who has no registry yet.

It listens on a free loopback port and stores images under the data folder, with deletes enabled. nixfront starts it again
when it dies. It ends with nixfront, even with one that was killed, if util-linux's `setpriv` is installed.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from proxy.core.errors import RegistryUnavailable
from proxy.tools.process import read_lines

_log = logging.getLogger(__name__)
_log_child = logging.getLogger("nixfront.registry")

#: The names of the stock program: Debian's, and the distribution project's.
PROGRAMS = ("docker-registry", "registry")
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_FIRST_PAUSE = 0.2  # seconds before the next start; doubled each time the registry dies young
_LONGEST_PAUSE = 10.0
_YOUNG = 30.0  # seconds
_TAIL = 5  # lines of its log that a message holds


def find_program() -> str:
    """The path of the stock registry program. Raises `RegistryUnavailable`, whose message says what to install."""
    for name in PROGRAMS:
        if (path := shutil.which(name)) is not None:
            return path
    raise RegistryUnavailable(
        f"no registry program ({' or '.join(PROGRAMS)}) on PATH: install one (Debian: docker-registry), "
        "or name a registry that runs already with registry.url (NIXFRONT_REGISTRY_URL)"
    )


def storage(folder: Path) -> Path:
    """Where a registry that runs in this folder stores images."""
    return folder.absolute() / "storage"


@asynccontextmanager
async def run(folder: Path) -> AsyncIterator[str]:
    """The origin of a registry that stores under `folder` and runs until the context ends.

    Raises `RegistryUnavailable` if the registry does not start.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    argv = await asyncio.to_thread(_prepare, folder, port)
    tail: deque[str] = deque(maxlen=_TAIL)
    supervisor = asyncio.create_task(_supervise(argv, tail))
    try:
        await _wait_until_ready(url, tail)
        yield url
    finally:
        supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await supervisor


def address(folder: Path) -> str:
    """The origin of a registry that another process runs on `folder`. Blocks. Raises `RegistryUnavailable`."""
    try:
        settings = yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))
        return f"http://{settings['http']['addr']}"
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise RegistryUnavailable(f"no registry runs on {folder}: {error}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _prepare(folder: Path, port: int) -> tuple[str, ...]:
    """Write the registry's configuration; returns its command line. Raises `RegistryUnavailable`."""
    program = find_program()
    folder.mkdir(parents=True, exist_ok=True)
    # No cache of descriptors: after a garbage collection it would report blobs that are gone.
    settings = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(storage(folder))},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": _secret(folder / "secret")},
    }
    configuration = folder / "config.yml"
    configuration.touch(mode=0o600)
    configuration.write_text(yaml.safe_dump(settings), encoding="utf-8")
    setpriv = shutil.which("setpriv")
    ends_with_us = (setpriv, "--pdeathsig", "TERM") if setpriv else ()
    return (*ends_with_us, program, "serve", str(configuration))


def _secret(file: Path) -> str:
    """What signs the registry's uploads, which may go on after a new start. Raises `OSError`."""
    file.touch(mode=0o600)
    secret = file.read_bytes().decode("ascii", "replace")
    if not re.fullmatch(r"[0-9a-f]{64}", secret):  # a new file, or one that a power failure damaged
        secret = secrets.token_hex(32)
        file.write_text(secret, encoding="ascii")
    return secret


async def _supervise(argv: Sequence[str], tail: deque[str]) -> None:
    loop = asyncio.get_running_loop()
    pause = _FIRST_PAUSE
    while True:
        started = loop.time()
        returncode = await _run_once(argv, tail)
        pause = _FIRST_PAUSE if loop.time() - started > _YOUNG else min(pause * 2, _LONGEST_PAUSE)
        _log.warning("the registry ended with %s, starting it again in %.1f s", returncode, pause)
        await asyncio.sleep(pause)


async def _run_once(argv: Sequence[str], tail: deque[str]) -> int:
    """Run the registry to its end and return its exit status; a cancellation ends the registry. Keeps its last lines in `tail`."""

    def keep(line: str) -> None:
        tail.append(line)
        _log_child.debug("%s", line)

    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # Such variables are settings of another registry on this host.
        env={name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")},
        start_new_session=True,
    )
    assert child.stderr is not None  # noqa: S101 - it is a pipe
    try:
        await read_lines(child.stderr, keep)  # of any length: a client can make them long
        return await child.wait()
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), _STOP_SECONDS)
            if child.returncode is None:
                child.kill()
                await child.wait()


async def _wait_until_ready(url: str, tail: deque[str]) -> None:
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{url}/v2/") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
    last_lines = "; ".join(tail) or "nothing"
    raise RegistryUnavailable(
        f"the registry program did not start in {_START_SECONDS:.0f} s; it said: {last_lines}"
    )
