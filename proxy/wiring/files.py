"""Where the files are that come with the package but are not Python: Nix expressions and sample settings.

What lies in the data folder beside what others keep there: its lock, the machine's name, and folders for garbage-collector roots.

Everything here blocks.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import IO

from proxy.core.errors import SettingsInvalid

_PACKAGE = Path(__file__).parents[1]


def _shipped(installed: str, checkout: str) -> Path:
    inside = _PACKAGE / installed
    return inside if inside.is_dir() else _PACKAGE.parent / checkout


#: The folder of the Nix expressions: inside an installed package, or `nix/` of a checkout.
EXPRESSIONS = _shipped("expressions", "nix")
#: The folder of the sample settings: inside an installed package, or `config/` of a checkout.
SAMPLES = _shipped("samples", "config")


def lock(data: Path) -> IO[bytes]:
    """The lock of a data folder, held while the file is open: two of us would clear each other's roots.

    Raises `SettingsInvalid` if it is taken.
    """
    held = os.fdopen(os.open(data / "lock", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise SettingsInvalid(f"data.dir: {data} is in use by another nixfront") from error
    return held


def is_locked(data: Path) -> bool:
    """Whether a nixfront holds the lock, as far as we may look."""
    try:
        lock(data).close()
    except SettingsInvalid:
        return True
    except OSError:  # it is not there, or another user's
        pass
    return False


def machine(data: Path) -> str:
    """The name of this machine among those that share a state: drawn once for each data folder."""
    file = data / "machine"
    if not file.exists():
        file.write_text(secrets.token_hex(8), encoding="ascii")
    return file.read_text(encoding="ascii").strip()


def build_folder(data: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for one build, whose roots no server clears; those of killed builds are cleared here."""
    for folder in [*data.glob("build-*")]:
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder)
    return tempfile.TemporaryDirectory(prefix=f"build-{os.getpid()}-", dir=data)


def empty(folder: Path) -> Path:
    """The folder, without the garbage-collector roots that a killed predecessor may have left."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
