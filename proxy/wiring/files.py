"""Files: Nix expressions and sample settings that come with the package, and our own files in the data folder.

What is no coroutine here blocks.
"""

import asyncio
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from proxy.core.errors import SettingsInvalid
from proxy.tools.files import write_whole
from proxy.tools.scratch import scratch_folder

_PACKAGE = Path(__file__).parents[1]


def _folder_of(installed: str, checkout: str) -> Path:
    inside = _PACKAGE / installed
    return inside if inside.is_dir() else _PACKAGE.parent / checkout


#: The folder of the Nix expressions: inside an installed package, or `nix/` of a checkout.
EXPRESSIONS = _folder_of("expressions", "nix")
#: The folder of the sample settings: inside an installed package, or `config/` of a checkout.
SAMPLES = _folder_of("samples", "config")


def lock(data: Path) -> IO[bytes]:
    """Lock a data folder, for two servers would delete each other's garbage-collector roots. Closing the file unlocks it.

    Raises `SettingsInvalid` where another process holds the lock.
    """
    file = os.fdopen(os.open(data / "lock", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise SettingsInvalid(f"data.dir: {data} is in use by another nixfront") from error
    return file


def is_locked(data: Path) -> bool:
    """Whether a nixfront holds the lock. False where we may not open it."""
    try:
        lock(data).close()
    except SettingsInvalid:
        return True
    except OSError:  # there is no lock, or it is another user's
        pass
    return False


def machine(data: Path) -> str:
    """The name of this machine among those that share a state: random, one for each data folder.

    A file with anything else in it, as a power failure leaves one, gets a new name: an empty one would be that of two machines.
    """
    file = data / "machine"
    name = file.read_bytes().strip() if file.exists() else b""
    if not re.fullmatch(rb"[0-9a-f]{16}", name):
        name = secrets.token_hex(8).encode()
        write_whole(file, name, lasts=True)
    return name.decode()


@asynccontextmanager
async def build_folder(data: Path) -> AsyncIterator[Path]:
    """A folder for one `nixfront build`, which no server empties. Folders of builds whose process is gone are deleted."""
    await asyncio.to_thread(_delete_left_over, data)
    async with scratch_folder(data, f"build-{os.getpid()}-") as folder:
        yield folder


def _delete_left_over(data: Path) -> None:
    for folder in [*data.glob("build-*")]:
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder)


def empty(folder: Path) -> Path:
    """Empty the folder, where a process that was killed may have left garbage-collector roots, and return it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
