"""nixfront as a pod has it: an ordinary user, no capability, a read-only root file system, and volumes for what it writes."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from proxy.tools.process import run
from tests.support.front import PACKAGES, machine
from tests.support.processes import search_path
from tests.support.servers import FROM_CHECKOUT, nixfront
from tests.support.validate import validate
from tests.support.wait import until

#: No passwd has it, as with the numbers that OpenShift chooses.
_USER = 54321
_CHECKOUT = Path(__file__).parents[2]
#: Volumes of the pod, by their folders here.
_VOLUMES = ("nix", "data", "temporary")


def _refusal() -> str:
    """Why this host cannot run the test; empty if it can."""
    if os.geteuid() != 0:
        return "only root mounts a file system read-only"
    tried = subprocess.run(("unshare", "--mount", "true"), capture_output=True, text=True, check=False)
    return f"no mount namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


pytestmark = pytest.mark.skipif(bool(_refusal()), reason=_refusal() or "this host can")


@pytest.fixture
def volumes() -> Iterator[Path]:
    """Empty folders of the ordinary user, which pytest's own would hide."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        for volume in _VOLUMES:
            Path(name, volume).mkdir()
            os.chown(Path(name, volume), _USER, _USER)
        yield Path(name)


def _shut(path: Path) -> Path | None:
    """The uppermost folder on the way to this path that others may not enter."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


def confined(volumes: Path, *, has_store: bool = True) -> tuple[str, ...]:
    """A command before another one, which then runs as in the pod; without `has_store` it cannot write to /nix."""
    steps = [f"mount --bind {volumes / name} {volumes / name}" for name in _VOLUMES]
    # What lies in the home of root, as a Python of pyenv or this checkout, is nothing for another user: open folders show it alone.
    hidden = {path: shut for path in (Path(sys.base_prefix), _CHECKOUT) if (shut := _shut(path)) is not None}
    steps.append("mount -t tmpfs none /mnt")
    for number, path in enumerate(hidden):
        steps += [f"mkdir /mnt/{number}", f"mount --bind {path} /mnt/{number}"]
    steps += [f"mount -t tmpfs -o mode=755 none {shut}" for shut in dict.fromkeys(hidden.values())]
    for number, path in enumerate(hidden):
        steps += [f"mkdir -p {path}", f"mount --move /mnt/{number} {path}"]
    if has_store:
        steps.append(f"mount --bind {volumes / 'nix'} /nix")
    steps.append("mount -o remount,bind,ro /")
    drop = f"setpriv --reuid={_USER} --regid={_USER} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all"
    script = "; ".join(["set -eu", *steps, f'exec {drop} "$@"'])
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


def environment_of(volumes: Path, programs: Path) -> dict[str, str]:
    """What the ordinary user has."""
    return {
        "HOME": str(volumes / "data"),
        "USER": "",
        "TMPDIR": str(volumes / "temporary"),
        "NIX_CONFIG": "sandbox = false\nsubstituters =",
        "NIX_REMOTE": "",
        "NIXFRONT_DATA_DIR": str(volumes / "data"),
        "PYTHONDONTWRITEBYTECODE": "1",
        # The programs that count Nix's starts lie where this user may not go.
        "PATH": os.pathsep.join(
            folder for folder in search_path().split(os.pathsep) if folder != str(programs)
        ),
    }


async def test_it_builds_and_serves_without_root_on_a_read_only_system(volumes: Path, tmp_path: Path) -> None:
    environment = environment_of(volumes, tmp_path / "programs")
    settings = {"packages": {"kind": "path", "path": str(PACKAGES)}}
    command = (*confined(volumes), *FROM_CHECKOUT)
    async with nixfront(tmp_path, settings=settings, env=environment, command=command) as server:
        process = Path("/proc", str(server.process.pid))
        status = await asyncio.to_thread((process / "status").read_text)
        mounts = await asyncio.to_thread((process / "mounts").read_text)
        image = await validate(server.url, "hello", "latest")
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/readyz") as ready:
            assert (ready.status, await ready.text()) == (200, "ready\n")

    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == [str(_USER)] * 4
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    (root,) = [line.split()[3] for line in mounts.splitlines() if line.split()[1] == "/"]
    assert "ro" in root.split(",")
    assert image.files
    assert {path.lstat().st_uid for path in (volumes / "data").rglob("*")} == {_USER}


async def test_it_needs_no_store_that_it_may_write_where_a_cache_has_all(
    volumes: Path, tmp_path: Path, nix_count: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """/nix is read-only, and the folder with the store of its own is empty at first."""
    caplog.set_level("INFO")
    cache, key, public = volumes / "cache", tmp_path / "key", tmp_path / "key.pub"
    await run(("nix-store", "--generate-binary-cache-key", "test-1", str(key), str(public)), deadline=60)
    async with machine(
        tmp_path / "builder", nix_count, copy_to=f"file://{cache}?secret-key={key}&compression=zstd"
    ) as builder:
        through_store = await builder.pull("shell/beta")
        await until(lambda: "copied to the binary cache paths=" in caplog.text)
    nix: dict[str, object] = {
        "store": str(volumes / "data/store"),
        "substituters": [f"file://{cache}"],
        "public_keys": [public.read_text(encoding="ascii")],
    }

    settings: dict[str, object] = {"packages": {"kind": "path", "path": str(PACKAGES)}, "nix": nix}
    environment = environment_of(volumes, tmp_path / "programs")
    command = (*confined(volumes, has_store=False), *FROM_CHECKOUT)
    async with nixfront(tmp_path / "confined", settings=settings, env=environment, command=command) as server:
        image = await validate(server.url, "shell/beta", "latest")

    assert image.digest == through_store.digest
    assert not [*(volumes / "data/store/nix/store").glob("*-1.0")]
