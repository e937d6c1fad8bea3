"""An emulator for images of another processor: qemu-user, and what it takes to start a program in an unpacked root.

The host is an x86-64 with Debian's qemu-user, whose programs need libraries of the host.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from proxy.tools.process import run

QEMU = "qemu-aarch64"

# Since Linux 6.7 a user namespace has handlers of its own for programs of other processors: this one ends with the command.
_HANDLER = (
    r":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:"
)
_INSIDE = """
echo begun
read -r _
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || { echo unsupported; exit; }
printf '%s' "$1" > /proc/sys/fs/binfmt_misc/register
shift
exec "$@"
"""


def _emulator() -> str:
    found = shutil.which(QEMU)
    assert found, f"{QEMU} is missing"
    return found


def unpack(layers: Iterable[Path], root: Path) -> None:
    """The files of these layers in a folder, with the emulator and its libraries beside them."""
    root.mkdir()
    for layer in layers:
        subprocess.run(["tar", "-xf", layer, "-C", root, "--no-same-owner"], check=True)
    emulator = _emulator()
    listed = subprocess.run(["ldd", emulator], check=True, capture_output=True, text=True).stdout
    for found in re.findall(r"(/\S+) \(0x", listed):
        folder = "lib64" if "ld-linux" in found else "usr/lib/x86_64-linux-gnu"
        (root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(found, root / folder)
    shutil.copy(emulator, root / "usr/bin")
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev/null").touch()  # an engine adds it, and git opens it before anything else


async def start(root: Path, environment: Mapping[str, str], *argv: str) -> str:
    """What a program of an unpacked image prints."""
    program = ("unshare", "--user", "--map-root-user", "chroot", str(root), f"/usr/bin/{QEMU}", *argv)
    return (await run(program, env={**os.environ, **environment}, deadline=600)).decode()


async def on_an_emulated_host(environment: Mapping[str, str], *argv: str) -> str:
    """What a command prints on a host that runs programs of arm64 as its own: a namespace with a handler for them."""
    if os.geteuid():
        pytest.skip("only root has every user in a namespace of its own, as a builder needs")
    child = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--mount", "sh", "-c", _INSIDE, "sh", f"{_HANDLER}{_emulator()}:FP", *argv),
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdin
        assert child.stdout
        assert await child.stdout.readline() == b"begun\n"
        for kind in ("uid", "gid"):
            # A kernel takes the map in one write.
            await asyncio.to_thread(Path(f"/proc/{child.pid}/{kind}_map").write_text, "0 0 65536")
        output, _ = await child.communicate(b"go\n")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if output == b"unsupported\n":
        pytest.skip("this kernel has no handlers of programs in a user namespace (Linux 6.7 has them)")
    assert child.returncode == 0, output
    return output.decode()
