"""kill -9 at any moment: nothing half-made can be seen, nothing is left in the way, the next pull succeeds."""

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import aiohttp

from proxy.tools.process import run
from tests.support.front import PACKAGES
from tests.support.processes import write
from tests.support.servers import FROM_CHECKOUT, Server, nixfront
from tests.support.stored import stored_tags
from tests.support.validate import validate
from tests.support.wait import until

_SEED = 20261125
#: Each is built from its evaluation on, as none is what another one has in it alone.
_NAMES = ("manyparts", "alpha/large", "beta/odd", "several/git")


async def pull(server: Server, name: str) -> int:
    """The status of a manifest's GET, 0 where the connection broke."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{server.url}/v2/{name}/manifests/latest") as answer,
        ):
            return answer.status
    except aiohttp.ClientError:
        return 0


async def test_killed_at_random_moments_of_builds(tmp_path: Path, registry: Server) -> None:
    chosen = random.Random(_SEED)
    settings = {
        "registry": {"url": registry.url},
        "nix": {"store": str(tmp_path / "store")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
    }

    async with nixfront(tmp_path, settings=settings, command=FROM_CHECKOUT) as server:
        before = time.monotonic()
        assert await pull(server, "hello") == 200
        whole = time.monotonic() - before

    broken_off, moments = 0, whole
    for name in _NAMES:
        async with nixfront(tmp_path, settings=settings, command=FROM_CHECKOUT) as server:
            pulling = asyncio.create_task(pull(server, name))
            await asyncio.sleep(chosen.uniform(0.05, 1.1) * moments)
            os.kill(server.process.pid, signal.SIGKILL)
            if await pulling == 0:
                broken_off += 1
            else:
                moments /= 3  # the machine is faster now than it was
        await stored_tags(registry.url)
    assert broken_off >= len(_NAMES) // 2, "it was killed in the middle of builds, not after them"

    await no_process_with(f"NIX_REMOTE={tmp_path / 'store'}")  # Nix and its builders ended with it
    async with nixfront(tmp_path, settings=settings, command=FROM_CHECKOUT) as server:
        assert list((tmp_path / "data" / "gcroots").iterdir()) == [], "roots of the dead are gone"
        for name in ("hello", *_NAMES):
            await validate(server.url, name, "latest")
        assert list((tmp_path / "data" / "gcroots").iterdir()) == []
    roots = await run(
        ("nix-store", "--gc", "--print-roots"),
        env={**os.environ, "NIX_REMOTE": str(tmp_path / "store")},
        deadline=60,
    )
    assert b"/data/gcroots/" not in roots
    assert len(await stored_tags(registry.url)) >= len(_NAMES)


async def test_a_build_that_never_ends_does_not_outlive_it(tmp_path: Path, registry: Server) -> None:
    mark = f"endless-{os.getpid()}"
    packages = tmp_path / "set"
    write(
        packages / "default.nix",
        f"""{{ system }}: {{ endless = derivation {{
            inherit system; name = "{mark}"; builder = "/bin/sh"; args = [ "-c" "exec /bin/sleep 600" ];
        }}; }}""",
    )
    settings = {
        "registry": {"url": registry.url},
        "nix": {"store": str(tmp_path / "store")},
        "packages": {"kind": "path", "path": str(packages)},
    }
    async with nixfront(tmp_path, settings=settings, command=FROM_CHECKOUT) as server:
        pulling = asyncio.create_task(pull(server, "endless"))
        await until(lambda: processes_with(f"name={mark}"))
        os.kill(server.process.pid, signal.SIGKILL)
        assert await pulling == 0

    await no_process_with(f"name={mark}")  # the builder
    await no_process_with(f"NIX_REMOTE={tmp_path / 'store'}")  # Nix


async def no_process_with(variable: str) -> None:
    """Wait until no process has this in its environment any more."""
    await until(lambda: not processes_with(variable))


def processes_with(variable: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found
